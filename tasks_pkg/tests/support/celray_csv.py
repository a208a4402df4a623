"""Read a CSV file in this process as each task does, and as Python's csv module does."""

import csv
import datetime as dt
import io
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tasks.ray_jobs import cluster
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.csv import plan as csv_plan
from tasks.ray_jobs.csv import text as csv_text
from tasks.ray_jobs.csv.byte_ranges import Chain
from tasks.ray_jobs.csv.codes import WRITTEN_POWER
from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.ray_jobs.csv.plan import Plan
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.large_csv import plan as large_csv_plan
from tasks.ray_jobs.large_csv.job import MAX_PASSES, Done, Item, work
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables import reading
from tasks.schemas.data import transformations_from

#: The limit for csv's fields: longer than any field of a test.
_FIELD_BYTES = 1 << 30


def table(path: Path, **said: object) -> pl.DataFrame:
    """Read a file as training, search, predictions from files and retraining do."""
    return reading.read(Source((path,), "csv"), (), None, csv_plan.said(CsvOptions.of(said)))


def summary(path: Path, **said: object) -> aggregation_job.Summary:
    """Summarise all columns of a file as ``aggregate_data`` does."""
    wanted = aggregation_job.Wanted((), None, csv_plan.said(CsvOptions.of(said)))
    return aggregation_job.summarise(wanted, aggregation_job.Item(path.name, path))


def summary_of_ranges(path: Path, length: int, **said: object) -> aggregation_job.Summary:
    """Summarise a file as ``aggregate_data`` does with a large one, in ranges of some bytes."""
    wanted = aggregation_job.Wanted((), None, csv_plan.said(CsvOptions.of(said)))
    item = aggregation_job.Item(path.name, path)
    file, form = aggregation_job.form_of(item, wanted)
    if file.is_stream:
        return summary(path, **said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation_job, "RANGE_BYTES", length)
        patch.setattr(cluster, "cpus", lambda: 1)
        run = aggregation_job.Ranges(wanted, item, file, form)
    for _ in range(MAX_PASSES):
        for number in range(len(run.bounds)):
            made = aggregation_job.work(wanted, run.item(number))
            assert isinstance(made, aggregation_job.Made)
            run.add(number, made)
        if run.ended():
            return run.summary()
    raise AssertionError(run.form)


def converted(path: Path, count: int, block: int = 1 << 20, **said: object) -> pl.DataFrame:
    """Convert a file as ``process_large_csv`` and ``process_new_data`` do.

    Args:
        path: the file.
        count: the number of ranges, for a file with random access.
        block: the bytes of a piece, for a file without.
        said: how the file is written.
    """
    given = {"num_chunks": count, "bad_rows": "fail", **said}
    asked = transformations_from(given).request(str(path), "out.parquet")
    file, sample = csv_text.begin(path, asked.csv.written, "file_path")
    plan = large_csv_plan.make(file, asked, path.parent, sample)
    for _ in range(MAX_PASSES):
        bounds = byte_ranges.split(file.data_start, path.stat().st_size, count)
        items = _items(file, plan, bounds, block)
        frames, needed = _pass(plan, Chain(file.data_start, partial(_again, plan, bounds)), items)
        if not needed:
            return pl.concat(frames) if frames else plan.empty()
        plan = plan.widened(needed)
    raise AssertionError(needed)


def _items(file: Any, plan: Plan, bounds: list[tuple[int, int]], block: int) -> Iterator[Item]:  # noqa: ANN401 - a CsvFile
    if file.is_stream:
        for number, piece in enumerate(csv_text.pieces(file, block, plan.form.byte)):
            yield Item(number, None, None, piece)
        return
    for number, bound in enumerate(bounds):
        yield Item(number, bound, file.data_start if number == 0 else None)


def _pass(
    plan: Plan, chain: "Chain[Done]", items: Iterator[Item]
) -> tuple[list[pl.DataFrame], Mapping[str, list[pl.DataType]]]:
    needed: dict[str, list[pl.DataType]] = {}
    frames, rows = [], 0
    for item in items:
        for made in chain.add(item.number, work(plan, item)):
            if made.problem is not None:
                kind, text = made.problem
                if made.problem_row is not None:
                    text = f"{plan.path}, row {rows + made.problem_row + 1}: {text}"
                raise InputProblemError(kind, text)
            rows += made.rows
            for name, dtype in (made.needed or {}).items():
                needed.setdefault(name, []).append(dtype)
            if made.part is not None:
                frames.append(pl.read_parquet(made.part))
    return frames, needed


def _again(plan: Plan, bounds: list[tuple[int, int]], number: int, start: int) -> Done:
    return work(plan, Item(number, bounds[number], start))


def records(
    text: str,
    separator: str = ",",
    skip_rows: int = 0,
    **dialect: Any,  # noqa: ANN401 - csv.reader's own
) -> list[list[str]]:
    """Return a text's rows as Python's csv module sees them, without the header."""
    csv.field_size_limit(_FIELD_BYTES)
    lines = io.StringIO("\n".join(text.split("\n")[skip_rows:]), newline="")
    return [record for record in csv.reader(lines, delimiter=separator, **dialect) if record][1:]


def is_kept(text: str, value: object, missing: set[str], said: dict[str, Any]) -> bool:
    """Return whether a value that was read keeps what its text means."""
    plain = text.strip()
    if value is None:
        return plain in missing or text in missing
    if isinstance(value, str):
        return plain == value.strip()
    if isinstance(value, bool):
        return plain.lower() == str(value).lower()
    if isinstance(value, (int, float)):
        number = plain
        if said.get("thousands"):
            number = number.replace(said["thousands"], "")
        if said.get("decimal") or said["separator"] != ",":  # given, or detected
            number = number.replace(",", ".")
        code = re.match(r"\+|-?0[0-9]|-?[0-9]+[eE][0-9]+$", number)
        return (not code or bool(re.match(WRITTEN_POWER, number))) and float(number) == value
    return isinstance(value, (dt.date, dt.time)) and str(value)[:10] in {plain[:10], plain}
