"""A message has a bound, which is told before it is sent; what is refused leaves nothing large."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from celray_testing import PACKAGE, RedisServer, environment, wait_for, worker
from redis.exceptions import ConnectionError as RedisConnectionError

from tasks.broker.envelope import MOST_BYTES
from tasks.broker.sizes import KEPT_ARGUMENTS_BYTES, in_message
from tasks.client import Client
from tasks.client.catalogue import TaskInfo
from tasks.contracts import InvalidArgumentsError

#: As many characters as fit: in base64, with room for the rest of the message.
FITS = (MOST_BYTES - 20 * 1024) * 3 // 4
SMALL = 70 * 1024


def door() -> str:
    """The bound that the deployment gives Redis."""
    text = (PACKAGE.parent / "compose" / "redis.conf.j2").read_text()
    found = re.search(r"^proto-max-bulk-len (\S+)$", text, re.MULTILINE)
    assert found, "redis.conf.j2 no longer bounds a message"
    return found.group(1)


@dataclass
class Service:
    redis: RedisServer
    client: Client
    app: Celery

    def stored(self, task_id: str) -> str:
        with self.redis.client(1) as results:
            return str(results.get(f"celery-task-meta-{task_id}"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("sizes")
    (folder / "redis").mkdir()
    server = RedisServer(folder / "redis", options=("--proto-max-bulk-len", door()))
    server.start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        env = environment(server, folder)
        stack.callback(worker(env, folder, "default", "default,celery", "extra_tasks").kill)
        with (
            Client(broker=server.url(0), backend=server.url(1)) as client,
            Celery(broker=server.url(0), backend=server.url(1), set_as_current=False) as app,
        ):
            yield Service(server, client, app)


def test_the_bound_of_messages_is_below_the_door() -> None:
    assert door() == "16mb"
    assert MOST_BYTES < 16 * 2**20


@pytest.mark.slow
def test_the_largest_that_celray_sends_passes_the_door(service: Service) -> None:
    text = FITS * "x"
    assert in_message(len(text)) <= MOST_BYTES
    task = TaskInfo("extra.length", "default")
    assert service.client.send(task, {"text": text}).result(timeout=60) == FITS


def test_more_is_refused_with_its_size_before_anything_is_sent(service: Service) -> None:
    with pytest.raises(InvalidArgumentsError, match=r"2\d\.\d MiB.*at most 15\.9 MiB.*datasets"):
        service.client.send(TaskInfo("extra.length", "default"), {"text": 16_000_000 * "x"})
    with service.redis.client(0) as broker:
        assert broker.llen("default") == 0


def test_who_sends_more_all_the_same_is_cut_off_and_nobody_else(service: Service) -> None:
    with service.redis.client(0) as rude, pytest.raises(RedisConnectionError):
        rude.lpush("default", 20_000_000 * "x")
    assert service.app.send_task("extra.length", args=["ok"], queue="default").get(timeout=60) == 2


def test_a_refused_call_leaves_a_small_result(service: Service) -> None:
    sent = service.app.send_task(
        "tasks.simple_tasks.send_notification",
        kwargs={"message": 8_000_000 * "x", "channel": "ops"},
        queue="default",
    )
    wait_for(lambda: sent.state == "FAILURE", 60)
    assert "InvalidArgumentsError" in service.stored(sent.id)
    assert len(service.stored(sent.id)) < SMALL


@pytest.mark.parametrize("size", [10, KEPT_ARGUMENTS_BYTES // 2, KEPT_ARGUMENTS_BYTES, 10_000_000])
def test_large_arguments_are_not_kept_whatever_becomes_of_the_task(
    service: Service, size: int
) -> None:
    sent = service.app.send_task("extra.length", args=[size * "x"], queue="default")
    assert sent.get(timeout=60) == size
    kept = size * "x" in service.stored(sent.id)
    assert kept == (size < KEPT_ARGUMENTS_BYTES)
    assert len(service.stored(sent.id)) < 2 * SMALL


def test_a_result_that_is_too_large_is_a_failure_that_says_so(service: Service) -> None:
    sent = service.app.send_task("extra.large", args=[20_000_000], queue="default")
    wait_for(lambda: sent.state == "FAILURE", 60)
    stored = service.stored(sent.id)
    assert "return its path" in stored
    assert len(stored) < SMALL


def test_a_task_that_publishes_too_much_fails_with_its_reason(service: Service) -> None:
    sent = service.app.send_task("extra.sends_large", args=[16_000_000], queue="default")
    wait_for(lambda: sent.state == "FAILURE", 60)
    assert "MessageTooLargeError" in service.stored(sent.id)
