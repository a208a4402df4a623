"""A client with two URLs and a real worker: what goes in, what comes out, what is refused."""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import NotRegistered
from celery.states import READY_STATES
from celray_testing import (
    Process,
    RedisServer,
    StartWorker,
    environment,
    free_port,
    wait_for,
    worker,
)
from kombu.entity import Queue

from tasks import code_version
from tasks.broker.redis.scripts import HELD, LEASES
from tasks.message_headers import PASSED_ON

PING = "tasks.simple_tasks.ping"


@pytest.fixture
def default_worker(start_worker: StartWorker) -> Process:
    return start_worker()


OUTSIDE = """
import json, sys
from celery import Celery
from celery.exceptions import NotRegistered
client = Celery(broker=sys.argv[1], backend=sys.argv[2])
result = client.send_task("tasks.simple_tasks.ping", queue="default")
print(json.dumps(result.get(timeout=60)))
"""

CHORD_OUTSIDE = """
import json, sys
from celery import Celery, chord
client = Celery(broker=sys.argv[1], backend=sys.argv[2])
ping = client.signature("tasks.simple_tasks.ping", queue="default")
gone = client.signature("tasks.simple_tasks.gone", queue="default")
result = chord([ping, gone], app=client)(ping.clone(immutable=True))
error = result.get(timeout=60, propagate=False)
print(json.dumps({"state": result.state, "error": repr(error)}))
"""


def ask_from_outside(redis: RedisServer, script: str = OUTSIDE) -> dict[str, Any]:
    """Ping, or another script, from a process that has none of our code."""
    arguments = [sys.executable, "-c", script, redis.url(0), redis.url(1)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_ping_says_who_answers(
    default_worker: Process, client: Celery, app: Celery, redis: RedisServer
) -> None:
    assert default_worker.popen.poll() is None
    answer = ask_from_outside(redis)
    assert answer["status"] == "pong"
    assert answer["worker"].startswith("default@")
    assert answer["queue"] == "default"
    assert answer["queue_seconds"] is None  # a client outside stamps nothing: unknown, not 0
    assert answer["versions"]["code"] == "test"
    assert set(answer["versions"]) == {"python", "celery", "kombu", "ray", "code"}

    # A client that names no queue publishes to Celery's own default queue.
    assert client.send_task(PING).get(timeout=60)["queue"] == "celery"

    ours = app.send_task(PING).get(timeout=60)
    assert ours["queue"] == "default"
    assert 0 <= ours["queue_seconds"] < 60


def test_the_wait_in_the_queue_is_measured(start_worker: StartWorker, app: Celery) -> None:
    pending = app.send_task(PING)
    time.sleep(1.0)
    start_worker()
    assert pending.get(timeout=60)["queue_seconds"] >= 1.0


def test_wrong_arguments_fail_at_once_in_one_line(default_worker: Process, client: Celery) -> None:
    result = client.send_task(PING, kwargs={"loud": True})
    result.get(timeout=60, propagate=False)
    assert result.state == "FAILURE"
    assert "unexpected keyword argument 'loud'; it accepts: nothing" in str(result.result)
    default_worker.says("raised expected: InvalidArgumentsError")
    assert "Traceback" not in default_worker.text
    assert default_worker.text.count("received") == 1


def test_a_result_is_json_and_expires(
    default_worker: Process, client: Celery, redis: RedisServer
) -> None:
    assert default_worker.popen.poll() is None
    result = client.send_task(PING)
    result.get(timeout=60)
    with redis.client(1) as store:
        key = f"celery-task-meta-{result.id}"
        assert str(store.get(key)).startswith("{")
        assert 86_000 < int(str(store.ttl(key))) <= 86_400


def test_pickle_is_refused_and_the_worker_lives(
    default_worker: Process, client: Celery, redis: RedisServer
) -> None:
    with client.connection_for_write() as connection:
        producer = connection.Producer(serializer="pickle")
        producer.publish(
            ([], {}, {}),
            routing_key="default",
            declare=[Queue("default", routing_key="default")],  # type: ignore[no-untyped-call]
            headers={"task": PING, "id": "pickled", "lang": "py"},
        )
    default_worker.says("is refused: its body is serialised by pickle")
    assert client.send_task(PING).get(timeout=60)["status"] == "pong"
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES))


def test_an_unknown_task_does_not_stop_the_worker(default_worker: Process, client: Celery) -> None:
    client.send_task("tasks.simple_tasks.gone")
    default_worker.says("Received unregistered task")
    assert client.send_task(PING).get(timeout=60)["status"] == "pong"


@pytest.mark.usefixtures("default_worker")
def test_a_chord_with_a_task_that_no_worker_knows_waits_for_nobody(redis: RedisServer) -> None:
    told = ask_from_outside(redis, CHORD_OUTSIDE)
    assert told["state"] == "FAILURE"
    assert "never registered" in told["error"]


@pytest.mark.slow
def test_old_code_leaves_tasks_that_it_does_not_know_to_newer(
    start_worker: StartWorker, client: Celery, redis: RedisServer, default_worker: Process
) -> None:
    with redis.client(0) as broker:
        code_version.announce(broker, "newer")
    start_worker("data", "default", "extra_tasks", CELRAY_CODE_VERSION="newer")
    results = [client.send_task("extra.nap", args=[n, 0.1], queue="default") for n in range(20)]
    assert [result.get(timeout=60) for result in results] == list(range(20))
    default_worker.says("left to a worker of newer code")


def test_old_code_fails_in_the_end_what_no_worker_knows(
    client: Celery, redis: RedisServer, default_worker: Process
) -> None:
    with redis.client(0) as broker:
        code_version.announce(broker, "newer")
    for passed, left in ((9, 1), ("many", 0)):
        before = default_worker.text.count("left to a worker of newer code")
        gone = client.send_task("extra.gone", queue="default", headers={PASSED_ON: passed})
        with pytest.raises(NotRegistered):
            gone.get(timeout=60)
        assert default_worker.text.count("left to a worker of newer code") == before + left
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES))


def test_events_are_sent_also_after_the_broker_was_away(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    process = worker(environment(server, tmp_path), tmp_path, "default", "default,celery")
    client = Celery("outside", broker=server.url(0), backend=server.url(1), set_as_current=False)
    try:
        for _ in range(2):
            assert {"task-received", "task-started", "task-succeeded"} <= events_of_a_ping(client)
            server.stop()
            server.start()
    finally:
        process.kill()
        client.close()
        server.stop()


def test_a_broker_that_stays_away_is_looked_for_every_few_seconds(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    absent = RedisServer(tmp_path / "redis")
    arguments = ["-A", "tasks", "worker", "-Q", "default", "-c", "1", "--loglevel", "INFO"]
    process = Process(arguments, environment(absent, tmp_path), tmp_path / "worker.log")
    try:
        process.says("(3/None)")
    finally:
        process.kill()
    assert re.findall(r"Trying again in (\S+) second", process.text) == ["1.00", "4.00", "4.00"]


def events_of_a_ping(client: Celery) -> set[str]:
    seen: set[str] = set()
    with client.connection_for_read() as connection:
        receiver = client.events.Receiver(connection, handlers={"*": lambda e: seen.add(e["type"])})
        capture = receiver.itercapture(limit=None, timeout=20, wakeup=False)
        next(capture)  # yields once when it listens
        client.send_task(PING)
        with suppress(TimeoutError):
            for _ in capture:
                if "task-succeeded" in seen:
                    break
    return seen


def test_a_second_question_over_one_connection_is_answered_too(
    default_worker: Process, app: Celery
) -> None:
    assert default_worker.popen.poll() is None
    assert [len(app.control.ping(timeout=5, limit=1)) for _ in range(3)] == [1, 1, 1]


def test_a_registry_that_does_not_answer_is_asked_again(
    start_worker: StartWorker, client: Celery
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    start_worker("ml", "ml", CELRAY_MLFLOW_TRACKING_URI=away)
    result = client.send_task("tasks.ml_tasks.retrain_models", queue="ml")
    wait_for(lambda: result.state in {"RETRY", *READY_STATES})
    assert (result.state, f"MLflow at {away} " in str(result.info)) == ("RETRY", True)
