"""A full Redis refuses who sends, and nobody who looks, cancels or tidies up (ADR 0023).

The kind: every tool that only reads or frees, while Redis is at its limit and while the reserve for
workers above it is used up too.
"""

import json
import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from ssl import CERT_NONE
from unittest.mock import patch

import celray_programs
import pytest
from celery import Celery
from celray_acl import guarded
from celray_messages import protocol_2
from celray_testing import PACKAGE, TRACES, RedisServer, StartWorker, full, wait_for
from redis import Redis

from tasks.broker.envelope import Refused
from tasks.broker.redis import dead_letters
from tasks.broker.redis.refusals import put_aside
from tasks.broker.redis.revocations import KEY
from tasks.broker.redis.scripts import DEAD, HELD
from tasks.cli import main
from tasks.client import Client, NotNotedError

PING = "tasks.simple_tasks.ping"
#: How much of what it uses Redis may use: workers still have their reserve, or not even that.
SHARES = {"within the reserve": 0.98, "beyond the reserve": 0.5}


@dataclass
class Done:
    """How a command of ``celray`` ended."""

    returncode: int
    stdout: str
    stderr: str


def urls(redis: RedisServer, user: str = "") -> dict[str, str]:
    broker, backend = (redis.url(n).replace("//", f"//{user}") for n in (0, 1))
    return {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": backend}


def celray(redis: RedisServer, *arguments: str, user: str = "") -> Done:
    """Run ``celray`` in this process, which takes a tenth of the time."""
    out, err = StringIO(), StringIO()
    with (
        patch.dict(os.environ, urls(redis, user)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        status = main(list(arguments))
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with guarded(tmp_path) as made:
        yield made


def _waiting(broker: Redis, *queues: str) -> list[str]:
    made = [protocol_2() for _ in queues]
    for queue, one in zip(queues, made, strict=True):
        broker.lpush(queue, json.dumps(one))
    return [str(one["headers"]["id"]) for one in made]


@pytest.mark.parametrize("room", SHARES)
def test_who_looks_cancels_or_tidies_up_is_not_refused(room: str, server: RedisServer) -> None:
    """As an operator of a deployment, who may not ask Redis how full it is."""
    operator = "operator:secret@"
    with server.client(0) as broker:
        ids = _waiting(broker, "default", "default\x06\x163", "ml", "default")
        broker.hset(HELD, "t", json.dumps([protocol_2(), "", "ml"]))
        letter = {"queue": "ml", "reason": "x", "deliveries": 1, "buried_at": 1}
        for number in range(3):
            broker.hset(DEAD, f"d{number}", json.dumps({**letter, "message": protocol_2()}))
    with full(server, SHARES[room]) as broker:
        for task_id in ids:
            assert "WAITING" in celray(server, "status", task_id, user=operator).stdout
        done = celray(server, "cancel", *ids[:3], user=operator)
        assert done.returncode == 0
        assert done.stderr == ""
        assert broker.llen("default") == 1
        assert server.client(1).zcard(KEY) == 3
        for task_id in ids[:3]:
            assert "REVOKED" in celray(server, "status", task_id, user=operator).stdout
        listed = celray(server, "dead", "list", "--json", user=operator)
        assert len(json.loads(listed.stdout)) == 3
        assert celray(server, "dead", "show", "d0", user=operator).returncode == 0
        assert celray(server, "dead", "drop", "d0", "d1", user=operator).returncode == 0
        assert celray(server, "dead", "replay", "d2", user=operator).returncode == 0
        assert broker.hlen(DEAD) == 0
        shown = celray(server, "queues", "--json", user=operator)
        assert json.loads(shown.stdout)["default"]["waiting"] == 1
        assert celray(server, "trace", ids[3], user=operator).returncode == 0
        env = {"PYTHONPATH": str(PACKAGE / "src"), **urls(server, operator)}
        words = ("celery", "purge", "-f", "-Q", "default")
        purged = celray_programs.run("tasks.cli", *words, env=env)
        assert "Purged 1 message" in purged.stdout
        refused = celray(server, "submit", "ping", user=operator)
        assert refused.returncode == 69
        assert "maxmemory" in refused.stderr


def test_workers_answer_and_cancel_in_a_full_redis(
    start_worker: StartWorker, redis: RedisServer, client: Celery
) -> None:
    start_worker(app="extra_tasks")
    late = client.send_task(PING, queue="default", countdown=3600)
    runs = client.send_task("extra.nap", (1, 60), queue="default")
    with redis.client(5) as traces:  # it writes this itself, which a full Redis would refuse
        wait_for(lambda: traces.lrange(TRACES, 0, -1) == ["start 1"])
    ours = Client(broker=redis.url(0), backend=redis.url(1))
    with full(redis):
        assert len(ours.workers()) == 1
        assert ours.task(late.id).cancel().cancelled
        assert ours.task(runs.id).cancel().state == "REVOKED"


@pytest.mark.slow
@pytest.mark.parametrize("room", SHARES)
def test_an_operators_status_says_that_it_is_full(
    room: str, env: dict[str, str], redis: RedisServer, start_worker: StartWorker
) -> None:
    start_worker()
    with full(redis, SHARES[room]):
        done = celray_programs.run("tasks.ops", "status", env=env)
    assert done.stderr == ""
    assert done.stderr == ""
    assert "unhealthy: redis: memory is full" in done.stdout
    assert "dead     0 letters" in done.stdout
    assert ("worker   default@" in done.stdout) is (room == "within the reserve")


@pytest.mark.parametrize("room", SHARES)
def test_a_channel_reads_and_frees_in_a_full_redis(
    room: str, app: Celery, redis: RedisServer
) -> None:
    """What kombu does in transactions, though it only reads or frees."""
    with redis.client(0) as broker, app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.exchange_declare("boxes")
        channel.queue_declare("box")
        channel.queue_bind("box", "boxes", "box")
        for command in ("size", "has", "purge", "delete"):
            broker.delete("box")
            broker.lpush("box", json.dumps(protocol_2()))
            with full(redis, SHARES[room]):
                match command:
                    case "size":
                        assert channel._size("box") == 1
                    case "has":
                        assert channel._has_queue("box")
                    case "purge":
                        assert channel.queue_purge("box") == 1
                    case _:
                        channel.queue_delete("box")
        assert not broker.exists("box", "_kombu.binding.boxes")


def test_a_refused_message_is_put_aside_in_a_full_redis(redis: RedisServer) -> None:
    with full(redis, SHARES["beyond the reserve"]) as broker:
        broker.hdel(HELD, "t")
        put_aside(broker, "t", "default", b"x", Refused("a test"))
        assert len(dead_letters.letters(broker)) == 1


def test_cancelling_says_so_where_redis_takes_no_note(
    redis: RedisServer, start_worker: StartWorker, client: Celery
) -> None:
    """A disk that is full, or a replica: everything is read and nothing written."""
    worker = start_worker(app="extra_tasks")
    runs = client.send_task("extra.nap", (1, 60), queue="default")
    wait_for(lambda: runs.state == "STARTED")
    ours = Client(broker=redis.url(0), backend=redis.url(1))
    with redis.client(0) as broker:
        broker.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(NotNotedError, match="does not take a note"):
                ours.task(runs.id).cancel()
            done = celray(redis, "cancel", runs.id)
            assert done.returncode == 69
            assert "would run it" in done.stderr
            worker.says("Terminating")
        finally:
            broker.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("redis://:x@h:1/0", None),
        ("rediss://:x@h:1/0", "required"),
        ("rediss://:x@h:1/0?ssl_cert_reqs=none", CERT_NONE),
    ],
)
def test_a_clients_scheme_chooses_tls_also_under_its_transport(url: str, tls: object) -> None:
    backend = url if "?" in url else f"{url}?ssl_cert_reqs=required"
    app = Client(broker=url, backend=backend if tls else url).app
    connection = app.connection()
    assert connection.transport_cls == "tasks.broker.redis.full:Transport"
    assert (connection.ssl or {}).get("ssl_cert_reqs") == tls
