"""Aggregates of one CSV file by group; prints JSON.

``python groups_inside.py generate|polars|celray|duckdb FILE OUTPUT``, in the Ray environment;
DuckDB in that of the peers. ``seconds`` begins when the engine has done a few rows.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from csv_inside import calm, few

ROWS, GROUPS = 3_400_000, 400
FUNCTIONS = ["count", "sum", "mean", "min", "max"]


def generate(file: Path) -> dict[str, float]:
    """Write 3.4 million rows in 400 groups, about 300 MB."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    random = np.random.default_rng(1)
    seconds = random.integers(1_600_000_000, 1_700_000_000, ROWS)
    pl.DataFrame(
        {
            "id": np.arange(ROWS),
            "store": "store " + pl.Series(random.integers(0, GROUPS, ROWS)).cast(pl.String),
            "at": pl.from_epoch(pl.Series(seconds)).dt.strftime("%Y-%m-%dT%H:%M:%S"),
            "quantity": random.integers(1, 100, ROWS),
            "price": random.uniform(0, 1000, ROWS).round(2),
            "tax": random.uniform(0, 10, ROWS).round(4),
            "paid": random.integers(0, 2, ROWS).astype(bool),
            "note": "a few words of note "
            + pl.Series(random.integers(0, 100_000, ROWS)).cast(pl.String),
        }
    ).write_csv(file)
    return {"bytes": float(file.stat().st_size)}


def polars(file: Path, output: Path) -> dict[str, float]:
    """Polars alone, streaming, on all CPUs, which has done a few rows before too."""
    import polars as pl  # noqa: PLC0415

    def process(source: Path) -> float:
        started = time.perf_counter()
        price = pl.col("price")
        made = [getattr(price, what)().alias(f"price_{what}") for what in FUNCTIONS]
        groups = pl.scan_csv(source).group_by("store").agg(pl.len().alias("rows"), *made)
        groups.sort("store").collect(engine="streaming").write_parquet(output)
        return time.perf_counter() - started

    process(few(file, 1_000_000))
    calm()
    return {"seconds": process(file)}


def celray(file: Path, output: Path) -> dict[str, float]:
    """The job's own code on a Ray of its own, whose processes have done a few rows before."""
    import polars as pl  # noqa: PLC0415
    from polars.testing import assert_frame_equal  # noqa: PLC0415
    from ray_jobs import protocol  # noqa: PLC0415
    from ray_jobs.aggregation import job as aggregation_job  # noqa: PLC0415
    from ray_jobs.job import Reporter  # noqa: PLC0415

    os.environ.update(protocol.ENVIRONMENT)  # for the processes that do the work

    def process(source: Path, target: Path) -> float:
        started = time.perf_counter()
        aggregation_job.main(request(source, target), Reporter(file.parent / "runs"))
        return time.perf_counter() - started

    process(few(file, 1_000_000), output.with_name("few.parquet"))
    calm()
    seconds = process(file, output)
    right = output.with_name("right.parquet")
    polars(file, right)
    counts = pl.selectors.unsigned_integer().cast(pl.Int64)
    expected = pl.read_parquet(right).with_columns(counts)
    assert_frame_equal(pl.read_parquet(output), expected, rel_tol=1e-9)
    return {"seconds": seconds}


def duckdb(file: Path, output: Path) -> dict[str, float]:
    """DuckDB alone, on all CPUs, which has done a few rows before too."""
    from duckdb import connect  # noqa: PLC0415

    functions = {"count": "count", "sum": "sum", "mean": "avg", "min": "min", "max": "max"}
    made = ", ".join(f"{functions[what]}(price) AS price_{what}" for what in FUNCTIONS)

    def process(source: Path) -> float:
        started = time.perf_counter()
        database.sql(
            f"SELECT store, count(*) AS rows, {made} FROM read_csv('{source}')"  # noqa: S608 - our own
            " GROUP BY store ORDER BY store"
        ).write_parquet(str(output))
        return time.perf_counter() - started

    database = connect()
    process(few(file, 1_000_000))
    calm()
    return {"seconds": process(file)}


def request(file: Path, output: Path) -> Any:
    """Ask the job for the same."""
    from ray_jobs.protocol import JobRequest  # noqa: PLC0415
    from ray_jobs.tables.reading import MISSING  # noqa: PLC0415

    folder = str(file.parent)
    parameters = {
        "data_sources": [file.name],
        "output_path": output.name,
        "group_by": ["store"],
        "aggregations": {"price": FUNCTIONS},
        "schema": {},
        "missing": list(MISSING),
        "separator": ",",
        "overwrite": True,
    }
    runs, models = f"{folder}/runs", f"{folder}/models"
    return JobRequest(
        f"bench-{os.getpid()}", runs, folder, models, code_version="bench", parameters=parameters
    )


def main(way: str, file: Path, output: Path) -> None:
    """Go one way and say how long it took."""
    if way == "generate":
        found = generate(file)
    else:
        found = {"polars": polars, "celray": celray, "duckdb": duckdb}[way](file, output)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
