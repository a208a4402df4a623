"""``aggregate_data`` on one large CSV file, beside polars alone and DuckDB."""

from collections.abc import Callable

from tests.bench import csv_file
from tests.bench.csv_file import CsvFile

PROGRAM = "groups_inside.py"
LEAST_TURNS = 7


def compare(turns: int, say: Callable[[str], None]) -> CsvFile:
    """Measure all ways, in turns; each goes backwards through what the one before it went through.

    Args:
        turns: how many, but at least :data:`LEAST_TURNS`.
        say: told of each measurement.

    Raises:
        BenchError: one of them failed, or the job's table is not that of polars.
    """
    turns = max(turns, LEAST_TURNS)
    with csv_file.folder() as place:
        file = place / "groups.csv"
        say("groups: a file of 3.4 million rows")
        found = CsvFile(csv_file.inside("generate", file, file, program=PROGRAM)["bytes"] / 1e6)
        for turn in range(turns):
            ways = ["polars", "celray", "duckdb"]
            for way in reversed(ways) if turn % 2 else ways:
                told = csv_file.inside(way, file, place / way, program=PROGRAM)
                say(f"groups: {way}, {turn + 1} of {turns}: {told['seconds']:.2f} s")
                found.ways.setdefault(way, []).append(told["seconds"])
        return found
