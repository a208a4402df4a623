"""A task that has had its effect is not run again because Redis could not be told of it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery, chord, signature
from celery.canvas import Signature
from celery.result import AsyncResult
from celray_testing import Process, RedisServer, environment, wait_for, worker

from tasks.broker.redis.scripts import HELD, LEASES
from tasks.results import spool

#: The lease in these tests, in seconds.
LEASE = 5


class Stack:
    """A Redis, a worker on it that is started again, and a client."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis = redis
        self.effects = folder / "effects"
        self.outcomes = folder / "outcomes"
        self.client = Celery("outside", broker=redis.url(0), backend=redis.url(1))
        self.env = environment(redis, folder, CELRAY_VISIBILITY_TIMEOUT_SECONDS=str(LEASE))
        self.folder = folder
        self.process: Process | None = None

    def start(self) -> Process:
        self.process = worker(self.env, self.folder, "default", "default,celery", "extra_tasks")
        return self.process

    def write(self, seconds: float, text: str) -> Signature:
        arguments = (str(self.effects), seconds, text)
        return signature("extra.write", arguments, app=self.client, immutable=True)

    def lines(self) -> list[str]:
        return self.effects.read_text().split() if self.effects.exists() else []

    def nothing_held(self) -> bool:
        with self.redis.client(0) as broker:
            return not broker.hlen(HELD) and not broker.zcard(LEASES)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Have Redis take connections and never answer."""
        server = self.redis.process
        assert server is not None
        server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.send_signal(signal.SIGCONT)


@pytest.fixture
def stack(own_redis: RedisServer, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(own_redis, tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
    made.client.close()


def started(result: AsyncResult) -> bool:
    return bool(result.state == "STARTED")


@pytest.mark.slow
def test_what_had_its_effect_while_redis_was_silent_is_not_run_again(stack: Stack) -> None:
    process = stack.start()
    header = [stack.write(2, "one"), stack.write(2, "two")]
    body = chord(header, app=stack.client)(stack.write(0, "body"))
    parts = body.parent.results
    wait_for(lambda: all(started(part) for part in parts))
    with stack.silent():
        wait_for(lambda: len(stack.lines()) == 2)
        kept = wait_for(lambda: sorted(stack.outcomes.glob("*.json")))
        wait_for(lambda: len(sorted(stack.outcomes.glob("*.json"))) == 2)
        assert kept[0].stat().st_mode & 0o777 == 0o600
        process.popen.wait(timeout=60)
        assert process.popen.returncode == 75
    again = stack.start()
    assert body.get(timeout=60) == "body"
    assert [part.state for part in parts] == ["SUCCESS"] * 2
    wait_for(stack.nothing_held, 4 * LEASE)
    assert sorted(stack.lines()) == ["body", "one", "two"]
    assert again.text.count("stored late") == 2
    assert again.text.count("already completed successfully") == 2
    assert list(stack.outcomes.iterdir()) == []


@pytest.mark.slow
def test_a_container_that_is_killed_meanwhile_has_kept_its_outcome(stack: Stack) -> None:
    process = stack.start()
    result = stack.write(1, "one").apply_async()
    wait_for(lambda: started(result))
    with stack.silent():
        wait_for(lambda: list(stack.outcomes.glob("*.json")))
        process.kill()
    stack.start()
    assert result.get(timeout=60) == "one"
    wait_for(stack.nothing_held, 4 * LEASE)
    assert stack.lines() == ["one"]


def test_what_redis_takes_late_leaves_no_file(stack: Stack) -> None:
    stack.start()
    result = stack.write(1, "one").apply_async()
    wait_for(lambda: started(result))
    with stack.silent():
        wait_for(lambda: list(stack.outcomes.glob("*.json")))
    assert result.get(timeout=60) == "one"
    wait_for(lambda: not list(stack.outcomes.iterdir()))
    wait_for(stack.nothing_held)
    assert stack.lines() == ["one"]


def record(task_id: str, result: object) -> str:
    return json.dumps({"task_id": task_id, "result": result, "request": {}, "children": []})


def test_an_outcome_is_told_once_and_one_that_cannot_be_read_is_left_aside(
    app: Celery, tmp_path: Path
) -> None:
    folder = tmp_path / "outcomes"
    (folder / "a.json").write_text(record("late", {"rows": 7}))
    (folder / "0.json").write_text(record("no-place-for-it", 1))
    app.backend.client.hset(app.backend.get_key_for_task("no-place-for-it"), "a", "b")
    (folder / "1.json").write_text('{"task_id": "without-the-rest"}')
    (folder / "b.json").write_text(record("later", 1)[:-9])
    (folder / "c.json").write_text(record("too-late", 2))
    long_ago = time.time() - 1000
    os.utime(folder / "c.json", (long_ago, long_ago))
    assert spool.replay(app, folder, 900) == 1
    assert app.AsyncResult("late").get(timeout=5) == {"rows": 7}
    assert app.AsyncResult("too-late").state == "PENDING"
    assert {file.name for file in folder.iterdir()} == {f"{name}.unreadable" for name in "01b"}
    assert spool.replay(app, folder, 900) == 0
