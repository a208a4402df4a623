"""An errback concerns nobody but who set it: however it goes, its worker goes on.

Celery calls one that takes more than the task's id in place. Of a task that never begins, that is
the main process of a worker, whose loop and heart nothing may hold up.
"""

import json
from typing import Any

import pytest
from celery import Celery
from celray_messages import message, protocol_2
from celray_messages import signature as sent
from celray_testing import TRACES, Process, RedisServer, StartWorker, wait_for

from tasks import background_calls

PING = "tasks.simple_tasks.ping"
PAST = "2020-01-01T00:00:00+00:00"


def told(redis: RedisServer) -> set[str]:
    with redis.client(5) as client:
        return {str(one) for one in client.lrange(TRACES, 0, -1)}


def with_errback(how: str, headers: dict[str, Any]) -> dict[str, Any]:
    embed = {"errbacks": [{**sent("extra.told"), "kwargs": {"how": how}}]}
    return message([[], {}, embed], headers)


#: Headers of tasks that end without ever beginning, each in another part of a worker.
NEVER_BEGIN: dict[str, dict[str, Any]] = {
    "expired": {"expires": PAST},
    "unknown": {"task": "no.such.task"},
    "refused": {"timelimit": "x"},
    "its workers died": {"celray_lapses": 2, "ignore_result": True},
}


def queue_all(redis: RedisServer, how: str) -> list[str]:
    ids = []
    with redis.client(0) as broker:
        for name, more in NEVER_BEGIN.items():
            made = with_errback(how, protocol_2(**more)["headers"])
            ids.append(str(made["headers"]["id"]))
            if name == "its workers died":
                broker.hset("celray:held", "lapsed", json.dumps([made, "", "default"]))
                broker.zadd("celray:leases", {"lapsed": 1.0})
            else:
                broker.lpush("default", json.dumps(made))
    return ids


def still_works(client: Celery, worker: Process) -> None:
    for _ in range(3):
        assert client.send_task(PING, queue="default").get(timeout=60)["status"] == "pong"
    assert len(client.control.ping(timeout=10, limit=1)) == 1
    assert worker.popen.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["", "endless"])
def test_an_errback_that_is_called_in_place_keeps_no_worker_from_working(
    how: str, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    worker = start_worker(app="extra_tasks", CELRAY_VISIBILITY_TIMEOUT_SECONDS="5")
    ids = queue_all(redis, how)
    late = protocol_2(eta="2999-01-01T00:00:00+00:00")
    made = with_errback(how, late["headers"])
    ids.append(str(made["headers"]["id"]))
    with redis.client(0) as broker:
        broker.lpush("default", json.dumps(made))
        wait_for(lambda: not broker.exists("default"))
    client.control.revoke(ids[-1])
    wait_for(lambda: {f"told {one}" for one in ids} <= told(redis))
    still_works(client, worker)
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists("celray:held"))


def test_endless_calls_are_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import BoundedSemaphore, Event  # noqa: PLC0415

    monkeypatch.setattr(background_calls, "_places", BoundedSemaphore(background_calls.MOST))
    end, done = Event(), []
    assert all(background_calls.call("one", end.wait) for _ in range(background_calls.MOST))
    assert not background_calls.call("one too many", end.wait)
    assert "one too many is not called" in caplog.text
    end.set()
    wait_for(lambda: background_calls.call("another", lambda: done.append(1)))
    wait_for(lambda: done)
