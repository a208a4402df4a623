"""A Redis with the users of a deployment: the rights of compose/users.acl.j2, passwords of ours."""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celray_testing import CATALOGUE, PACKAGE, RedisServer, environment, worker
from redis import Redis

TEMPLATE = PACKAGE.parent / "compose" / "users.acl.j2"
FILTERS = PACKAGE.parent / "roles" / "celray" / "filter_plugins" / "celray_catalogue.py"
#: One for all users.
PASSWORD = "secret"  # noqa: S105 - a test's


def rights(name: str) -> list[str]:
    """Return the rules that the template calls ``name``."""
    found = re.search(rf"set {name} = '([^']+)'", TEMPLATE.read_text())
    assert found, f"{TEMPLATE} no longer names the rights {name!r}"
    return found.group(1).split()


def keys() -> list[str]:
    """Return the rules about the keys of who sends tasks, as the role makes them."""
    spec = importlib.util.spec_from_file_location("celray_catalogue", FILTERS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.celray_submitters_keys(CATALOGUE)).split(" ")


class Guarded(RedisServer):
    """A Redis that nobody enters without a password, but for the tests themselves."""

    def as_user(self, name: str, db: int) -> str:
        """Return the URL of a user."""
        return f"redis://{name}:{PASSWORD}@127.0.0.1:{self.port}/{db}"

    def connect(self, name: str, db: int = 0) -> Redis:
        """Return a client of a user."""
        return Redis.from_url(self.as_user(name, db), decode_responses=True)

    def denied(self) -> list[tuple[str, str]]:
        """Return what was refused, by user: the command or key."""
        with self.client(0) as admin:
            return [(entry["username"], entry["object"]) for entry in admin.acl_log(100)]

    def forget_denied(self) -> None:
        """Begin the record of refusals anew."""
        with self.client(0) as admin:
            admin.acl_log_reset()


@contextmanager
def guarded(folder: Path) -> Iterator[Guarded]:
    """Start it, with the users submitter (deployed as ``default``), operator and celray."""
    (folder / "guarded").mkdir()
    server = Guarded(folder / "guarded")
    server.start()
    try:
        users = {
            "submitter": [*keys(), *rights("sending")],
            "operator": rights("celery"),
            "celray": [*rights("celery"), "+info", "+config|get"],
        }
        with server.client(0) as admin:
            for user, rules in users.items():
                admin.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", *rules)
        yield server
    finally:
        server.stop()


@dataclass
class Service:
    """Redis with its users, and a worker that consumes the queues of the catalogue's default."""

    redis: Guarded
    env: dict[str, str]


@contextmanager
def served(folder: Path) -> Iterator[Service]:
    """Start such a Redis, and the worker as the user that a deployment gives it."""
    with guarded(folder) as redis:
        env = environment(
            redis,
            folder,
            CELRAY_BROKER_URL=redis.as_user("celray", 0),
            CELRAY_RESULT_BACKEND_URL=redis.as_user("celray", 1),
            CELRAY_REDBEAT_URL=redis.as_user("celray", 0),
        )
        process = worker(env, folder, "default", "default,celery", "extra_tasks")
        try:
            yield Service(redis, env)
        finally:
            process.kill()
