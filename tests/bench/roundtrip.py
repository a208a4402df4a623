"""Round trips through the deployed default worker and a stock one, on one Redis, in turns."""

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

from tests.bench import operations as do
from tests.bench.converge import PING, client
from tests.bench.operations import REPO, BenchError

BATCH = 50

#: Stock workers and what they log. Celery's manual starts a worker with INFO, as ours are: two
#: lines a task. Celery's own default is WARNING: none.
STOCK = {"stock worker": "INFO", "stock worker that logs no task": "WARNING"}


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


def compare(urls: Mapping[str, str], tasks: int) -> list[RoundTrips]:
    """Round trips of ours and of each stock worker, in batches by turns, so that drift meets all.

    Raises:
        BenchError: a worker does not answer.
    """
    app = client(urls)
    queues = {name: f"celray-bench-{secrets.token_hex(3)}" for name in STOCK}
    ways = {"deployed default worker": (PING, "default")}
    ways |= {name: ("stock.ping", queue) for name, queue in queues.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    try:
        with ExitStack() as workers:
            for name, queue in queues.items():
                workers.enter_context(stock_worker(urls, queue, STOCK[name]))
            for task, queue in ways.values():
                _send(app, task, queue, BATCH)
            for _ in range(-(-tasks // BATCH)):
                for name, (task, queue) in ways.items():
                    taken[name] += _send(app, task, queue, BATCH)
    except TimeoutError as error:
        message = f"no answer within 20 s: {error}"
        raise BenchError(message) from error
    finally:
        # Only now: a worker that lives binds its queue again.
        with app.connection_for_write() as connection:
            for queue in queues.values():
                connection.default_channel.queue_delete(queue)
    return [RoundTrips(name, tuple(milliseconds)) for name, milliseconds in taken.items()]
