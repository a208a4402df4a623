"""Runs in the Ray environment: one way through one CSV file; prints JSON with its seconds.

``python csv_inside.py generate|polars|default|celray|raydata|nodes FILE OUTPUT [NODES]``. Filter,
derived column and Parquet are the same in all. ``seconds`` begins when the engine is there to work.
"""

import json
import os
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

ROWS = 8_000_000
LEAST = 9.0

#: Seconds that are waited at most for a calm machine, and the share of it that is idle then.
CALM_SECONDS, CALM = 20, 0.9

#: Bytes a second that a node of the slow storage delivers.
SLOW_BYTES = 24_000_000


def generate(file: Path) -> dict[str, float]:
    """Write 8 million rows, over 400 MB."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    random = np.random.default_rng(1)
    cities = np.array(["Berlin", "Paris", "Rome", "Oslo", "São Paulo"])
    pl.DataFrame(
        {
            "id": np.arange(10_000_000, 10_000_000 + ROWS),
            "a": random.normal(10, 3, ROWS).round(6),
            "b": random.integers(0, 1000, ROWS),
            "price": random.uniform(0, 500, ROWS).round(4),
            "quantity": random.integers(1, 9, ROWS),
            "city": cities[random.integers(0, 5, ROWS)],
            "day": pl.Series(random.integers(18000, 20000, ROWS)).cast(pl.Date),
        }
    ).write_csv(file)
    return {"bytes": float(file.stat().st_size)}


def calm() -> None:
    """Wait until nothing else has run here for a second.

    A cluster that has just come up is busy with itself for seconds, which a deployed one was long
    ago, and the one of the way before may still be on its way out.
    """

    def idle() -> float:
        numbers = Path("/proc/stat").read_text(encoding="utf-8").split()
        return (int(numbers[4]) + int(numbers[5])) / os.sysconf("SC_CLK_TCK")

    for _ in range(CALM_SECONDS):
        before = idle()
        time.sleep(1)
        if idle() - before > CALM * (os.cpu_count() or 1):
            return


def polars(file: Path, output: Path, level: int | None = 1) -> dict[str, float]:
    """Polars alone, streaming, on all CPUs; compressed as our job does, or as polars does."""
    import polars as pl  # noqa: PLC0415

    calm()
    started = time.perf_counter()
    rows = pl.scan_csv(file, try_parse_dates=True).filter(pl.col("a") > LEAST)
    table = rows.with_columns(total=pl.col("price") * pl.col("quantity"))
    table.sink_parquet(output, compression="zstd", compression_level=level)
    return {"seconds": time.perf_counter() - started}


def default(file: Path, output: Path) -> dict[str, float]:
    """Polars alone, with its own level of compression."""
    return polars(file, output, None)


def request(file: Path, output: Path) -> Any:
    """The same as a request to the job."""
    from ray_jobs.protocol import JobRequest  # noqa: PLC0415
    from ray_jobs.tables.reading import MISSING  # noqa: PLC0415

    folder = str(file.parent)
    parameters = {
        "file_path": file.name,
        "output_path": output.name,
        "filter": {"a": LEAST},
        "new_columns": {"total": "df['price'] * df['quantity']"},
        "num_chunks": None,
        "columns": None,
        "schema": {},
        "bad_rows": "fail",
        "missing": list(MISSING),
        "separator": ",",
        "overwrite": True,
    }
    runs, models = f"{folder}/runs", f"{folder}/models"  # apart from where outputs go
    return JobRequest(
        f"bench-{os.getpid()}", runs, folder, models, code_version="bench", parameters=parameters
    )


def celray(file: Path, output: Path) -> dict[str, float]:
    """The job's own code, on a Ray of its own or without, as the environment says.

    As with Ray Data, a few rows go first. What start-up there still is, the rows after it do not
    bear.
    """
    from ray_jobs import protocol  # noqa: PLC0415
    from ray_jobs.job import Reporter  # noqa: PLC0415
    from ray_jobs.large_csv import job as large_csv_job  # noqa: PLC0415

    os.environ.update(protocol.ENVIRONMENT)  # for the processes that do the work

    def process(source: Path, target: Path) -> tuple[float, float]:
        started = time.perf_counter()
        result = large_csv_job.main(request(source, target), Reporter(file.parent / "runs"))
        times = result["timings"]
        startup = times["connect_seconds"] + times["workers_seconds"]
        return time.perf_counter() - started - startup, startup

    _, startup = process(few(file, 400_000), output.with_name("few.parquet"))
    calm()
    seconds, _ = process(file, output)
    return {"seconds": seconds, "startup": startup}


def few(file: Path, rows: int) -> Path:
    """Return a file with its first rows, beside it."""
    first = file.with_name("few.csv")
    with file.open(encoding="utf-8") as stream:
        first.write_text("".join(islice(stream, rows)), encoding="utf-8")
    return first


def raydata(file: Path, output: Path) -> dict[str, float]:
    """Ray Data's own reader."""
    import ray  # noqa: PLC0415

    def process(source: Path, target: Path) -> None:
        table = ray.data.read_csv(str(source)).filter(expr=f"a > {LEAST}")
        table = table.map_batches(
            lambda batch: {**batch, "total": batch["price"] * batch["quantity"]},
            batch_format="numpy",
        )
        table.write_parquet(str(target))

    ray.init(logging_level="error")
    # Its processes start, and import what they need.
    process(few(file, 400_000), output.with_name("few"))
    calm()
    started = time.perf_counter()
    process(file, output)
    return {"seconds": time.perf_counter() - started}


def slowly(plan: Any, item: Any) -> Any:
    """One range, from storage that gives each node so many bytes a second."""
    from ray_jobs.large_csv import job as large_csv_job  # noqa: PLC0415

    time.sleep((item.bounds[1] - item.bounds[0]) / SLOW_BYTES)
    return large_csv_job.work(plan, item)


def nodes(file: Path, output: Path, count: int) -> dict[str, float]:
    """The job on so many Ray nodes of one CPU each, with slow storage."""
    import csv_inside  # noqa: PLC0415 - this file, by the name that Ray's workers know
    import ray  # noqa: PLC0415
    from ray.cluster_utils import Cluster  # noqa: PLC0415
    from ray_jobs.large_csv import job as large_csv_job  # noqa: PLC0415

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(count - 1):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="error")
    original = large_csv_job.partial
    large_csv_job.partial = lambda _, plan: original(csv_inside.slowly, plan)
    return celray(file, output)


def main(way: str, file: Path, output: Path, *more: str) -> None:
    """Go one way and say how long it took."""
    if way == "generate":
        found = generate(file)
    elif way == "nodes":
        found = nodes(file, output, int(more[0]))
    else:
        ways = {"polars": polars, "default": default, "celray": celray, "raydata": raydata}
        found = ways[way](file, output)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
