"""A Redis with the users and rights of a deployment (compose/users.acl.j2), and a test password."""

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
#: The password of all users.
PASSWORD = "secret"  # noqa: S105 - a test's


def rights(name: str) -> list[str]:
    """Return the ACL rules that the template sets as ``name``."""
    found = re.search(rf"set {name} = '([^']+)'", TEMPLATE.read_text())
    assert found, f"{TEMPLATE} no longer names the rights {name!r}"
    return found.group(1).split()


def keys() -> list[str]:
    """Return the ACL rules for a submitter's keys, as the role computes them."""
    spec = importlib.util.spec_from_file_location("celray_catalogue", FILTERS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.celray_submitters_keys(CATALOGUE)).split(" ")


class Guarded(RedisServer):
    """A Redis with users that need a password; the tests themselves need none."""

    def as_user(self, name: str, db: int) -> str:
        """Return the URL of a user."""
        return f"redis://{name}:{PASSWORD}@127.0.0.1:{self.port}/{db}"

    def connect(self, name: str, db: int = 0) -> Redis:
        """Return a client of a user."""
        return Redis.from_url(self.as_user(name, db), decode_responses=True)

    def denied(self) -> list[tuple[str, str]]:
        """Return the refused commands and keys, each with its user."""
        with self.client(0) as admin:
            return [(entry["username"], entry["object"]) for entry in admin.acl_log(100)]

    def forget_denied(self) -> None:
        """Clear the list of refusals."""
        with self.client(0) as admin:
            admin.acl_log_reset()


@contextmanager
def guarded(folder: Path) -> Iterator[Guarded]:
    """Yield such a Redis with the users submitter (deployed: ``default``), operator, celray."""
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
    """Redis with its users, and the catalogue's worker ``default``."""

    redis: Guarded
    env: dict[str, str]


@contextmanager
def served(folder: Path) -> Iterator[Service]:
    """Yield such a Redis, and the worker, which connects as a deployment's worker does."""
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
