"""An endless script in Redis ends no worker: BUSY is an absence, named where people look."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery
from celray_testing import BEAT, PACKAGE, Process, RedisServer, environment, wait_for, worker
from redis import Redis

from tasks.broker.redis.busy import BusyScriptError, count_busy_as_away
from tasks.broker.redis.leases import refused
from tasks.operations import health
from tasks.settings import Settings

ENDLESS = "while true do end"
#: One that has written cannot be ended by SCRIPT KILL.
ENDLESS_AFTER_A_WRITE = "redis.call('set', 'x', 1) while true do end"


@pytest.fixture(autouse=True)
def counted_as_away() -> None:
    """As in every process of ours."""
    count_busy_as_away()


@contextmanager
def busy(server: RedisServer, script: str = ENDLESS) -> Iterator[None]:
    """Have Redis run an endless script meanwhile, and answer BUSY."""
    with server.client(0) as admin:
        admin.config_set("busy-reply-threshold", 200)

    # Not by redis-py, which tries again what has not answered for seconds, and says who it is
    # before it asks anything.
    command = [str(shutil.which("redis-cli")), "-p", str(server.port)]
    runs = subprocess.Popen([*command, "EVAL", script, "0"], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _is_busy(server))
        yield
    finally:
        said = subprocess.run(
            [*command, "SCRIPT", "KILL"], capture_output=True, text=True, check=False
        ).stdout
        if said.strip() != "OK":  # it has written
            assert server.process
            server.process.kill()
            server.process.wait()
            server.start()
        runs.wait(timeout=60)


def _is_busy(server: RedisServer) -> bool:
    try:
        with Redis(port=server.port, socket_timeout=5) as client:
            client.get("x")
    except BusyScriptError:
        return True
    return False


@pytest.mark.slow
def test_redis_py_still_looks_where_the_error_is_registered(own_redis: RedisServer) -> None:
    with busy(own_redis), own_redis.client(0) as client:
        with pytest.raises(BusyScriptError, match="make restart WHAT=redis") as told:
            client.get("x")
        assert refused(told.value), "nobody can take a lease meanwhile"
        with pytest.raises(BusyScriptError):
            client.pipeline(transaction=True).get("x").get("y").execute()


@pytest.mark.slow
@pytest.mark.parametrize("script", [ENDLESS, ENDLESS_AFTER_A_WRITE], ids=["reads", "has written"])
def test_a_worker_outlives_an_endless_script(
    own_redis: RedisServer, tmp_path: Path, script: str
) -> None:
    env = environment(own_redis, tmp_path)
    process = worker(env, tmp_path, "default", "default,celery", "extra_tasks")
    with Celery(broker=own_redis.url(0), backend=own_redis.url(1), set_as_current=False) as app:
        try:
            effect = tmp_path / "effect"
            running = app.send_task("extra.write", args=[str(effect), 1.0])
            wait_for(lambda: running.state == "STARTED")
            with busy(own_redis, script):
                pid = process.popen.pid
                # The task ends meanwhile, and cannot say so.
                threading.Event().wait(4)
                assert process.popen.poll() is None, process.text
            assert running.get(timeout=60) == "x"
            assert app.send_task("extra.nap", args=[2, 0]).get(timeout=60) == 2
            assert process.popen.pid == pid
            assert effect.read_text() == "x\n", "once"
            assert "Unrecoverable error" not in process.text
        finally:
            process.kill()


@pytest.mark.slow
def test_beat_outlives_it_too(own_redis: RedisServer, tmp_path: Path) -> None:
    env = environment(own_redis, tmp_path, CELRAY_BEAT_MAX_INTERVAL_SECONDS="4")
    beat = Process([*BEAT], env, tmp_path / "beat.log")
    try:
        with own_redis.client(2) as broker:
            wait_for(lambda: broker.get("celray:beat:last_tick"))
        with busy(own_redis):
            beat.says("a script that does not end", 60)
            assert beat.popen.poll() is None, beat.text
        with own_redis.client(2) as broker:
            last = broker.get("celray:beat:last_tick")
            wait_for(lambda: broker.get("celray:beat:last_tick") != last or beat.popen.poll(), 60)
            assert beat.popen.poll() is None, beat.text
    finally:
        beat.kill()


@pytest.mark.slow
def test_health_and_status_name_it(
    own_redis: RedisServer, app: Celery, configure: Callable[..., Settings]
) -> None:
    settings = configure(
        broker_url=own_redis.url(0), result_backend_url=own_redis.url(1), health_timeout_seconds=2
    )
    with busy(own_redis):
        verdict = health.check(app, settings)
    said = {reason.part: reason.message for reason in verdict.reasons}
    assert verdict.status == "unhealthy"
    assert "a script that does not end" in said["redis"]
    assert "make restart WHAT=redis" in said["redis"]


def test_the_containers_check_shows_what_redis_said() -> None:
    template = (PACKAGE.parent / "compose" / "redis.yml.j2").read_text()
    assert "grep -q PONG" not in template, "it would swallow BUSY, LOADING and MISCONF"
