"""One task, one run: leases are renewed while work goes on, and lapse with whoever held them.

More of it, under load, is in the chaos suite, whose short form `make test` runs too.
"""

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from select import select
from threading import Thread

import pytest
from celery import Celery
from celray_testing import TRACES, Process, RedisServer, StartWorker, environment, wait_for, worker

from tasks.broker.redis.scripts import HELD, LEASES

#: The lease in these tests, in seconds.
LEASE = 5
SHORT = {"CELRAY_VISIBILITY_TIMEOUT_SECONDS": str(LEASE)}


def traces(redis: RedisServer) -> Counter[str]:
    with redis.client(5) as client:
        return Counter(client.lrange(TRACES, 0, -1))


def held(redis: RedisServer) -> int:
    with redis.client(0) as client:
        return int(client.hlen(HELD)) + int(client.zcard(LEASES))


class Stack:
    """A Redis that may stop, workers on it, a client outside."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.folder = folder
        self.processes: list[Process] = []
        self.client = Celery("outside", broker=redis.url(0), backend=redis.url(1))

    def worker(self, name: str = "default", **extra: str) -> Process:
        env = {**environment(self.redis, self.folder), **SHORT, **extra}
        env["CELRAY_HEARTBEAT_FILE"] = str(self.folder / f"heartbeat-{len(self.processes)}")
        folder = self.folder / str(len(self.processes))
        folder.mkdir()
        process = worker(env, folder, name, "default,celery", "extra_tasks")
        self.processes.append(process)
        return process


@pytest.fixture
def stack(own_redis: RedisServer, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(own_redis, tmp_path)
    yield made
    for process in made.processes:
        process.kill()
    made.client.close()


@pytest.mark.slow
def test_a_pool_grows_and_shrinks_within_its_bounds_and_runs_everything_once(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    bounds = {"CELERY_AUTOSCALE": "4,1", "AUTOSCALE_KEEPALIVE": "3"}  # seconds; 30 by default
    process = start_worker("default", "default,celery", "extra_tasks", **SHORT, **bounds)

    def children() -> int:
        (pool,) = client.control.inspect(timeout=2).stats().values()
        return len(pool["pool"]["processes"])

    assert children() == 1
    results = [client.send_task("extra.nap", args=[number, 3]) for number in range(8)]
    wait_for(lambda: children() > 1)
    assert sorted(result.get(timeout=60) for result in results) == list(range(8))
    assert children() <= 4
    wait_for(lambda: children() == 1, 60)
    assert client.send_task("extra.nap", args=[8, 0.1]).get(timeout=60) == 8
    assert set(traces(redis).values()) == {1}
    assert "Traceback" not in process.text


@pytest.mark.slow
def test_a_task_of_four_leases_and_an_eta_run_once_under_every_pool(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker("default", "default,celery", "extra_tasks", **SHORT)
    start_worker("data", "data", "extra_tasks", **SHORT, CELERY_POOL="threads")
    start_worker("ml", "ml", "extra_tasks", **SHORT, CELERY_POOL="solo")
    results = [
        client.send_task("extra.nap", args=[1, 4 * LEASE]),
        client.send_task("extra.nap", args=[2, 4 * LEASE], queue="data"),
        client.send_task("extra.nap", args=[3, 4 * LEASE], queue="ml"),
        client.send_task("extra.nap", args=[4, 0.1], countdown=3 * LEASE),
    ]
    assert [result.get(timeout=60) for result in results] == [1, 2, 3, 4]
    time.sleep(2 * LEASE)
    assert set(traces(redis).values()) == {1}
    assert held(redis) == 0


@pytest.mark.slow
def test_a_message_whose_fetcher_vanished_before_reading_it_is_delivered(
    start_worker: StartWorker, client: Celery, redis: RedisServer, env: dict[str, str]
) -> None:
    result = client.send_task("tasks.simple_tasks.ping", queue="default")
    vanished = subprocess.run(
        [sys.executable, "-m", "celray_lease_worker"], env={**env, **SHORT}, check=False
    )
    assert vanished.returncode == -signal.SIGKILL
    with redis.client(0) as broker:
        assert broker.llen("default") == 0
        assert broker.hlen(HELD) == 1
    start_worker(**SHORT)
    assert result.get(timeout=LEASE + 15)["status"] == "pong"


@pytest.mark.slow
def test_a_message_published_to_a_stopped_worker_is_not_lost_with_it(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    first = start_worker(**SHORT)
    time.sleep(1.5)  # it is idle and waits for messages
    first.popen.send_signal(signal.SIGSTOP)
    results = [client.send_task("tasks.simple_tasks.ping", queue="default") for _ in range(5)]
    time.sleep(1)
    first.kill()
    start_worker("data", "data,default,celery", **SHORT)
    assert {result.get(timeout=LEASE + 15)["status"] for result in results} == {"pong"}
    wait_for(lambda: held(redis) == 0)


@pytest.mark.slow
def test_a_worker_that_cannot_reach_redis_ends_before_its_lease_does(stack: Stack) -> None:
    # Longer than in the other tests: a busy machine may hold the worker up for a second or two.
    lease = 3 * LEASE
    longer = {"CELRAY_VISIBILITY_TIMEOUT_SECONDS": str(lease)}
    first = stack.worker(**longer)
    result = stack.client.send_task("extra.nap", args=[1, 4 * LEASE])
    wait_for(lambda: traces(stack.redis)["start 1"] == 1)
    server = stack.redis.process
    assert server is not None
    server.send_signal(signal.SIGSTOP)  # takes connections, and never answers
    stopped = time.monotonic()
    try:
        first.popen.wait(timeout=2 * lease)
        assert time.monotonic() - stopped < lease
    finally:
        server.send_signal(signal.SIGCONT)
    assert first.popen.returncode == 75
    assert "this one ends now" in first.text
    stack.worker(**longer)
    assert result.get(timeout=6 * lease) == 1
    assert traces(stack.redis) == {"start 1": 2, "end 1": 1}


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["is gone", "is silent"])
def test_a_stop_does_not_wait_for_a_redis_that(fate: str, stack: Stack) -> None:
    first = stack.worker(CELRAY_SOFT_SHUTDOWN_SECONDS="1")
    result = stack.client.send_task("extra.nap", args=[1, 30])
    wait_for(lambda: traces(stack.redis)["start 1"] == 1)
    server = stack.redis.process
    assert server is not None
    first.popen.terminate()
    first.says("stop: running tasks")
    server.send_signal(signal.SIGKILL if fate == "is gone" else signal.SIGSTOP)
    try:
        first.popen.wait(timeout=60)
    finally:
        server.send_signal(signal.SIGCONT)
    if fate == "is gone":
        stack.redis.stop()
        stack.redis.start()
    assert first.popen.returncode in {0, 75}  # it may have noticed before it had to wait
    stack.worker()
    wait_for(lambda: traces(stack.redis)["start 1"] == 2, 4 * LEASE)
    assert result.state != "FAILURE"


def test_a_worker_whose_lease_another_took_ends_and_gives_back_the_rest(stack: Stack) -> None:
    # Longer than in the other tests: a busy machine may hold the worker up for a second or two.
    first = stack.worker(CELRAY_VISIBILITY_TIMEOUT_SECONDS=str(3 * LEASE))
    results = [stack.client.send_task("extra.nap", args=[i, 60]) for i in range(2)]
    wait_for(lambda: traces(stack.redis).total() == 2)
    with stack.redis.client(0) as broker:
        tags = [str(tag) for tag in broker.zrange(LEASES, 0, -1)]
        broker.zrem(LEASES, tags[0])
        broker.hdel(HELD, tags[0])
        first.popen.wait(timeout=6 * LEASE)
        assert first.popen.returncode == 75
        assert broker.llen("celery") == 1, first.text
    assert len(results) == 2


@pytest.mark.slow
@pytest.mark.parametrize("away", [0, 3])
def test_what_had_not_begun_when_redis_went_away_is_done_when_it_is_back(
    away: int, stack: Stack
) -> None:
    """Not a lease later; and what was running meanwhile is not done twice."""
    first = stack.worker(CELRAY_VISIBILITY_TIMEOUT_SECONDS="600")
    later = [stack.client.send_task("extra.nap", args=[i, 0.1], countdown=8) for i in range(3)]
    running = [stack.client.send_task("extra.until_told", args=[i]) for i in range(3, 7)]
    waiting = [stack.client.send_task("extra.nap", args=[i, 0.1]) for i in range(7, 12)]
    wait_for(lambda: traces(stack.redis).total() == len(running))
    assert held(stack.redis) >= 2 * (len(running) + len(later))
    server = stack.redis.process
    assert server is not None
    server.kill()
    server.wait()
    first.says("yet: ")  # it could not give back
    time.sleep(away)
    stack.redis.start()
    with stack.redis.client(5) as tasks:
        tasks.set("go", "yes")
    results = [result.get(timeout=120) for result in [*later, *running, *waiting]]
    assert results == list(range(12))
    wait_for(lambda: held(stack.redis) == 0)
    assert first.popen.poll() is None
    assert "its worker is gone" not in first.text
    assert set(traces(stack.redis).values()) == {1}


class Forgetful:
    """A way to Redis that loses the answers of the first ``EVALSHA``, and its connection."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._redis.port)) as far:
            while ready := select([near, far], [], [])[0]:
                for one in ready:
                    data = one.recv(1 << 20)
                    if not data:
                        return
                    (far if one is near else near).sendall(data)
                    if one is near and b"EVALSHA" in data and not self.lost:
                        self.lost += 1
                        far.recv(1 << 20)  # Redis has done it
                        return


def test_a_fetch_whose_answer_is_lost_loses_no_message(
    env: dict[str, str], client: Celery, redis: RedisServer
) -> None:
    """A fetch must not be sent again: its tags would hide the messages of the first."""
    way = Forgetful(redis)
    ids = {client.send_task("x", queue="default").id for _ in range(3)}
    code = """
from tasks.app import app
with app.connection_for_read() as connection:
    try:
        connection.default_channel.basic_get("default")
    except connection.connection_errors as error:
        print(type(error).__name__)
"""
    through = {"CELRAY_BROKER_URL": f"redis://127.0.0.1:{way.port}/0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**env, **through},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        way.close()
    assert way.lost == 1
    assert done.stdout == "ConnectionError\n"
    with redis.client(0) as broker:
        there = [*broker.lrange("default", 0, -1), *broker.hvals(HELD)]
        assert {one for one in ids if any(one in str(text) for text in there)} == ids
        assert broker.zcard(LEASES) == broker.hlen(HELD) == 1  # whose lease lapses
