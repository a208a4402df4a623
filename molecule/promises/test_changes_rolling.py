"""make update: no queue is without a worker, no task is lost, and a broken worker is not used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from deployment import Deployment, in_default_alone

ROLLING = ("-e", '{"celery_worker_rolling": true}')
PING = "tasks.simple_tasks.ping"


@contextmanager
def load(client: Celery, queue: str) -> Iterator[list[str]]:
    """Send pings to a queue, one after the other; return who answered. A lost one is an error."""
    answered: list[str] = []
    failed: list[Exception] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                result = client.send_task(PING, queue=queue).get(timeout=120)
                answered.append(result["worker"].partition("@")[0])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                failed.append(error)
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield answered
    finally:
        stop.set()
        sender.join()
    assert not failed, failed


def test_a_worker_is_replaced_behind_a_stand_in_and_no_task_is_lost(
    deployment: Deployment, client: Celery
) -> None:
    before = deployment.look().running()
    deployment.configure("overrides", celray_worker_overrides={"data": {"concurrency": 2}})
    with load(client, "data") as answered:
        done = deployment.play("site.yml", *ROLLING)
    assert done.actions == {"celery-worker-data": "recreate"}
    assert "Running tasks." in done.output
    assert {"data-stand-in", "data"} <= set(answered)
    after = deployment.look()
    changed = {name for name, there in after.running().items() if there != before.get(name)}
    assert changed == {"celery-worker-data"}
    command = after.containers["celery-worker-data"]["Config"]["Cmd"]
    assert command[command.index("-c") + 1] == "2"


@in_default_alone("tests/test_compose_engine.py keeps it on an engine, in both generations")
def test_a_version_that_does_not_start_stays_out(deployment: Deployment, client: Celery) -> None:
    before = deployment.look()
    deployment.configure("broken", celray_task_settings={"result_expires_seconds": 1})
    with load(client, "data") as answered:
        failed = deployment.play("site.yml", *ROLLING, code=2)
    assert "the new celery-worker-data does not work; the old one never stopped" in failed.output
    assert "result_expires_seconds" in failed.output
    assert set(answered) == {"data"}
    after = deployment.look()
    assert after.running() == before.running()
    assert after.files.keys() == before.files.keys()
    deployment.configure("broken")
