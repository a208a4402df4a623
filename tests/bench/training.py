"""Training on one large table: our job, on Ray and without, against xgboost alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import operations as do
from tests.bench.csv_file import PYTHON, folder
from tests.bench.operations import BenchError, Sample

ROWS = 2_000_000
#: By the name in the report, what goes this way and on which engine.
WAYS = {
    "xgboost alone": ("xgboost", "plain"),
    "celray without Ray": ("celray", "plain"),
    "celray on Ray": ("celray", "ray"),
}
#: A model that is as good differs from the other by less than this in r2.
SAME = 0.02


@dataclass
class Training:
    """Per way the figures of each turn."""

    figures: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def sample(self, way: str, what: str) -> Sample:
        """The repetitions of one way."""
        return Sample(tuple(each[what] for each in self.figures[way]))

    def ratios(self, way: str, what: str) -> list[float]:
        """One way over xgboost alone, turn by turn."""
        pairs = zip(self.figures[way], self.figures["xgboost alone"], strict=True)
        return [ours[what] / alone[what] for ours, alone in pairs]


def compare(turns: int, say: Callable[[str], None], rows: int = ROWS) -> Training:
    """Measure all ways, in turns; each goes backwards through what the one before it went through.

    Raises:
        BenchError: one of them failed, or its model is not as good.
    """
    found = Training({way: [] for way in WAYS})
    with folder() as place:
        file = place / "large.parquet"
        say(f"training: a table of {rows} rows")
        _inside("generate", "plain", file, rows)
        for turn in range(turns):
            for way in reversed(WAYS) if turn % 2 else WAYS:
                told = _inside(*WAYS[way], file, rows)
                say(
                    f"training: {way}, {turn + 1} of {turns}: {told['seconds']:.1f} s,"
                    f" {told['megabytes']:.0f} MB"
                )
                found.figures[way].append(told)
    scores = [figures[0]["score"] for figures in found.figures.values()]
    if not all(math.isclose(score, scores[0], abs_tol=SAME) for score in scores):
        message = f"training: the models are not equally good: r2 {scores}"
        raise BenchError(message)
    return found


def _inside(way: str, engine: str, file: Path, rows: int) -> dict[str, float]:
    here = Path(__file__).parent
    variables = {
        "PYTHONPATH": f"{file.parent / 'package'}:{here}",
        "RAY_TMPDIR": str(file.parent),
        "RAY_USAGE_STATS_ENABLED": "0",
        "CELRAY_JOB_ENGINE": engine,
    }
    program = str(here / "training_inside.py")
    said = do.run(str(PYTHON), program, way, str(file), str(rows), extra=variables)
    found: dict[str, float] = do.figures(f"training, {way}", said)
    return found
