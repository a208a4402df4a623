"""Runs in the Ray environment, beside a Redis: Ray jobs through a Celery worker; prints JSON.

``python jobs_inside.py overhead|search FOLDER TURNS``. It starts a Ray of one node with its Jobs
API, and a Celery worker, both as processes of their own, and ends them. The environment names the
worker's settings; ``FOLDER`` is short, because Ray's sockets lie in it.
"""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from celery import Celery
from ray.job_submission import JobSubmissionClient
from tasks.ray_jobs import protocol
from tasks.submission.jobs import submission_id

#: Seconds that anything here may take.
LIMIT = 300.0
#: Seconds after which a job's processes have gone, and Ray has made new ones ready.
SETTLED = 2.0
#: What Ray's own documentation submits first, saying when it runs.
TRIVIAL = 'python -c "import time; print(time.time())"'
WINES = Path(__file__).parents[2] / "tasks_pkg/samples/winequality.csv"
#: Nine combinations of short trainings.
GRID = [
    {"max_depth": depth, "learning_rate": rate}
    for depth, rate in itertools.product((2, 4, 6), (0.05, 0.1, 0.3))
]


def family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(found for child in children for found in family(int(child)))]


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and what it has started, by their ids: other Rays may run here."""
    members = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    for pid in members:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running(name: str, folder: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program of this environment."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            end(process)


def free_ports(number: int) -> list[str]:
    """Return ports that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def stack(folder: Path) -> Iterator[tuple[Celery, JobSubmissionClient]]:
    """Yield a client of the worker, and one of Ray's, when both answer."""
    port, dashboard, agent, client_server = free_ports(4)
    os.environ["CELRAY_RAY_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    head = (
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        f"--port={port}",
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client_server}", "--node-ip-address=127.0.0.1"),
        *("--dashboard-host=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"),
        *("--object-store-memory=200000000", f"--temp-dir={folder / 'r'}"),
    )
    worker = (
        *("-m", "celery", "-A", "tasks", "worker", "-c", "1", "-l", "WARNING", "-n", "all@%h"),
        *("-Q", "default,data,ml", "-E", "--without-gossip", "--without-mingle"),
    )
    with running("ray", folder, *head), running("worker", folder, *worker):
        jobs = None
        deadline = time.monotonic() + LIMIT
        while jobs is None:
            try:
                jobs = JobSubmissionClient(os.environ["CELRAY_RAY_ADDRESS"])
                jobs.list_jobs()
            except (ConnectionError, RuntimeError):
                jobs = None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        app = Celery("bench", broker=os.environ["CELRAY_BROKER_URL"])
        app.conf.result_backend = os.environ["CELRAY_RESULT_BACKEND_URL"]
        yield app, jobs


def rays(jobs: JobSubmissionClient) -> float:
    """Seconds to the first line of a trivial job of Ray's own."""
    time.sleep(SETTLED)
    submitted = time.time()
    name = jobs.submit_job(entrypoint=TRIVIAL)
    while not jobs.get_job_status(name).is_terminal():
        time.sleep(0.1)
    return float(jobs.get_job_logs(name).split()[-1]) - submitted


def ours(app: Celery, jobs: JobSubmissionClient, number: Iterator[int]) -> tuple[float, float]:
    """Seconds to the first line of a job of ours, and of these, those before it reaches Ray.

    Each writes another file, so that none is answered by what another has written.
    """
    arguments = {"file_path": "few.csv", "output_path": f"few-{next(number)}.parquet"}
    time.sleep(SETTLED)
    submitted = time.time()
    result = app.send_task("tasks.data_tasks.process_large_csv", kwargs=arguments, queue="data")
    result.get(timeout=LIMIT)
    name = submission_id(result.id)
    records = protocol.decode(jobs.get_job_logs(name))
    started = next(record["at"] for record in records if record["type"] == "started")
    reached = (jobs.get_job_info(name).start_time or 0) / 1000
    return started - submitted, reached - submitted


def overhead(app: Celery, jobs: JobSubmissionClient, turns: int) -> dict[str, list[float]]:
    """Measure in turns; the first of each warms up."""
    Path(os.environ["CELRAY_DATASETS_DIR"], "few.csv").write_text("a,b\n1,2\n3,4\n")
    number = itertools.count()
    found: dict[str, list[float]] = {"ray": [], "celray": [], "before Ray": [], "beside": []}
    ours(app, jobs, number)
    rays(jobs)
    for _ in range(turns):
        found["ray"].append(rays(jobs))
        first_line, before = ours(app, jobs, number)
        found["celray"].append(first_line)
        found["before Ray"].append(before)
        other = jobs.submit_job(entrypoint="exec sleep 600")
        while str(jobs.get_job_status(other)) != "RUNNING":
            time.sleep(0.1)
        try:
            found["beside"].append(ours(app, jobs, number)[0])
        finally:
            jobs.stop_job(other)
            while not jobs.get_job_status(other).is_terminal():
                time.sleep(0.1)
    return found


def search(app: Celery, turns: int) -> dict[str, list[float]]:
    """One search over nine combinations, and a search over each of them, one after another.

    Of the latter three are measured, one of each depth and rate, and counted three times.
    """
    shutil.copy(WINES, os.environ["CELRAY_DATASETS_DIR"])
    found: dict[str, list[float]] = {"together": [], "one by one": []}

    def seconds(grid: list[dict[str, float]], seed: int) -> float:
        began = time.monotonic()
        settings = {"target": "quality", "n_estimators": 20, "folds": 3, "seed": seed}
        arguments: dict[str, Any] = {
            "param_grid": grid,
            "dataset_path": WINES.name,
            "search_config": settings,
        }
        task = app.send_task("tasks.ml_tasks.hyperparameter_search", kwargs=arguments, queue="ml")
        tried = task.get(timeout=LIMIT)["num_trials"]
        assert tried == len(grid)
        return time.monotonic() - began

    seconds(GRID[:1], 0)
    for turn in range(1, turns + 1):
        found["together"].append(seconds(GRID, turn))
        found["one by one"].append(3 * sum(seconds([one], turn) for one in GRID[::4]))
    return found


def main(part: str, folder: Path, turns: int) -> None:
    """Measure one part and say what was found."""
    with stack(folder) as (app, jobs):
        found = overhead(app, jobs, turns) if part == "overhead" else search(app, turns)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
