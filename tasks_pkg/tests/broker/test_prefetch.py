"""Messages fetched ahead of their turn: only where tasks are short, and never stranded."""

import json
from collections.abc import Callable

import pytest
from celery import Celery, states
from celray_testing import RedisServer, StartWorker, wait_for

from tasks.broker.redis import prefetch
from tasks.broker.redis.prefetch import PATIENCE_SECONDS, Prefetch
from tasks.broker.redis.scripts import HELD, LEASES
from tasks.message_headers import LAPSES

At = Callable[[float], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Set the time."""
    now = [1000.0]
    monkeypatch.setattr(prefetch, "monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] = 1000.0 + seconds

    return move


def opened(finished: int = 0) -> Prefetch:
    """A worker that has finished so many tasks a moment ago."""
    made = Prefetch()
    made.open = True
    for _ in range(finished):
        made.finished()
    return made


def test_as_many_may_wait_as_were_finished_a_moment_ago_beyond_one_per_process(at: At) -> None:
    made = opened()
    assert made.room(2) == 0
    for _ in range(10):
        made.finished()
    assert made.room(2) == 8
    assert made.room(16) == 0  # ten of sixteen that began together say nothing
    at(0.2)
    assert made.room(2) == 0


def test_more_are_fetched_when_there_is_room_for_one_per_process(at: At) -> None:
    at(0)
    made = opened(finished=10)
    for number in range(8):
        assert made.put(str(number), "default", {})
    assert made.room(2) == 0
    made.take()
    assert made.room(2) == 0
    made.take()
    assert made.room(2) == 2


def test_a_message_whose_worker_died_does_not_wait_beside_others(at: At) -> None:
    at(0)
    made = opened(finished=10)
    assert not made.put("x", "default", {"headers": {LAPSES: 1}})
    assert made.room(2) == 0  # or it would be fetched again at once
    at(PATIENCE_SECONDS)
    assert not made.overdue()


@pytest.mark.slow
def test_what_waits_behind_a_long_task_goes_back_and_is_done_by_another(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker("default", "default", "extra_tasks")  # four processes
    numbers = range(400)
    short = [client.send_task("extra.nap", args=[i, 0], queue="default") for i in numbers[:200]]
    naps = [client.send_task("extra.nap", args=[1000 + i, 600], queue="default") for i in range(4)]
    short += [client.send_task("extra.nap", args=[i, 0], queue="default") for i in numbers[200:]]
    assert [result.get(timeout=90) for result in short[:200]] == list(numbers[:200])
    with redis.client(0) as broker:
        wait_for(lambda: broker.llen("default") == 200, 90)
        # The last acknowledgements go with the next fetch.
        wait_for(lambda: broker.hlen(HELD) == broker.zcard(LEASES) == 4, 90)
    start_worker("data", "default", "extra_tasks")
    assert [result.get(timeout=90) for result in short[200:]] == list(numbers[200:])
    assert {nap.state for nap in naps} == {states.STARTED}


def test_a_success_is_final(app: Celery, redis: RedisServer) -> None:
    app.backend.store_result("one", {"is": 1}, states.STARTED)
    app.backend.store_result("one", {"is": 2}, states.SUCCESS)
    app.backend.store_result("one", {"is": 3}, states.STARTED)
    app.backend.store_result("one", ValueError("no"), states.FAILURE)
    with redis.client(1) as results:
        (key,) = results.keys("*one")
        assert 0 < int(results.ttl(key)) <= app.conf.result_expires
        assert json.loads(str(results.get(key)))["result"] == {"is": 2}
    assert app.AsyncResult("one").get(timeout=1) == {"is": 2}


def test_a_success_that_celery_itself_has_stored_is_recognised(app: Celery, client: Celery) -> None:
    client.backend.store_result("two", 1, states.SUCCESS)
    app.backend.store_result("two", 2, states.STARTED)
    assert client.AsyncResult("two").get(timeout=1) == 1
