"""The rights that roles/redis gives are enough for workers, operators and submitters."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celray_programs
import pytest
from celery import Celery, chain, chord, group, signature
from celray_acl import Service, served
from celray_testing import CATALOGUE
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError, ResponseError

from tasks.credentials import _client_settings


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("acl")) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Celery]:
    """A plain client with the password that everybody has."""
    app = Celery(
        "outside",
        broker=service.redis.as_user("submitter", 0),
        backend=service.redis.as_user("submitter", 1),
        set_as_current=False,
    )
    service.redis.forget_denied()
    with app:
        yield app


def nap(app: Celery, number: int) -> Any:  # noqa: ANN401 - Celery's
    """A short task that gives its number."""
    return signature("extra.nap", args=[number, 0.01], app=app)


def test_a_submitter_sends_and_reads_results(service: Service, client: Celery) -> None:
    """Everything that docs/submit.md promises to a plain client."""
    waits: list[tuple[Any, object]] = [
        (client.send_task("extra.nap", args=[1, 0]), 1),
        (client.send_task("extra.nap", args=[2, 0], queue="default"), 2),
        (client.send_task("extra.nap", args=[3, 0], queue="default", priority=9), 3),
        (client.send_task("extra.nap", args=[4, 0], queue="default", countdown=0.2), 4),
        (group(nap(client, n) for n in (5, 6)).apply_async(queue="default"), [5, 6]),
        (chain(nap(client, 7), nap(client, 8).set(immutable=True)).apply_async(), 8),
    ]
    for result, wanted in waits:
        assert result.get(timeout=60) == wanted
    assert waits[0][0].state == "SUCCESS"
    assert service.redis.denied() == []


def test_a_chord_that_a_worker_starts_works(service: Service, client: Celery) -> None:
    """What a client loses with its own chords: behind a first task, the worker starts them."""
    body = signature("extra.summed", app=client)
    first = nap(client, 1).set(immutable=True)
    whole = chain(first, chord([nap(client, n).set(immutable=True) for n in (2, 3)], body))
    result = whole.apply_async(queue="default")
    assert result.get(timeout=60) == 5
    assert service.redis.denied() == []


def test_what_a_submitter_loses_is_refused_at_once(client: Celery) -> None:
    done = client.send_task("extra.nap", args=[1, 0])
    done.get(timeout=60)
    refused = (NoPermissionError, OperationalError, ResponseError)
    body = signature("extra.summed", app=client)
    with pytest.raises(refused):
        chord([nap(client, 1), nap(client, 2)])(body)
    with pytest.raises(refused):
        done.forget()
    with pytest.raises(refused):
        client.control.revoke(done.id)
    with pytest.raises(refused):
        client.control.inspect(timeout=1).ping()


#: What would read, change or stop something that is not the submitter's, by what it would be.
FORBIDDEN = {
    "read a queue": """
        LRANGE default 0 -1; LINDEX default 0; LPOP default; RPOP default; BRPOP default 1;
        LMOVE default ml LEFT LEFT; COPY default mine
    """,
    "change a queue": """
        LREM default 1 x; DEL default; UNLINK default; RENAME default x; LTRIM default 0 0;
        EXPIRE default 1; LSET default 0 x
    """,
    "send elsewhere": """
        LPUSH parked x; LPUSH celray:dead x; SADD _kombu.binding.celery.pidbox x; SADD
        _kombu.binding.celeryev x
    """,
    "see others": """
        KEYS *; SCAN 0; RANDOMKEY; MONITOR; CLIENT LIST; CLIENT TRACKING ON BCAST; PSUBSCRIBE *;
        SUBSCRIBE /0.celeryev/worker.online; PUBSUB CHANNELS; HGETALL celray:held; HGETALL
        celray:dead; SLOWLOG GET; ACL LIST; ACL WHOAMI; CONFIG GET *; OBJECT ENCODING default;
        TYPE default; EXISTS default; DUMP default; MEMORY USAGE default
    """,
    "forge": """
        SET celery-task-meta-1 x; SETEX celery-task-meta-1 1 x; DEL celery-task-meta-1; PUBLISH
        celery-task-meta-1 x; PUBLISH /0.celery.pidbox x; APPEND x y; HSET redbeat:x definition
        x; ZADD redbeat::schedule 1 x; SET celray:deployed x
    """,
    "stop": """
        EVAL return() 0; EVALSHA 0123456789012345678901234567890123456789 0; SCRIPT LOAD return;
        SCRIPT FLUSH; SCRIPT KILL; FUNCTION LOAD x; FCALL x 0; SHUTDOWN NOSAVE; FLUSHALL;
        FLUSHDB; SWAPDB 0 1; SAVE; BGREWRITEAOF; CLIENT KILL TYPE normal; CLIENT PAUSE 1; CLIENT
        UNBLOCK 1; CONFIG SET maxmemory 1; REPLICAOF NO ONE; MIGRATE h 1 k 0 1; BLPOP default 0;
        WAIT 1 0; MODULE LIST; RESTORE x 0 y
    """,
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_a_submitter_may_not(service: Service, kind: str) -> None:
    with service.redis.connect("submitter") as submitter:
        for command in FORBIDDEN[kind].split(";"):
            with pytest.raises(NoPermissionError):
                pytest.fail(f"{command}: {submitter.execute_command(*command.split())}")


def test_a_submitter_may_run_these_commands_and_no_others(service: Service) -> None:
    """All commands of this Redis are tried on, so that a newer one's are not forgotten."""
    with service.redis.client(0) as admin:
        allowed = {name for name in admin.command_list() if _may(admin, name.split("|"))}
    connection = {"auth", "echo", "hello", "ping", "quit", "reset", "select", "asking"}
    connection |= {"readonly", "readwrite"}
    own = {"lpush", "llen", "sadd", "smembers", "get", "mget", "subscribe", "unsubscribe"}
    own |= {"multi", "exec", "time", "info"}
    assert own <= allowed
    about_itself = {name for name in allowed if name.split("|")[0] in ("client", "command")}
    assert not about_itself & {"client|kill", "client|list", "client|pause", "client|tracking"}
    assert allowed - own - connection - about_itself == set()


def _may(admin: Any, command: list[str]) -> bool:  # noqa: ANN401
    """Ask Redis whether a submitter may run a command, with so many arguments as it takes."""
    for number in range(12):
        try:
            said = admin.execute_command("ACL", "DRYRUN", "submitter", *command, *(["1"] * number))
        except ResponseError as error:
            if "not found" in str(error):  # the name of a group of commands
                return False
            continue
        return "no permissions to run" not in str(said)
    return pytest.fail(f"{command} was not understood")


@pytest.mark.slow
def test_an_operator_cancels_inspects_and_sends_chords(service: Service) -> None:
    url = service.redis.as_user("operator", 0), service.redis.as_user("operator", 1)
    service.redis.forget_denied()
    with Celery("desk", broker=url[0], backend=url[1], set_as_current=False) as app:
        assert app.control.inspect(timeout=5).ping()
        body = signature("extra.summed", app=app)
        assert chord([nap(app, 1), nap(app, 2)])(body).get(timeout=60) == 3
        later = app.send_task("extra.nap", args=[1, 0], countdown=60)
        app.control.revoke(later.id, terminate=True, reply=True, timeout=5)
        done = app.send_task("extra.nap", args=[1, 0])
        done.get(timeout=60)
        done.forget()
    assert service.redis.denied() == []
    with service.redis.connect("operator") as operator:
        for command in ("FLUSHALL", "CONFIG GET *", "ACL LIST", "SHUTDOWN", "KEYS *", "INFO"):
            with pytest.raises(NoPermissionError):
                operator.execute_command(*command.split())


def test_workers_are_refused_nothing(service: Service, client: Celery) -> None:
    client.send_task("extra.nap", args=[1, 0]).get(timeout=60)
    assert [user for user, _ in service.redis.denied() if user == "celray"] == []
    assert json.loads(service.env["CELRAY_WORKERS"]) == CATALOGUE


@pytest.fixture
def celray(service: Service, tmp_path: Path) -> Callable[..., str]:
    """Run ``celray`` as a submitter; gives what it says on both outputs."""
    text = "".join(
        f"{name}={service.redis.as_user('submitter', db)}\n"
        for name, db in (("CELERY_BROKER_URL", 0), ("CELERY_RESULT_BACKEND", 1))
    )
    file = tmp_path / "credentials"
    file.touch(0o600)
    file.write_text(text)

    def run(*arguments: str, status: int = 0) -> str:
        words = (*arguments, "--credentials", str(file))
        done = celray_programs.run("tasks.cli", *words, env=service.env)
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        return said

    return run


def test_celrays_own_client_does_for_a_submitter_what_it_may(celray: Callable[..., str]) -> None:
    assert "pong" in celray("submit", "ping", "--watch")
    task_id = celray("submit", "ping", "--delay", "0.1").split()[0]
    assert "pong" in celray("result", task_id, "--timeout", "20")
    assert "SUCCESS" in celray("status", task_id)
    assert "PENDING" in celray("status", "nobody-knows-it")
    celray("result", "nobody-knows-it", "--timeout", "0.1", status=5)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("queues",), 77),
        (("workers",), 77),
        (("dead", "list"), 77),
        (("cancel", "some-id"), 77),
        (("submit", "ping", "--queue", "parked"), 2),
        (("trace", "some-id"), 77),
    ],
)
def test_what_celrays_client_may_not_do_it_says_with_the_way_out(
    celray: Callable[..., str], arguments: tuple[str, ...], status: int
) -> None:
    said = celray(*arguments, status=status)
    assert "operator" in said
    assert "Traceback" not in said


def test_operators_credentials_are_taken_where_there_are_both() -> None:
    submitter = {"CELERY_BROKER_URL": "redis://a/0", "CELERY_RESULT_BACKEND": "redis://a/1"}
    operator = {
        "CELRAY_OPERATOR_BROKER_URL": "redis://b/0",
        "CELRAY_OPERATOR_RESULT_BACKEND": "redis://b/1",
    }
    found = _client_settings(submitter | operator, "here")
    assert found.broker_url.get_secret_value() == "redis://b/0"
    assert found.result_backend_url.get_secret_value() == "redis://b/1"
    half = dict([*submitter.items(), next(iter(operator.items()))])
    assert _client_settings(half, "here").broker_url.get_secret_value() == "redis://a/0"


def test_celery_itself_does_not_take_the_environments_in_place_of_an_operators(
    service: Service, tmp_path: Path
) -> None:
    urls = {
        f"{prefix}_{name}": service.redis.as_user(user, db)
        for prefix, user in (("CELERY", "submitter"), ("CELRAY_OPERATOR", "operator"))
        for name, db in (("BROKER_URL", 0), ("RESULT_BACKEND", 1))
    }
    done = celray_programs.run("tasks.cli", "workers", env={**service.env, **urls})
    assert done.returncode == 0, done.stderr
    assert "default@" in done.stdout
    # A file that is named comes before the environment, which here leads nowhere.
    file = tmp_path / "credentials"
    file.touch(0o600)
    file.write_text("".join(f"{name}={url}\n" for name, url in urls.items()))
    nowhere = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    nowhere |= {"CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/1"}
    words = ("submit", "ping", "--watch", "--credentials", str(file))
    done = celray_programs.run("tasks.cli", *words, env={**service.env, **nowhere})
    assert done.returncode == 0, done.stderr
