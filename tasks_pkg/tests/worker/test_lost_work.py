"""Nothing that was accepted is lost, and nothing runs without end."""

import json
import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from celray_messages import message, protocol_2
from celray_testing import TRACES, RedisServer, StartWorker, environment, wait_for, worker

from tasks.broker.envelope import read
from tasks.broker.redis import leases
from tasks.broker.redis.scripts import DEAD, HELD, LEASES
from tasks.message_headers import LAPSES
from tasks.results.deduplication import TAG
from tasks.worker.lease_keeper import LapsedLeases


def traces(redis: RedisServer) -> Counter[str]:
    with redis.client(5) as client:
        return Counter(client.lrange(TRACES, 0, -1))


@pytest.mark.slow
def test_a_task_that_kills_its_process_ends_after_three_runs(
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
) -> None:
    start_worker(app="extra_tasks")
    result = client.send_task("extra.poison")
    result.get(timeout=60, propagate=False)
    assert result.state == "FAILURE"
    assert "WorkerLostError" in repr(result.result)
    assert traces(redis) == {"start poison": 3}
    assert client.send_task("tasks.simple_tasks.ping").get(timeout=60)["status"] == "pong"


@pytest.mark.slow
def test_a_stopping_worker_finishes_what_it_can_and_leaves_the_rest(
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
) -> None:
    first = start_worker(app="extra_tasks", CELRAY_SOFT_SHUTDOWN_SECONDS="60")
    results = [client.send_task("extra.until_told", args=[i]) for i in range(12)]
    wait_for(lambda: traces(redis).total() == 4)
    first.popen.terminate()
    first.says("stop: running tasks")
    with redis.client(5) as tasks:
        tasks.set("go", "yes")
    first.popen.wait(timeout=50)  # it waits no longer than its tasks
    assert first.popen.returncode == 0
    with redis.client(0) as broker:
        assert broker.llen("celery") == 8  # four were running, and finished
        assert not broker.exists(HELD, LEASES)
    start_worker(app="extra_tasks")
    assert [result.get(timeout=60) for result in results] == list(range(12))
    assert set(traces(redis).values()) == {1}  # each started once and ended once


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT])
def test_what_cannot_finish_in_time_goes_back_to_its_queue(
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
    how: signal.Signals,
) -> None:
    first = start_worker(app="extra_tasks", CELRAY_SOFT_SHUTDOWN_SECONDS="1")
    results = [client.send_task("extra.until_told", args=[i]) for i in range(2)]
    wait_for(lambda: traces(redis).total() == 2)
    first.popen.send_signal(how)
    first.popen.wait(timeout=60)
    with redis.client(0) as broker, redis.client(5) as tasks:
        assert broker.llen("celery") == 2
        tasks.set("go", "yes")
    start_worker(app="extra_tasks")
    assert [result.get(timeout=60) for result in results] == [0, 1]
    assert traces(redis) == {"start 0": 2, "start 1": 2, "end 0": 1, "end 1": 1}


def test_an_idle_worker_stops_at_once(start_worker: StartWorker) -> None:
    process = start_worker(CELRAY_SOFT_SHUTDOWN_SECONDS="600")
    process.terminate()  # which waits for a minute
    assert process.popen.returncode == 0
    assert "Traceback" not in process.text, process.text


@pytest.mark.slow
def test_a_stop_gives_back_however_many_wait_for_their_time(
    start_worker: StartWorker, redis: RedisServer
) -> None:
    made = [json.dumps(protocol_2(eta="2999-01-01T00:00:00+00:00")) for _ in range(5_000)]
    with redis.client(0) as broker:
        for at in range(0, len(made), 1_000):
            broker.lpush("default", *made[at : at + 1_000])
        process = start_worker(app="extra_tasks", CELRAY_SOFT_SHUTDOWN_SECONDS="5")
        wait_for(lambda: broker.hlen(HELD) == len(made), 100)
        before = int(broker.info("commandstats")["cmdstat_evalsha"]["calls"])
        process.terminate()
        assert process.popen.returncode == 0
        # In a few steps, not one for each: that is what keeps any number within the grace time.
        assert int(broker.info("commandstats")["cmdstat_evalsha"]["calls"]) - before < 60
        assert broker.llen("default") == len(made)
        first = json.loads(str(broker.lindex("default", -1)))
        assert first["headers"]["id"] == json.loads(made[0])["headers"]["id"]
        assert "celray_lapses" not in first["headers"]


def test_a_stop_without_time_leaves_what_waits_to_its_lease(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "GIVE_BACK_SECONDS", -1.0)
    with redis.client(0) as broker:
        mine = leases.Leases(broker)
        for number in range(2_500):
            tag, made = f"tag-{number}", json.dumps(protocol_2())
            broker.hset(HELD, tag, f'[{made},"","default"]')
            broker.zadd(LEASES, {tag: 1})
            mine.hold(tag, "default", read(made.encode(), tag))
        mine.give_back_all(list(mine.held))
        assert (broker.llen("default"), broker.hlen(HELD)) == (1_000, 1_500)
        assert broker.zcard(LEASES) == 1_500
    assert not mine.held, "nobody renews them"
    assert "the leases of 1500 messages lapse" in caplog.text


@pytest.mark.parametrize("waits", ["for its time", "for its turn"])
def test_a_delivery_that_never_began_is_not_counted_against_its_task(
    waits: str, app: Celery, redis: RedisServer
) -> None:
    eta = {"eta": "2999-01-01T00:00:00+00:00"} if waits == "for its time" else {}
    made = protocol_2("tasks.simple_tasks.check_cluster_health", **eta)
    with redis.client(0) as broker, app.connection_for_read() as connection:
        sweeper = LapsedLeases(app, connection.default_channel.leases, 0.0, 3)
        broker.lpush("default", json.dumps(made))
        for death in range(10):
            item = broker.rpop("default")
            assert item is not None, death
            tag = f"t{death}"
            broker.hset(HELD, tag, f'[{item},"","default"]')
            broker.zadd(LEASES, {tag: 1.0})
            sweeper.sweep()
        assert not broker.exists(DEAD)
        headers = json.loads(str(broker.lindex("default", 0)))["headers"]
        assert LAPSES not in headers
        # One that has begun says so in its record, and is counted: also where this host's clock
        # is behind that of the host on which its time had come.
        key = app.backend.get_key_for_task(headers["id"])
        for death in range(3):
            item = broker.rpop("default")
            broker.hset(HELD, f"b{death}", f'[{item},"","default"]')
            broker.zadd(LEASES, {f"b{death}": 1.0})
            app.backend.client.set(key, json.dumps({"status": "STARTED", TAG: f"b{death}"}))
            sweeper.sweep()
        wait_for(lambda: broker.exists(DEAD))
        assert not broker.exists("default")


@pytest.mark.slow
def test_a_task_that_had_its_time_and_kills_each_worker_is_given_up(
    app: Celery, start_worker: StartWorker, redis: RedisServer
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    made = protocol_2("extra.poison", eta=soon)
    made["body"] = message([["group"], {}, {}], {})["body"]
    with redis.client(0) as broker, app.connection_for_read() as connection:
        broker.lpush("default", json.dumps(made))
        sweeper = LapsedLeases(app, connection.default_channel.leases, 0.0, 3)
        for death in range(3):
            start_worker(app="extra_tasks").popen.wait(timeout=60)
            assert not broker.exists(DEAD)
            assert traces(redis) == {"start poison": death + 1}
            sweeper.sweep()
        wait_for(lambda: broker.exists(DEAD))
        wait_for(lambda: not broker.exists(HELD, "default"))


def test_a_worker_whose_processes_have_just_ended_outlives_a_restart_of_redis(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    """Celery replaces an ended process seconds later, and finds the connection gone meanwhile."""
    process = worker(environment(own_redis, tmp_path), tmp_path, "default", "default,celery")
    client = Celery("outside", broker=own_redis.url(0), backend=own_redis.url(1))
    try:
        for _ in range(3):
            children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.3)  # as long as the worker needs to see it
            own_redis.stop()
            own_redis.start()
            sent = client.send_task("tasks.simple_tasks.ping", queue="default")
            assert sent.get(timeout=60)["status"] == "pong"
        assert process.popen.poll() is None
    finally:
        client.close()
        process.kill()
