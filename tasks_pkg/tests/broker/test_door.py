"""Connections that do not log in lock nobody out: each source has a bound, and a time."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from celray_testing import PACKAGE, RedisServer, wait_for
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

DOOR = PACKAGE.parent / "roles" / "redis" / "files" / "redis_door.sh"
PASSWORD = "secret"  # noqa: S105 - a test's
#: Smaller than Redis's own 10,000, so that the test needs no more files than a process may open.
MOST_CLIENTS = 600
UNPROVEN, SECONDS, MOST = 20, 3, 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    (tmp_path / "redis").mkdir()
    found = RedisServer(tmp_path / "redis", options=("--maxclients", str(MOST_CLIENTS)))
    found.start()
    with found.client(0) as admin:
        for rule in (
            f"door on >{PASSWORD} resetkeys resetchannels -@all +ping +client|list +client|kill",
            f"celray on >{PASSWORD} ~* &* +@all",
            f"default on resetpass >{PASSWORD} ~* &* +@all",
        ):
            admin.execute_command("ACL", "SETUSER", *rule.split())
    try:
        yield found
    finally:
        assert found.process
        found.process.kill()
        found.process.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def door(server: RedisServer, folder: Path) -> Iterator[None]:
    """Run the door as the container does."""
    secret = folder / "door"
    secret.write_text(PASSWORD)
    numbers = [str(number) for number in (UNPROVEN, SECONDS, MOST)]
    process = subprocess.Popen(
        [str(DOOR), "127.0.0.1", str(server.port), str(secret), *numbers],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder)},
        start_new_session=True,
    )
    try:
        wait_for(lambda: any("user=door" in row for row in listed(server)), 30)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def client(server: RedisServer, user: str = "default") -> Redis:
    return Redis(
        port=server.port,
        username=user,
        password=PASSWORD,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=5,
    )


def listed(server: RedisServer) -> list[str]:
    def rows() -> list[str]:
        # In a flood of its own source, also this one may be closed before it has logged in.
        with suppress(RedisConnectionError), client(server, "celray") as redis:
            return [" ".join(f"{k}={v}" for k, v in row.items()) for row in redis.client_list()]
        return []

    return wait_for(rows, 60)


def flood(server: RedisServer, stack: ExitStack, number: int) -> None:
    """Open connections and say nothing."""
    for _ in range(number):
        try:
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        except OSError:
            return


def gets_in(server: RedisServer) -> bool:
    try:
        with client(server) as redis:
            return bool(redis.ping())
    except RedisConnectionError:
        return False


def test_without_the_door_a_flood_locks_everybody_out(server: RedisServer) -> None:
    with ExitStack() as stack:
        flood(server, stack, MOST_CLIENTS)
        time.sleep(1)
        assert not gets_in(server)


def test_a_flood_that_says_nothing_locks_nobody_out(server: RedisServer, tmp_path: Path) -> None:
    with door(server, tmp_path), ExitStack() as stack:
        for _ in range(3):
            flood(server, stack, MOST_CLIENTS - 10)
            wait_for(lambda: gets_in(server))
        wait_for(lambda: _unproven(server) <= UNPROVEN)
        # And the few that are left go too, in their time.
        wait_for(lambda: _unproven(server) == 0)


def _unproven(server: RedisServer) -> int:
    return sum("cmd=NULL" in row and "user=default" in row for row in listed(server))


def test_who_has_logged_in_and_works_is_left_alone(server: RedisServer, tmp_path: Path) -> None:
    with door(server, tmp_path), client(server) as idle, client(server, "celray") as service:
        idle.get("x")
        service.auth(PASSWORD, "celray")
        ids = idle.client_id(), service.client_id()
        time.sleep(SECONDS + 2)
        assert (idle.client_id(), service.client_id()) == ids


def test_one_source_has_a_bound_also_with_the_password(server: RedisServer, tmp_path: Path) -> None:
    with door(server, tmp_path), ExitStack() as stack:
        for _ in range(MOST + 50):
            redis = stack.enter_context(client(server))
            # The door looks while they come: one too many may be closed before it has its answer.
            with suppress(RedisConnectionError):
                redis.get("x")
        wait_for(lambda: sum("user=default" in row for row in listed(server)) <= MOST)
