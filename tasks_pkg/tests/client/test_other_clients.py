"""Clients of other languages get in, send and read, with the rights of who only sends tasks.

What their libraries do at their start is part of it: ioredis asks INFO and gives up when refused.
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celray_acl import PASSWORD, Service, served
from celray_testing import wait_for
from redis import Connection
from redis.exceptions import ResponseError

NODE_CLIENT = Path(__file__).parents[1] / "support" / "node_client"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("others")) as service:
        yield service


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm")
def test_the_node_client_sends_and_reads(service: Service, tmp_path: Path) -> None:
    shutil.copytree(NODE_CLIENT, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        [str(shutil.which("npm")), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    if done.returncode:
        pytest.skip(f"npm installs nothing here: {done.stderr[-300:]}")
    service.redis.forget_denied()
    urls = [service.redis.as_user("submitter", db) for db in (0, 1)]
    sent = subprocess.run(
        [str(shutil.which("node")), "send.js", *urls, "tasks.simple_tasks.ping"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert json.loads(sent.stdout)["status"] == "pong"
    assert service.redis.denied() == []


def _go_message(task_id: str, **headers: object) -> str:
    """What gocelery sends: the first protocol, its body in base64."""
    body: dict[str, object] = {"id": task_id, "task": "extra.nap", "args": [7, 0], "kwargs": {}}
    body |= {"retries": 0, "eta": None, "expires": None}
    properties = {
        "body_encoding": "base64",
        "correlation_id": task_id,
        "reply_to": "8f0c8c9e-93a7-4c10-b1b8-1e5a3b6d5f11",
        "delivery_info": {"priority": 0, "routing_key": "celery", "exchange": "celery"},
        "delivery_mode": 2,
        "delivery_tag": f"tag-{task_id}",
    }
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": properties,
            **headers,
        }
    )


class Wire:
    """A connection that sends words, and nothing of its own."""

    def __init__(self, port: int) -> None:
        connect: Any = Connection  # redis-py types no constructor
        self._connection = connect(port=port, decode_responses=True, driver_info=None, protocol=2)
        self._connection.connect()

    def __call__(self, *words: object) -> Any:  # noqa: ANN401 - what Redis answers
        self._connection.send_command(*words)
        return self._connection.read_response()

    def close(self) -> None:
        self._connection.disconnect()


@pytest.mark.parametrize("headers", [{}, {"headers": {}}], ids=["absent", "empty"])
@pytest.mark.parametrize(
    "start",
    [
        [("AUTH", "submitter", PASSWORD), ("SELECT", 0)],  # redigo, under gocelery
        [
            ("HELLO", 2, "AUTH", "submitter", PASSWORD, "SETNAME", "go"),
            ("CLIENT", "SETINFO", "LIB-NAME", "go-redis"),  # unknown to Redis before 7.2
            ("CLIENT", "MAINT_NOTIFICATIONS", "ON"),
            ("CLIENT", "ID"),
            ("COMMAND",),
            ("PING",),
        ],  # go-redis
    ],
    ids=["redigo", "go-redis"],
)
def test_a_go_client_sends_and_reads(
    service: Service, start: list[tuple[object, ...]], headers: dict[str, object]
) -> None:
    task_id = f"go-{len(start)}-{len(headers)}"
    wire = Wire(service.redis.port)
    service.redis.forget_denied()
    try:
        for words in start:
            with suppress(ResponseError):  # what this Redis does not know; denials are told below
                wire(*words)
        assert wire("LPUSH", "celery", _go_message(task_id, **headers)) >= 0
        wire("SELECT", 1)
        meta = json.loads(wait_for(lambda: wire("GET", f"celery-task-meta-{task_id}"), 20))
        wait_for(lambda: json.loads(wire("GET", f"celery-task-meta-{task_id}"))["result"] == 7)
        assert meta["task_id"] == task_id
    finally:
        wire.close()
    assert service.redis.denied() == []
