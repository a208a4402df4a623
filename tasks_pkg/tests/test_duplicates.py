"""A task that was published twice has one effect; what shares its id otherwise is run."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.states import STARTED, SUCCESS
from celray_testing import Process, RedisServer, StartWorker, wait_for

from tasks import duplicates
from tasks.broker.scripts import HELD, LEASES


@pytest.fixture
def process(start_worker: StartWorker) -> Process:
    return start_worker("default", "default,celery", "extra_tasks")


def lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def test_a_second_copy_is_run_neither_beside_the_first_nor_after_it(
    process: Process, client: Celery, redis: RedisServer, tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    arguments: dict[str, Any] = {"args": [str(effects), 1, "one"], "task_id": "same"}
    results = [client.send_task("extra.write", **arguments) for _ in range(3)]
    assert results[0].get(timeout=20) == "one"
    client.send_task("extra.write", **arguments)
    wait_for(lambda: process.text.count("was published twice") == 3)
    assert lines(effects) == ["one"]
    assert results[0].state == "SUCCESS"
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES))


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
    caller.join(timeout=30)
    process.says("was published twice")
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists(HELD, LEASES))
    assert lines(effects) == ["first", "again"]
    impatient.close()


@pytest.mark.parametrize(("name", "effects"), [("again", 1), ("replaced", 2)])
def test_what_takes_a_tasks_place_under_its_id_is_run(
    name: str, effects: int, process: Process, client: Celery, tmp_path: Path
) -> None:
    file = tmp_path / "effects"
    assert client.send_task(f"extra.{name}", args=[str(file)]).get(timeout=20) == name
    assert len(lines(file)) == effects
    assert "was published twice" not in process.text


Told = Callable[..., Context]


@pytest.fixture
def told(app: Celery) -> Told:
    """Store a task's state as a run of it does; gives its request, which knows what was there."""

    def store(state: str = STARTED, **differently: object) -> Context:
        request = {"id": "a", "task": "t", "args": [1, "x"], "kwargs": {"k": [2]}, "retries": 0}
        made = Context({**request, **differently})
        app.backend.store_result("a", None, state, request=made)
        return made

    return store


@pytest.mark.parametrize("state", [STARTED, SUCCESS])
def test_a_start_that_finds_another_run_of_the_same_message_is_refused(
    state: str, told: Told
) -> None:
    duplicates.refuse(told(state))
    with pytest.raises(Ignore):
        duplicates.refuse(told())


@pytest.mark.parametrize(
    "differently",
    [
        {"retries": 1},
        {"task": "u"},
        {"args": [1, "y"]},
        {"kwargs": {}},
        {"parent_id": "p"},
        {"group": "g"},
        {"delivery_info": {"redelivered": True}},
    ],
)
def test_a_start_that_finds_something_else_under_its_id_goes_on(
    differently: dict[str, object], told: Told
) -> None:
    told()
    duplicates.refuse(told(**differently))


def test_a_start_that_finds_its_own_record_goes_on(app: Celery, told: Told) -> None:
    request = told()  # as if Redis had stored it, and its answer was lost
    app.backend.store_result("a", None, STARTED, request=request)
    assert json.loads(getattr(request, duplicates.FOUND))["status"] == STARTED
    duplicates.refuse(request)


def test_an_id_may_be_used_again_later(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told(SUCCESS)
    later = time.time() + duplicates.SAME_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    duplicates.refuse(told())


def test_a_record_that_is_none_of_ours_is_no_copy() -> None:
    request = Context({"id": "a", "task": "t"})
    for found in ("no json", '{"status": "STARTED"}', '{"status": "RETRY", "name": "t"}'):
        assert not duplicates.is_copy(request, found)
