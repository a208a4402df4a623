"""A task that kills whoever runs it is given up after bounded deliveries, and kept."""

import json

import pytest
from celery import Celery, chord, signature
from celray_testing import TRACES, RedisServer, StartWorker, wait_for
from redis.exceptions import NoPermissionError

from tasks.broker.redis import dead_letters
from tasks.broker.redis.scripts import DEAD, HELD, LEASES

LEASE = 5
SHORT = {"CELRAY_VISIBILITY_TIMEOUT_SECONDS": str(LEASE)}


def starts(redis: RedisServer) -> int:
    with redis.client(5) as client:
        return int(str(client.llen(TRACES)))


@pytest.mark.slow
def test_a_task_that_takes_its_whole_worker_along_is_given_up_and_kept(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    members = [
        signature("extra.poison", args=["group"], app=client),
        signature("tasks.simple_tasks.ping", queue="data", app=client),
    ]
    joined = chord(members, app=client)(signature("tasks.simple_tasks.ping", app=client))
    for number in range(3):
        # Every worker that takes it dies of it, with all its processes.
        process = start_worker(app="extra_tasks", **SHORT)
        wait_for(lambda n=number: starts(redis) == n + 1, LEASE + 10)  # type: ignore[misc]
        process.popen.wait(timeout=60)
        process.kill()
    start_worker("data", "data,default,celery", app="extra_tasks", **SHORT)
    broker = dead_letters.connect(redis.url(0))
    (letter,) = wait_for(lambda: dead_letters.letters(broker), LEASE + 10)
    assert letter.task == "extra.poison"
    assert letter.queue == "celery"
    assert letter.deliveries == 3
    assert "its worker died in each of 3 deliveries" in letter.reason
    assert starts(redis) == 3
    assert broker.ttl(DEAD) == -1
    assert not broker.exists(HELD, LEASES)

    failed = client.AsyncResult(letter.id)
    assert failed.state == "FAILURE"
    assert f"celray dead show {letter.id}" in str(failed.result)
    joined.get(timeout=60, propagate=False)
    assert joined.state == "FAILURE"  # the chord's body is told, and waits for nobody


@pytest.mark.slow
def test_a_task_that_kills_its_process_is_kept_and_can_be_replayed_or_dropped(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker(app="extra_tasks")
    result = client.send_task("extra.poison")
    result.get(timeout=60, propagate=False)
    assert result.state == "FAILURE"
    broker = dead_letters.connect(redis.url(0))
    (letter,) = wait_for(lambda: dead_letters.letters(broker))
    assert letter.id == result.id
    assert letter.deliveries == 3
    assert starts(redis) == 3

    dead_letters.replay(broker, result.id, app=client)
    wait_for(lambda: starts(redis) == 6, 60)  # it has all its starts again
    again = wait_for(lambda: dead_letters.letters(broker))
    assert dead_letters.drop(broker, result.id).id == again[0].id
    assert dead_letters.letters(broker) == []
    with pytest.raises(dead_letters.UnknownLetterError, match="celray dead list"):
        dead_letters.show(broker, result.id)


def test_what_is_no_message_does_not_stop_a_worker_and_is_kept(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    with redis.client(0) as broker:
        broker.lpush("default", "not JSON", json.dumps({"properties": {}}))
    start_worker()
    assert client.send_task("tasks.simple_tasks.ping", queue="default").get(timeout=60)
    broker = dead_letters.connect(redis.url(0))
    letters = dead_letters.letters(broker)
    assert {letter.unreadable for letter in letters} == {"not JSON", '{"properties": {}}'}
    with pytest.raises(dead_letters.UnknownLetterError, match="only be dropped"):
        dead_letters.replay(broker, letters[0].id)


def test_a_replay_that_does_not_come_about_leaves_letter_and_failure(
    client: Celery, redis: RedisServer
) -> None:
    message = {"headers": {"id": "a", "task": "extra.poison"}, "properties": {}, "body": ""}
    letter = {"queue": "default", "reason": "a test", "deliveries": 3, "buried_at": 1}
    client.backend.store_result("a", RuntimeError("it died"), "FAILURE")
    with redis.client(0) as broker:
        broker.hset(DEAD, "a", json.dumps({**letter, "message": message}))
        broker.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read")
    with dead_letters.connect(redis.url(0).replace("//", "//reader:secret@")) as reader:
        with pytest.raises(NoPermissionError):
            dead_letters.replay(reader, "a", app=client)
        assert dead_letters.show(reader, "a").task == "extra.poison"
    assert client.AsyncResult("a").state == "FAILURE"

    with dead_letters.connect(redis.url(0)) as broker:
        dead_letters.replay(broker, "a", app=client)
        assert broker.llen("default") == 1
    assert client.AsyncResult("a").state == "PENDING"


def test_a_replay_is_the_message_as_it_first_was() -> None:
    worn = {
        "headers": {"id": "1", "retries": 2, "celray_lapses": 1, "redelivered": True, "eta": "x"},
        "properties": {"delivery_info": {"redelivered": True, "exchange": ""}, "priority": 3},
        "body": "b",
    }
    assert dead_letters.fresh_message(worn) == {
        "headers": {"id": "1", "retries": 0, "eta": None},
        "properties": {"delivery_info": {"exchange": ""}, "priority": 3},
        "body": "b",
    }
