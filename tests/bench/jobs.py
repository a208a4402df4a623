"""Ray jobs through Celery: what they cost beside Ray's own, and what a search saves."""

import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench import operations as do
from tests.bench.csv_file import PYTHON
from tests.bench.operations import REPO, Sample
from tests.bench.throughput import environment, redis_server


@dataclass(frozen=True)
class Overhead:
    """Seconds from submitting to a job's first line, in turns.

    Attributes:
        ray: of a trivial job of Ray's own.
        celray: of a job of ours, sent to a Celery worker.
        before_ray: of these, those before the job reached Ray.
        beside: of a job of ours while another job runs.
    """

    ray: list[float]
    celray: list[float]
    before_ray: list[float]
    beside: list[float]

    @property
    def ratios(self) -> list[float]:
        """Ours to Ray's, turn by turn."""
        return [a / b for a, b in zip(self.celray, self.ray, strict=True)]

    @property
    def beside_ratios(self) -> list[float]:
        """A second job to one that is alone, turn by turn."""
        return [a / b for a, b in zip(self.beside, self.celray, strict=True)]


@dataclass(frozen=True)
class Search:
    """Seconds of one search over nine combinations, and of nine searches over one each."""

    together: list[float]
    one_by_one: list[float]

    @property
    def ratio(self) -> float:
        """How many times as long one by one takes."""
        return statistics.median(self.one_by_one) / statistics.median(self.together)


def overhead(turns: int) -> Overhead:
    """Measure the first lines.

    Raises:
        BenchError: a job failed.
    """
    found = _inside("overhead", turns)
    return Overhead(found["ray"], found["celray"], found["before Ray"], found["beside"])


def search() -> Search:
    """Measure a search.

    Raises:
        BenchError: a job failed.
    """
    found = _inside("search", 1)
    return Search(found["together"], found["one by one"])


def shown(seconds: list[float]) -> str:
    """Return repetitions as the report has them."""
    return str(Sample(tuple(seconds)))


def _inside(part: str, turns: int) -> dict[str, list[float]]:
    with redis_server() as url, tempfile.TemporaryDirectory(prefix="celray-") as place:
        variables = {
            **environment("celray", url, Path(place)),
            "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{REPO}/tasks_pkg/src",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        }
        program = str(REPO / "tests/bench/jobs_inside.py")
        said = do.run(str(PYTHON), program, part, place, str(turns), extra=variables)
    found: dict[str, list[float]] = do.figures(part, said)
    return found
