"""Cancelled means cancelled: whoever cancels, wherever the task is, whatever dies in between."""

import json
import time
from collections.abc import Callable

import pytest
from celery import Celery, chain, chord, signature
from celray_messages import protocol_1
from celray_testing import TRACES, RedisServer, StartWorker, wait_for
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks.broker.redis.scripts import HELD, LEASES
from tasks.client import Client
from tasks.worker import revocations as worker_revocations

LEASE = 5
SHORT = {"CELRAY_VISIBILITY_TIMEOUT_SECONDS": str(LEASE)}
NAP = "extra.nap"
PING = "tasks.simple_tasks.ping"
#: Seconds until a task's time comes: a worker has ended and another begun by then.
LATER = 7


def traces(redis: RedisServer) -> list[str]:
    with redis.client(5) as client:
        return [str(one) for one in client.lrange(TRACES, 0, -1)]


def settled(redis: RedisServer, *queues: str) -> None:
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES, *queues), 60)


@pytest.fixture
def ours(redis: RedisServer) -> Client:
    return Client(broker=redis.url(0), backend=redis.url(1))


Cancel = Callable[[Celery, Client, str], object]
CANCELS: dict[str, Cancel] = {
    "celray cancel": lambda _, ours, task_id: ours.task(task_id).cancel(),
    "a plain revoke": lambda client, _, task_id: client.control.revoke(task_id),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", CANCELS)
def test_a_task_that_waits_for_its_time_stays_cancelled_when_its_worker_ends(
    how: str,
    start_worker: StartWorker,
    client: Celery,
    ours: Client,
    redis: RedisServer,
) -> None:
    first = start_worker(app="extra_tasks", **SHORT)
    options = [{"countdown": LATER}, {"countdown": LATER, "ignore_result": True}]
    waiting = [client.send_task(NAP, (n, 0.1), **one) for n, one in enumerate(options)]
    with redis.client(0) as broker:
        wait_for(lambda: broker.hlen(HELD) == 2)
    due = time.monotonic() + LATER
    for one in waiting:
        CANCELS[how](client, ours, one.id)
    wait_for(lambda: waiting[0].state == "REVOKED")
    first.kill() if how == "celray cancel" else first.terminate()
    start_worker("data", "default,celery,data", "extra_tasks", **SHORT)
    settled(redis, "default", "celery")
    time.sleep(max(0.0, due + 1 - time.monotonic()))
    assert traces(redis) == []
    assert waiting[0].state == "REVOKED"


@pytest.mark.slow
def test_a_task_that_lost_its_worker_is_not_run_again_once_it_is_cancelled(
    start_worker: StartWorker, client: Celery, ours: Client, redis: RedisServer
) -> None:
    first = start_worker(app="extra_tasks", **SHORT)
    sent = client.send_task(NAP, (1, 60))
    wait_for(lambda: traces(redis) == ["start 1"])
    first.kill()
    answer = ours.task(sent.id).cancel()
    assert "does not begin again" in answer.message
    start_worker("data", "default,celery,data", "extra_tasks", **SHORT)
    settled(redis, "celery")
    assert traces(redis) == ["start 1"]
    assert sent.state == "REVOKED"


def test_cancelled_while_nobody_works_stays_so_and_over_a_restart_of_redis(
    own_redis: RedisServer, tmp_path: object
) -> None:
    from celray_testing import environment, worker  # noqa: PLC0415

    folder = own_redis.folder.parent
    client = Celery("outside", broker=own_redis.url(0), backend=own_redis.url(1))
    ours = Client(broker=own_redis.url(0), backend=own_redis.url(1))
    ids = [client.send_task(NAP, (n, 0.1)).id for n in range(3)]
    for one in ids[:2]:
        assert ours.task(one).cancel().cancelled
    own_redis.stop()
    own_redis.start()
    process = worker(
        environment(own_redis, folder), folder, "default", "default,celery", "extra_tasks"
    )
    try:
        wait_for(lambda: client.AsyncResult(ids[2]).state == "SUCCESS")
        settled(own_redis, "celery")
        assert traces(own_redis) == ["start 2", "end 2"]
        assert {client.AsyncResult(one).state for one in ids[:2]} == {"REVOKED"}
    finally:
        process.kill()
        client.close()
    assert tmp_path


@pytest.mark.parametrize("how", CANCELS)
def test_whoever_waits_for_a_cancelled_task_is_told(
    how: str, start_worker: StartWorker, client: Celery, ours: Client, redis: RedisServer
) -> None:
    ping = signature(PING, app=client, queue="default")
    late = {"countdown": 3600}
    parts = [ping.clone(), ping.clone().set(**late)]
    body = chord(parts, app=client)(ping.clone())
    header = body.parent.results
    line = chain(ping.clone().set(**late), ping.clone(immutable=True), app=client).apply_async()
    told = signature(NAP, (7, 0.1), app=client, queue="default", immutable=True)
    lonely = ping.clone().set(link_error=[told], **late).apply_async()
    start_worker(app="extra_tasks")
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists("default") and broker.hlen(HELD) == 3)
    for one in (header[1].id, line.parent.id, lonely.id):
        CANCELS[how](client, ours, one)
    wait_for(lambda: body.state == "FAILURE")
    wait_for(lambda: line.state in {"FAILURE", "REVOKED"})
    wait_for(lambda: "end 7" in traces(redis))
    settled(redis, "default")


def test_a_task_of_the_first_protocol_is_found_and_cancelled(
    start_worker: StartWorker, ours: Client, redis: RedisServer
) -> None:
    made = protocol_1()
    task_id = made["properties"]["correlation_id"]
    with redis.client(0) as broker:
        broker.lpush("default", json.dumps(made))
    assert ours.task(task_id).status().state == "WAITING"
    assert ours.task(task_id).status().name == PING
    assert ours.task(task_id).cancel().cancelled
    start_worker()
    settled(redis, "default")
    assert ours.task(task_id).status().state == "REVOKED"


@pytest.mark.slow
def test_a_pool_keeps_a_process_whatever_it_is_told(
    start_worker: StartWorker, client: Celery
) -> None:
    start_worker(app="extra_tasks")
    for n in (4, 5, 0, -1):
        (answer,) = client.control.pool_shrink(n, reply=True, timeout=5)
        assert "one must stay" in next(iter(answer.values()))["error"]
    (answer,) = client.control.pool_shrink(3, reply=True, timeout=5)
    assert "ok" in next(iter(answer.values()))
    assert [client.send_task(NAP, (n, 0.1)).get(timeout=60) for n in range(3)] == [0, 1, 2]


def test_a_task_that_stores_no_start_waits_for_redis(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To fail would lose it; Redis may be away for longer than its client tries by itself."""
    app.loader.import_default_modules()
    task = app.tasks["tasks.ml_tasks.retrain_models"]
    answers: list[object] = [RedisConnectionError("away"), RedisTimeoutError("away"), None]

    def ask(*_: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    task.push_request(id="x", ignore_result=True, task=task.name)
    try:
        monkeypatch.setattr(type(app.backend.client), "zscore", ask)
        worker_revocations.refuse(task)
    finally:
        task.pop_request()
    assert answers == []
