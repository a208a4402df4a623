"""How many tasks a second: celray, stock Celery, dramatiq, taskiq, rq, in turns on one Redis."""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.bench.operations import REPO, BenchError

#: Processes of each worker.
PROCESSES = 2
#: Seconds that one contender may take for its tasks.
LIMIT = 120.0
DONE = "bench:done"

CELERY = "-m celery -A contenders worker -c 2 -l WARNING -n bench@%h"
COMMANDS: dict[str, tuple[str, Sequence[str], int]] = {
    "celray": (
        ".venv-tasks",
        [f"{CELERY} -Q default -E --without-gossip --without-mingle"],
        2000,
    ),
    "celery": (".venv-tasks", [CELERY], 2000),
    "dramatiq": (
        ".venv-peers",
        ["-m dramatiq contenders:broker --processes 2 --threads 1 --queues bench"],
        2000,
    ),
    "taskiq": (".venv-peers", ["-m taskiq worker contenders:taskiq --workers 2"], 2000),
    "rq": (".venv-peers", ["-m rq.cli worker --quiet --url {url}/6"] * PROCESSES, 300),
}


@dataclass
class Throughput:
    """Tasks per second, one figure per round and contender."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """The middle round."""
        return statistics.median(self.rates[name])

    @property
    def ratio(self) -> float:
        """What celray does for each task of stock Celery's, over rounds taken in turns."""
        pairs = zip(self.rates["celray"], self.rates["celery"], strict=True)
        return statistics.median(ours / stock for ours, stock in pairs)


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of this run's own, with the deployment's way of keeping its file."""
    program = shutil.which("redis-server")
    if program is None:
        message = "redis-server is missing: apt-get install redis-server"
        raise BenchError(message)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="celray-bench-") as folder:
        arguments = ["--port", str(port), "--dir", folder, "--appendonly", "yes", "--save", ""]
        process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        try:
            client = Redis(port=port)
            for _ in range(100):
                with suppress(RedisConnectionError):
                    client.ping()
                    break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def environment(name: str, url: str, folder: Path) -> dict[str, str]:
    """The variables of one contender's processes, and nothing that the caller's shell has set."""
    for part in ("datasets", "models/.runs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": f"{REPO}/tests/bench:{REPO}/tasks_pkg/src",
        "BENCH_REDIS": url,
        "BENCH_IN": name,
        "REMAP_SIGTERM": "SIGQUIT" if name == "celray" else "",
        "CELRAY_SECRETS_DIR": str(folder),
        "CELRAY_BROKER_URL": f"{url}/0",
        "CELRAY_RESULT_BACKEND_URL": f"{url}/1",
        "CELRAY_REDBEAT_URL": f"{url}/7",
        "CELRAY_WORKERS": json.dumps([{"name": "all", "queues": ["default", "data", "ml"]}]),
        "CELRAY_WORKER_NAME": "all",
        "CELRAY_HEARTBEAT_FILE": str(folder / "heartbeat"),
        "CELRAY_DATASETS_DIR": str(folder / "datasets"),
        "CELRAY_MODELS_DIR": str(folder / "models"),
        "CELRAY_RUNS_DIR": str(folder / "models/.runs"),
        "RAY_AUTH_MODE": "disabled",
    }


def rate(name: str, url: str) -> float:
    """Queue one contender's tasks, start its worker, and give its tasks per second.

    From its first twentieth to its last, so that no start-up is counted.

    Raises:
        BenchError: it does not come to an end.
    """
    venv, commands, number = COMMANDS[name]
    python = str(REPO / venv / "bin/python")
    counter = Redis.from_url(f"{url}/9")
    counter.delete(DONE)
    with tempfile.TemporaryDirectory(prefix="celray-bench-") as folder:
        env = environment(name, url, Path(folder))
        script = str(REPO / "tests/bench/contenders.py")
        subprocess.run([python, script, name, str(number)], env=env, check=True)
        log = Path(folder, "log")
        processes = []
        with log.open("wb") as out:
            for command in commands:
                words = [python, *command.format(url=url).split()]
                processes.append(
                    subprocess.Popen(
                        words, env=env, cwd=folder, stdout=out, stderr=out, start_new_session=True
                    )
                )
        try:
            return _watch(counter, number, name, log)
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _watch(counter: Redis, number: int, name: str, log: Path) -> float:
    began: tuple[float, int] | None = None
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        done = int(str(counter.get(DONE) or b"0", "ascii"))  # type: ignore[arg-type]
        now = time.perf_counter()
        if began is None and done >= number / 20:
            began = now, done
        if began is not None and done >= number:
            return (done - began[1]) / (now - began[0])
        time.sleep(0.005)
    end = log.read_text(errors="replace")[-500:]
    message = f"throughput: {name} did not finish {number} tasks in {LIMIT:g} s: {end}"
    raise BenchError(message)


def throughput(rounds: int) -> Throughput:
    """Measure all contenders in turns, each round in another order."""
    result = Throughput({name: [] for name in COMMANDS})
    names = list(COMMANDS)
    with redis_server() as url:
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                result.rates[name].append(rate(name, url))
    return result
