"""Round trips through the deployed default worker and a stock one, on one Redis, in turns."""

import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery

from tests.bench import operations as do
from tests.bench.converge import PING, client
from tests.bench.operations import REPO, BenchError

BATCH = 50


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
def stock_worker(urls: Mapping[str, str], queue: str) -> Iterator[None]:
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


def compare(urls: Mapping[str, str], tasks: int) -> tuple[RoundTrips, RoundTrips]:
    """Round trips of both workers, in alternating batches, so that drift meets both alike.

    Raises:
        BenchError: a worker does not answer.
    """
    queue = f"celray-bench-{secrets.token_hex(3)}"
    app = client(urls)
    ours: list[float] = []
    stock: list[float] = []
    with stock_worker(urls, queue):
        try:
            _send(app, PING, "default", BATCH)
            _send(app, "stock.ping", queue, BATCH)
            while len(ours) < tasks:
                ours += _send(app, PING, "default", BATCH)
                stock += _send(app, "stock.ping", queue, BATCH)
        except TimeoutError as error:
            message = f"no answer within 20 s: {error}"
            raise BenchError(message) from error
        finally:
            with app.connection_for_write() as connection:
                channel = connection.default_channel
                channel.queue_delete(queue)
    return RoundTrips("deployed default worker", tuple(ours)), RoundTrips(
        "stock worker", tuple(stock)
    )
