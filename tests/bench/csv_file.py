"""One large CSV file: our job against polars alone and Ray Data, two nodes against one."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import operations as do
from tests.bench.operations import REPO, Sample

PYTHON = REPO / ".venv-ray/bin/python"
#: Of ways that have an environment of their own.
PYTHONS = {"duckdb": REPO / ".venv-peers/bin/python"}
#: Two seconds each; on a machine shared with others any of them may take half as long again, and
#: for seconds on end. Of seven, the median moved by a tenth from one run to the next.
LEAST_TURNS = 15
#: Of Ray Data, and of nodes with slow storage: half a minute each.
SLOW_TURNS = 2


@dataclass
class CsvFile:
    """Seconds of each way, in turns, without the start of Ray, which is beside it."""

    megabytes: float
    ways: dict[str, list[float]] = field(default_factory=dict)
    startup: list[float] = field(default_factory=list)

    def sample(self, way: str) -> Sample:
        """The repetitions of one way."""
        return Sample(tuple(self.ways[way]))

    def ratios(self, way: str, to: str) -> list[float]:
        """One way over another, turn by turn."""
        return [a / b for a, b in zip(self.ways[way], self.ways[to], strict=False)]


def compare(turns: int, say: Callable[[str], None]) -> CsvFile:
    """Measure all ways, in turns; each goes backwards through what the one before it went through.

    Args:
        turns: how many, but at least :data:`LEAST_TURNS`; the slow ways take part in two.
        say: told of each measurement.

    Raises:
        BenchError: one of them failed.
    """
    turns = max(turns, LEAST_TURNS)
    with folder() as place:
        file = place / "large.csv"
        say("csv: a file of 8 million rows")
        found = CsvFile(inside("generate", file, file)["bytes"] / 1e6)
        for way in ("polars", "celray"):  # the file is in the page cache from here on
            inside(way, file, place / f"{way}.parquet")
        for turn in range(turns):
            ways = ["polars", "default", "celray", "plain", *(["raydata"] * (turn < SLOW_TURNS))]
            for way in reversed(ways) if turn % 2 else ways:
                told = inside("celray" if way == "plain" else way, file, place / way, way)
                say(f"csv: {way}, {turn + 1} of {turns}: {told['seconds']:.2f} s")
                found.ways.setdefault(way, []).append(told["seconds"])
                if way == "celray":
                    found.startup.append(told["startup"])
        for _ in range(SLOW_TURNS):
            for count in ("1", "2"):
                told = inside("nodes", file, place / "nodes", "celray", count)
                say(f"csv: nodes with slow storage: {count}: {told['seconds']:.2f} s")
                found.ways.setdefault(f"nodes {count}", []).append(told["seconds"])
        return found


def inside(
    way: str,
    file: Path,
    output: Path,
    engine: str = "",
    *more: str,
    program: str = "csv_inside.py",
) -> dict[str, float]:
    """Go one way in a process of its own, and give what it prints.

    Args:
        way: as ``program`` calls it.
        file: the input.
        output: where its output goes; what lies there is removed.
        engine: ``plain`` for our job without Ray.
        more: further arguments.
        program: beside this module.

    Raises:
        BenchError: it failed.
    """
    output = output if way in {"generate", "raydata"} else output.with_suffix(".parquet")
    for old in (output, output.with_name(f"{output.name}.manifest.json")):
        if old != file:
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    here = Path(__file__).parent
    variables = {
        "PYTHONPATH": f"{file.parent / 'package'}:{here}",
        # Ray notes a cluster's address in here, for every later ray.init() to find; one that is
        # gone makes that hang.
        "RAY_TMPDIR": str(file.parent),
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "CELRAY_JOB_ENGINE": "plain" if engine == "plain" else "ray",
    }
    python = str(PYTHONS.get(way, PYTHON))
    said = do.run(python, str(here / program), way, str(file), str(output), *more, extra=variables)
    found: dict[str, float] = do.figures(f"csv, {way}", said)
    return found


@contextmanager
def folder() -> Iterator[Path]:
    """A place for the file and the outputs, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="celray-bench-") as path:
        # Alone, as a job has it: beside it lie modules with the names of others.
        (Path(path) / "package").mkdir()
        (Path(path) / "package/ray_jobs").symlink_to(REPO / "tasks_pkg/src/tasks/ray_jobs")
        yield Path(path)
