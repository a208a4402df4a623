"""Round trips through the deployed default worker and a stock one, on one Redis, in turns."""

import json
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from redis import Redis

from tests.bench import operations as do
from tests.bench.converge import PING, client
from tests.bench.operations import REPO, BenchError

BATCH = 50

#: Who measures without access rules, in Redis only for that time.
USER = "celray-bench"


@dataclass(frozen=True)
class Stock:
    """A worker with Celery's defaults, and its client.

    Args:
        level: what it logs. Celery's manual starts a worker with INFO, as ours are: two lines a
            task. Celery's own default is WARNING: none.
        all_rights: whether it comes as a user that no access rule holds back.
    """

    name: str
    level: str = "INFO"
    all_rights: bool = False


STOCK = (
    Stock("stock worker"),
    Stock("stock worker that logs no task", level="WARNING"),
    Stock("stock worker without access rules", all_rights=True),
)


@dataclass(frozen=True)
class Pings:
    """What was found: round trips by way, and the microseconds of our look at one message."""

    trips: list["RoundTrips"]
    checks: float

    @property
    def access_rules(self) -> float:
        """What Redis's access rules cost a stock worker: ratio to one without."""
        medians = {trip.name: trip.median for trip in self.trips}
        return medians["stock worker"] / medians["stock worker without access rules"]


@dataclass(frozen=True)
class RoundTrips:
    """Milliseconds from sending to having the result, one entry per task."""

    name: str
    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one, in milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def p95(self) -> float:
        """The one that 95 of 100 are faster than, in milliseconds."""
        return statistics.quantiles(self.milliseconds, n=20)[-1]


@contextmanager
def users(urls: Mapping[str, str]) -> Iterator[dict[bool, dict[str, str]]]:
    """URLs by whether no rule holds their user back: an operator's, and one of this bench's own."""
    name = "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"
    operator = {key: urls[key.replace("CELERY", "CELRAY_OPERATOR")] for key in name}
    compose = Path(do.containers()["redis-celery"]["file"])
    secret = next(
        file for parent in compose.parents if (file := parent / "secrets/secrets.json").is_file()
    )
    admin = json.loads(secret.read_text(encoding="utf-8"))["redis_admin_password"]
    password = secrets.token_hex(16)
    _, _, place = operator["CELERY_BROKER_URL"].rpartition("@")
    with Redis.from_url(f"redis://admin:{admin}@{place}") as redis:
        redis.acl_setuser(
            USER, enabled=True, passwords=[f"+{password}"], keys=["*"], channels=["*"],
            categories=["+@all"],
        )  # fmt: skip
        try:
            free = {
                key: f"redis://{USER}:{password}@{url.rpartition('@')[2]}"
                for key, url in operator.items()
            }
            yield {False: operator, True: free}
        finally:
            redis.acl_deluser(USER)


@contextmanager
def stock_worker(urls: Mapping[str, str], queue: str, level: str) -> Iterator[None]:
    """A worker with Celery's defaults in a container of the deployed worker's image."""
    box = do.containers()["celery-worker-default"]
    name = f"{queue}-worker"
    with tempfile.TemporaryDirectory(prefix="celray-bench-") as folder:
        secret = Path(folder, "urls")
        secret.write_text(
            f"{urls['CELERY_BROKER_URL']}\n{urls['CELERY_RESULT_BACKEND']}\n", encoding="utf-8"
        )
        secret.chmod(0o400)
        Path(folder).chmod(0o700)
        do.run(
            *("docker", "run", "--detach", "--name", name, "--network", "host"),
            *("--user", f"{os.geteuid()}:{os.getegid()}", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - the container's own
            *("--volume", f"{folder}:/run/bench:ro"),
            *("--volume", f"{REPO}/tests/bench/stock.py:/bench/stock.py:ro"),
            *("--env", "PYTHONPATH=/bench", "--entrypoint", "celery", box["tag"]),
            *("-A", "stock", "worker", "-Q", queue, "-c", "4", "-n", f"{queue}@%h"),
            *("--loglevel", level),
        )  # fmt: skip
        try:
            yield
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


def _send(app: Celery, task: str, queue: str, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        app.send_task(task, queue=queue).get(timeout=20, interval=0.001)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def checks() -> float:
    """Microseconds that our look at a message takes, beside reading it as kombu does."""
    told = do.run(
        str(REPO / ".venv-tasks/bin/python"), str(Path(__file__).with_name("message_checks.py")),
        extra={"PYTHONPATH": str(REPO / "tasks_pkg/src")},
    )  # fmt: skip
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found["checks"]


def compare(urls: Mapping[str, str], tasks: int) -> Pings:
    """Round trips of ours and of each stock worker, in batches by turns, so that drift meets all.

    Raises:
        BenchError: a worker does not answer.
    """
    queues = {stock: f"celray-bench-{secrets.token_hex(3)}" for stock in STOCK}
    with users(urls) as known:
        ways = {"deployed default worker": (client(urls), PING, "default")} | {
            stock.name: (client(known[stock.all_rights]), "stock.ping", queue)
            for stock, queue in queues.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        try:
            with ExitStack() as workers:
                for stock, queue in queues.items():
                    workers.enter_context(stock_worker(known[stock.all_rights], queue, stock.level))
                for way in ways.values():
                    _send(*way, BATCH)
                for _ in range(-(-tasks // BATCH)):
                    for name, way in ways.items():
                        taken[name] += _send(*way, BATCH)
        except TimeoutError as error:
            message = f"no answer within 20 s: {error}"
            raise BenchError(message) from error
        finally:
            # Only now: a worker that lives binds its queue again.
            with client(known[True]).connection_for_write() as connection:
                for queue in queues.values():
                    connection.default_channel.queue_delete(queue)
    return Pings([RoundTrips(name, tuple(each)) for name, each in taken.items()], checks())
