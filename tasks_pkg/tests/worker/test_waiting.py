"""What waits for its ETA in a worker's memory has a limit, whatever waits there."""

from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery, chord
from celray_testing import RedisServer, StartWorker, wait_for
from hypothesis import given
from hypothesis import strategies as st

from tasks.broker.envelope import MOST_BYTES, Refused
from tasks.worker.waiting import MOST_WAITING_BYTES, WaitingTasks

PING = "tasks.simple_tasks.ping"
YEARS = datetime.now(UTC) + timedelta(days=30_000)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, MOST_WAITING_BYTES // 3)), max_size=60
    )
)
def test_never_more_than_the_limit_and_never_refused_below_it(steps: list[tuple[int, int]]) -> None:
    """Messages come and go in any order; each step is one message's end or another's begin."""
    waiting, held = WaitingTasks(), dict[str, int]()
    for number, (ended, size) in enumerate(steps):
        if held and ended % 2:
            del held[sorted(held)[ended % len(held)]]
        fits = sum(held.values()) + size <= MOST_WAITING_BYTES
        tag = f"{number:04}"
        if fits:
            waiting.add(tag, size, {**held, tag: size})
            held[tag] = size
        else:
            with pytest.raises(Refused, match="send it when it is due"):
                waiting.add(tag, size, {**held, tag: size})


def test_what_is_gone_is_not_remembered() -> None:
    waiting = WaitingTasks()
    for number in range(20_000):
        waiting.add(str(number), 1, {str(number)})
    assert len(waiting._sizes) < 5000


@pytest.mark.slow
def test_a_worker_lives_on_however_much_shall_wait(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    """Each fits; all of them had the kernel end the worker, and then the next one."""
    fits = "x" * (MOST_BYTES * 3 // 4 - 30_000)
    with redis.client(0) as broker:
        broker.config_set("maxmemory", "2gb")
    worker = start_worker()
    sent = [
        client.send_task(PING, kwargs={"x": fits}, queue="default", eta=YEARS).id
        for _ in range(MOST_WAITING_BYTES // MOST_BYTES + 4)
    ]
    with pytest.raises(Exception, match="wait for theirs"):
        client.AsyncResult(sent[-1]).get(timeout=110)
    assert client.send_task(PING, queue="default").get(timeout=60)["status"] == "pong"
    # Whoever waits for one that is refused is told too.
    part = client.signature(PING, kwargs={"x": fits}, queue="default", eta=YEARS)
    body = chord([part, client.signature(PING, queue="default")], app=client)(
        client.signature(PING, queue="default")
    )
    with pytest.raises(Exception, match="wait for theirs"):
        body.get(timeout=60)
    # Of a small one there is room.
    small = client.send_task(PING, queue="default", eta=YEARS).id
    assert worker.popen.poll() is None
    with redis.client(0) as broker:
        wait_for(lambda: broker.llen("default") == 0)
    assert client.AsyncResult(small).state == "PENDING"
