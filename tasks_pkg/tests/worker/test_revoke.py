"""Revoking a task with `terminate=True` ends it, whatever it is doing."""

from pathlib import Path

import pytest
from celery import Celery
from celray_testing import TRACES, Process, RedisServer, StartWorker, wait_for


def children(worker: Process) -> set[str]:
    pid = worker.popen.pid
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.slow
def test_a_running_task_that_is_revoked_ends_and_the_worker_goes_on(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    worker = start_worker(app="extra_tasks")
    sent = client.send_task("extra.nap", (1, 60), queue="default")
    with redis.client(5) as traces:
        wait_for(lambda: traces.lrange(TRACES, 0, -1) == ["start 1"])
        before = children(worker)
        client.control.revoke(sent.id, terminate=True)
        wait_for(lambda: sent.state == "REVOKED")
        wait_for(lambda: before - children(worker))  # one of them has ended
        with redis.client(0) as broker:
            wait_for(lambda: not broker.exists("unacked"))
        # The child is gone: four tasks at once still find four children.
        others = [client.send_task("extra.nap", (n, 1), queue="default") for n in range(2, 6)]
        assert [other.get(timeout=60) for other in others] == [2, 3, 4, 5]
        assert "end 1" not in traces.lrange(TRACES, 0, -1)
    assert sent.state == "REVOKED"
    assert "Traceback" not in worker.text
