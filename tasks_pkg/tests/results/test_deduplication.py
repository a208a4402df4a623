"""A task that was published twice has one effect; what shares its id otherwise is run."""

import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, signals
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.states import FAILURE, REVOKED, STARTED, SUCCESS
from celray_testing import Process, RedisServer, StartWorker, wait_for

from tasks.broker.redis.scripts import HELD, LEASES
from tasks.message_headers import PUBLISHED_AT
from tasks.results import deduplication

PING = "tasks.simple_tasks.ping"


@pytest.fixture
def process(start_worker: StartWorker) -> Process:
    return start_worker("default", "default,celery", "extra_tasks")


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def test_a_second_copy_is_run_neither_beside_the_first_nor_after_it(
    process: Process,
    client: Celery,
    redis: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Somebody's client: ours, which another test may have imported, says when it published.
    monkeypatch.setattr(signals.before_task_publish, "receivers", [])
    effects = tmp_path / "effects"
    arguments: dict[str, Any] = {"args": [str(effects), 1, "one"], "task_id": "same"}
    results = [client.send_task("extra.write", **arguments) for _ in range(3)]
    assert results[0].get(timeout=60) == "one"
    client.send_task("extra.write", **arguments)
    wait_for(lambda: process.text.count("was published twice") == 3)
    assert lines(effects) == ["one"]
    assert results[0].state == "SUCCESS"
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES))


@pytest.mark.slow
def test_what_a_caller_publishes_again_because_nobody_answered_runs_once(
    process: Process, redis: RedisServer, tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    impatient = Celery("impatient", broker=redis.url(0))
    impatient.conf.broker_transport_options = {"socket_timeout": 1}
    impatient.conf.task_publish_retry_policy = {"max_retries": 9, "interval_start": 0.1}
    impatient.send_task("extra.write", args=[str(effects), 0, "first"])
    wait_for(lambda: lines(effects) == ["first"])
    server = redis.process
    assert server is not None
    server.send_signal(signal.SIGSTOP)
    try:
        given = {"args": [str(effects), 0.5, "again"]}
        caller = threading.Thread(target=impatient.send_task, args=("extra.write",), kwargs=given)
        caller.start()
        time.sleep(3)  # the first try is over, and is in Redis's socket
    finally:
        server.send_signal(signal.SIGCONT)
    caller.join(timeout=60)
    process.says("was published twice")
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES))
    assert lines(effects) == ["first", "again"]
    impatient.close()


def test_a_task_that_retries_itself_at_once_goes_on(
    process: Process, client: Celery, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    assert client.send_task("extra.again", args=[str(file)]).get(timeout=60) == "again"
    assert lines(file) == ["again"]
    assert "was published twice" not in process.text


@pytest.mark.parametrize("way", ["itself", "chain"])
def test_a_task_that_puts_itself_in_its_own_place_goes_on(
    way: str, process: Process, client: Celery, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    assert client.send_task("extra.replaced", args=[str(file), way]).get(timeout=60) == way
    assert len(lines(file)) >= 4
    assert "was published twice" not in process.text


def test_both_parts_of_a_chord_that_holds_one_signature_twice_run(
    process: Process, client: Celery, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    twice = client.signature("extra.write", (str(file), 0, "part"), immutable=True)
    twice.freeze()
    body = client.signature("extra.write", (str(file), 0, "body"), immutable=True)
    chord([twice, twice], app=client)(body)  # Celery counts two equal results of one id once
    wait_for(lambda: lines(file) == ["part", "part"])
    assert "was published twice" not in process.text


Told = Callable[..., Context]


@pytest.fixture
def told(app: Celery) -> Told:
    """Store a task's state as a run of it does; gives its request, which knows if it is refused."""
    app.loader.import_default_modules()

    def store(state: str = STARTED, **differently: object) -> Context:
        request = {"id": "a", "task": PING, "args": [1, "x"], "kwargs": {"k": [2]}, "retries": 0}
        tag = {"properties": {"delivery_tag": str(uuid.uuid4())}}
        made = Context({**request, **tag, **differently})
        app.backend.store_result("a", None, state, request=made)
        return made

    return store


@pytest.mark.parametrize("state", [STARTED, SUCCESS, "PROGRESS"])
def test_a_start_that_finds_another_run_of_the_same_message_is_refused(
    state: str, told: Told
) -> None:
    deduplication.refuse(told(state))
    with pytest.raises(Ignore):
        deduplication.refuse(told())


@pytest.mark.parametrize(
    "differently",
    [
        {"retries": 1},
        {"task": "tasks.simple_tasks.other"},
        {"args": [1, "y"]},
        {"kwargs": {}},
        {"parent_id": "p"},
        {"group": "g"},
        {"group_index": 1},
        {"replaced_task_nesting": 1},
        {PUBLISHED_AT: 1.5},
        {"delivery_info": {"redelivered": True}},
    ],
)
def test_a_start_that_finds_something_else_under_its_id_goes_on(
    differently: dict[str, object], told: Told
) -> None:
    told()
    deduplication.refuse(told(**differently))


@pytest.mark.parametrize("state", ["RETRY", FAILURE, REVOKED])
def test_a_start_behind_one_that_failed_goes_on(state: str, told: Told) -> None:
    told(state)
    deduplication.refuse(told())


def test_of_two_starts_the_first_goes_on_also_if_it_is_stored_again(
    app: Celery, told: Told
) -> None:
    first = told()
    second = told()
    app.backend.store_result("a", None, STARTED, request=first)  # its answer had been lost
    deduplication.refuse(first)
    with pytest.raises(Ignore):
        deduplication.refuse(second)


def test_a_task_whose_message_goes_first_may_be_sent_again(
    app: Celery, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.tasks[PING], "acks_late", False)
    told()
    deduplication.refuse(told())


def test_an_id_may_be_used_again_later(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told(SUCCESS)
    later = time.time() + deduplication.SAME_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    deduplication.refuse(told())


@pytest.mark.parametrize("there", ["no json", "7", "[1]", '{"celray_same": 1}', "{}"])
def test_a_record_that_is_none_of_ours_keeps_nothing_from_running(
    there: str, app: Celery, told: Told
) -> None:
    app.backend.client.set(app.backend.get_key_for_task("a"), there)
    deduplication.refuse(told())
