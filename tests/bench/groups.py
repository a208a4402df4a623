"""CSV beside polars alone: ``aggregate_data`` on a large file, and a file of 5,000 columns."""

from collections.abc import Callable, Sequence

from tests.bench import csv_file
from tests.bench.csv_file import CsvFile

LEAST_TURNS = 7


def compare(turns: int, say: Callable[[str], None]) -> CsvFile:
    """Measure aggregates by group.

    Args:
        turns: how many, but at least :data:`LEAST_TURNS`.
        say: told of each measurement.

    Raises:
        BenchError: one of the ways failed, or the job's table is not that of polars.
    """
    return _in_turns("groups", ("polars", "celray", "duckdb"), turns, say)


def compare_wide(turns: int, say: Callable[[str], None]) -> CsvFile:
    """Measure how long a file of 5,000 columns takes to read; see :func:`compare`."""
    return _in_turns("wide", ("polars", "told", "celray"), turns, say)


def _in_turns(what: str, ways: Sequence[str], turns: int, say: Callable[[str], None]) -> CsvFile:
    """Measure all ways, in turns; each goes backwards through what the one before it went through.

    Args:
        what: the beginning of the program's name.
        ways: as the program calls them.
        turns: how many, but at least :data:`LEAST_TURNS`.
        say: told of each measurement.
    """
    turns = max(turns, LEAST_TURNS)
    program = f"{what}_inside.py"
    with csv_file.folder() as place:
        file = place / f"{what}.csv"
        say(f"{what}: a CSV file")
        found = CsvFile(csv_file.inside("generate", file, file, program=program)["bytes"] / 1e6)
        for turn in range(turns):
            for way in reversed(ways) if turn % 2 else ways:
                told = csv_file.inside(way, file, place / way, program=program)
                say(f"{what}: {way}, {turn + 1} of {turns}: {told['seconds']:.2f} s")
                found.ways.setdefault(way, []).append(told["seconds"])
        return found
