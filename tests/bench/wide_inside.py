"""Runs in the Ray environment: a CSV file of thousands of columns as a table; prints JSON.

``python wide_inside.py generate|polars|told|celray FILE OUTPUT``. ``seconds`` begins when the
engine has read a few rows.
"""

import json
import sys
import time
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from csv_inside import calm

ROWS, COLUMNS = 300, 5000


def types() -> dict[str, Any]:
    """Return the columns and their types."""
    import polars as pl  # noqa: PLC0415

    kinds = (pl.Float64, pl.Int64, pl.String, pl.Date)
    return {f"column {number}": kinds[number % len(kinds)]() for number in range(COLUMNS)}


def generate(file: Path) -> dict[str, float]:
    """Write 300 rows of 5,000 columns, about 11 MB: numbers, whole ones, words and dates."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    random = np.random.default_rng(1)
    words = np.array([f"word {number}" for number in range(50)])
    days = np.array([date(2020, 1, 1) + timedelta(days=number) for number in range(2000)])
    makers = (
        lambda: random.normal(size=ROWS).round(4),
        lambda: random.integers(0, 1000, ROWS),
        lambda: random.choice(words, ROWS).tolist(),
        lambda: random.choice(days, ROWS).tolist(),
    )
    made = {name: makers[at % len(makers)]() for at, name in enumerate(types())}
    pl.DataFrame(made, schema=types()).write_csv(file)
    return {"bytes": float(file.stat().st_size)}


def polars(file: Path) -> Any:
    """Polars alone, which finds the types in its first hundred rows, as it does by default."""
    import polars as pl  # noqa: PLC0415

    return pl.read_csv(file, try_parse_dates=True)


def told(file: Path) -> Any:
    """Polars alone, which is told the types."""
    import polars as pl  # noqa: PLC0415

    return pl.read_csv(file, schema=types())


def celray(file: Path) -> Any:
    """The reader of all Ray tasks, which finds the types."""
    from ray_jobs.inputs import sources  # noqa: PLC0415
    from ray_jobs.tables import reading  # noqa: PLC0415

    return reading.read(sources.Source((file,), "csv"))


def main(way: str, file: Path) -> None:
    """Go one way and say how long it took."""
    if way == "generate":
        sys.stdout.write(json.dumps(generate(file)) + "\n")
        return
    read = {"polars": polars, "told": told, "celray": celray}[way]
    first = file.with_name("first.csv")
    with file.open(encoding="utf-8") as stream:
        first.write_text("".join(islice(stream, 20)), encoding="utf-8")
    read(first)
    calm()
    started = time.perf_counter()
    found = read(file)
    seconds = time.perf_counter() - started
    from polars.testing import assert_frame_equal  # noqa: PLC0415

    assert_frame_equal(found, told(file))
    sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
