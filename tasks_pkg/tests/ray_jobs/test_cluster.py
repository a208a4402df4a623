"""``cluster.each`` gives the same with Ray and without it."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, InputProblemError, JobRequest, telling_line
from tasks.submission.local import LocalJobs

PACKAGE = Path(__file__).parents[2] / "src" / "tasks" / "ray_jobs"

SQUARES = """
from ray_jobs import cluster
from ray_jobs.protocol import InputProblemError
import functools, operator

cluster.connect()
found = sorted(cluster.each(functools.partial(operator.mul, 3), range(5), concurrency=2))
assert found == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)], found
assert cluster.cpus() >= 1
try:
    list(cluster.each(functools.partial(operator.truediv, 1), [1, 0], concurrency=2))
except ZeroDivisionError as error:
    print("raised", type(error).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "plain"])
def test_calls_give_their_results_by_index_and_their_own_errors(
    engine: str, tmp_path: Path
) -> None:
    (tmp_path / "ray_jobs").symlink_to(PACKAGE)  # alone on the path, as a job has it
    done = subprocess.run(
        [sys.executable, "-c", SQUARES],
        env={ENGINE_VARIABLE: engine, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "raised ZeroDivisionError" in done.stdout


def test_an_error_keeps_its_kind_on_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputProblemError("kind", "What is wrong.", "A way out.")))  # noqa: S301
    assert (error.kind, str(error)) == ("kind", "What is wrong. A way out.")


def test_a_worker_that_the_kernel_ended_is_said_to_have_wanted_memory() -> None:
    # In a process of its own: Ray decides on tokens when it is imported, and here it would be
    # before a cluster of these tests has set the mode.
    script = "from ray.exceptions import WorkerCrashedError; print(WorkerCrashedError())"
    ray = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100
    )
    said = telling_line(ray.stdout)
    assert "died unexpectedly" in said
    assert "ray_memory_mb" in said
    assert telling_line("Task failed.\n  a node was running low on memory\nadvice") == (
        "  a node was running low on memory"
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "plain"])
def test_a_local_job_says_what_is_wrong_with_its_input(
    engine: str, request_for: Callable[..., Callable[[str], JobRequest]]
) -> None:
    with pytest.raises(InvalidArgumentsError, match=r"no-such-file.csv.* does not exist"):
        LocalJobs(engine).run("t", "train", request_for("no-such-file.csv"), lambda *_: None)  # type: ignore[arg-type]
