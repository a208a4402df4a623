"""Nothing that was accepted is lost, and nothing runs without end."""

import signal
from collections import Counter

import pytest
from celery import Celery
from celray_testing import TRACES, RedisServer, StartWorker, wait_for

from tasks.broker.scripts import HELD, LEASES


def traces(redis: RedisServer) -> Counter[str]:
    with redis.client(5) as client:
        return Counter(client.lrange(TRACES, 0, -1))


def test_a_task_that_kills_its_process_ends_after_three_runs(
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
) -> None:
    start_worker(app="extra_tasks")
    result = client.send_task("extra.poison")
    result.get(timeout=40, propagate=False)
    assert result.state == "FAILURE"
    assert "WorkerLostError" in repr(result.result)
    assert traces(redis) == {"start poison": 3}
    assert client.send_task("tasks.simple_tasks.ping").get(timeout=20)["status"] == "pong"


def test_a_stopping_worker_finishes_what_it_can_and_leaves_the_rest(
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
) -> None:
    first = start_worker(app="extra_tasks", CELRAY_SOFT_SHUTDOWN_SECONDS="10")
    results = [client.send_task("extra.nap", args=[i, 1.5]) for i in range(12)]
    wait_for(lambda: traces(redis).total() == 4)
    assert first.terminate() < 6
    assert first.popen.returncode == 0
    with redis.client(0) as broker:
        assert broker.llen("celery") == 8  # four were running, and finished
        assert not broker.exists(HELD, LEASES)
    start_worker(app="extra_tasks")
    assert [result.get(timeout=30) for result in results] == list(range(12))
    assert set(traces(redis).values()) == {1}  # each started once and ended once


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT])
def test_what_cannot_finish_in_time_goes_back_to_its_queue(
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
    how: signal.Signals,
) -> None:
    first = start_worker(app="extra_tasks", CELRAY_SOFT_SHUTDOWN_SECONDS="1")
    results = [client.send_task("extra.nap", args=[i, 5]) for i in range(2)]
    wait_for(lambda: traces(redis).total() == 2)
    first.popen.send_signal(how)
    first.popen.wait(timeout=15)
    with redis.client(0) as broker:
        assert broker.llen("celery") == 2
    start_worker(app="extra_tasks")
    assert [result.get(timeout=30) for result in results] == [0, 1]
    assert traces(redis) == {"start 0": 2, "start 1": 2, "end 0": 1, "end 1": 1}


def test_an_idle_worker_stops_at_once(start_worker: StartWorker) -> None:
    process = start_worker(CELRAY_SOFT_SHUTDOWN_SECONDS="20")
    assert process.terminate() < 5
    assert process.popen.returncode == 0
    assert "Traceback" not in process.text
