"""Any column that Parquet can hold: refused by name where it is asked for, and else no obstacle."""

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.inbox import job as inbox_job
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.model import features
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, InputProblemError, JobRequest
from tasks.ray_jobs.tables import parquet as parquet_tables
from tasks.ray_jobs.tables import reading

ROWS = 4
#: Every type of Arrow that pyarrow writes to Parquet, with two values.
PLAIN: dict[str, pa.Array] = {
    **{str(t): pa.array([1, 2], t) for t in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(t): pa.array([1, 2], t) for t in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    "uint64 beyond": pa.array([1, 2**64 - 1], pa.uint64()),
    "halffloat": pa.array(np.array([1.5, 2.5], np.float16)),
    "float": pa.array([1.5, 2.5], pa.float32()),
    "double": pa.array([1.5, 2.5]),
    "bool": pa.array([True, False]),
    "null": pa.nulls(2),
    "string": pa.array(["a", "b"]),
    "large_string": pa.array(["a", "b"], pa.large_string()),
    "string_view": pa.array(["a", "b"], pa.string_view()),
    "binary": pa.array([b"a", b"\xff"]),
    "large_binary": pa.array([b"a", b"\xff"], pa.large_binary()),
    "fixed_size_binary": pa.array([b"ab", b"\xff\xff"], pa.binary(2)),
    "decimal": pa.array([Decimal("1.10"), Decimal("2.20")], pa.decimal128(12, 2)),
    "decimal of 38": pa.array([Decimal("9" * 36), Decimal(1)], pa.decimal128(38, 2)),
    "decimal256, short": pa.array([Decimal(1), Decimal(2)], pa.decimal256(60, 2)),
    "decimal256, long": pa.array([Decimal("9" * 50), Decimal(2)], pa.decimal256(60, 2)),
    "date32": pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)]),
    "date64": pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 2)], pa.date64()),
    **{f"time {u}": pa.array([1, 2], pa.time32(u)) for u in ("s", "ms")},
    **{f"time {u}": pa.array([1000, 2000], pa.time64(u)) for u in ("us", "ns")},
    **{
        f"timestamp {u} {zone}": pa.array([1, 2], pa.timestamp(u, zone))
        for u, zone in itertools.product(("s", "ms", "us", "ns"), (None, "UTC", "Europe/Paris"))
    },
    **{f"duration {u}": pa.array([1, 2], pa.duration(u)) for u in ("s", "ms", "us", "ns")},
}
NESTED: dict[str, pa.Array] = {
    "list": pa.array([[1], []]),
    "large_list": pa.array([[1], []], pa.large_list(pa.int64())),
    "fixed_size_list": pa.array([[1], [2]], pa.list_(pa.int64(), 1)),
    "struct": pa.array([{"a": 1}, {"a": 2}]),
    "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    "list of decimal256": pa.array([[Decimal("9" * 50)], []], pa.list_(pa.decimal256(60, 2))),
    "struct of binary": pa.array([{"a": b"\xff"}, {"a": b""}]),
}
DICTIONARIES: dict[str, pa.Array] = {
    f"dictionary of {name}": PLAIN[name].dictionary_encode()
    for name in ("string", "large_string", "int64", "double", "date32", "binary", "decimal")
}
EVERY = PLAIN | NESTED | DICTIONARIES
#: What can be counted, and no more.
ODD = {
    *NESTED,
    *(name for name in EVERY if "duration" in name or "binary" in name),
    "uint64 beyond",
    "decimal256, long",
}


@pytest.fixture
def file(tmp_path: Path, name: str) -> Path:
    kind = EVERY[name].type
    if pa.types.is_dictionary(kind) or pa.types.is_nested(kind):
        values = EVERY[name].take(pa.array([0, 1, None, 0]))
    else:  # to take from text that is viewed is not implemented
        first, second = EVERY[name]
        values = pa.array([first, second, None, first], kind)
    path = tmp_path / "datasets" / "a.parquet"
    path.parent.mkdir()
    (tmp_path / "models").mkdir()
    pq.write_table(pa.table({"k": ["a", "b", "a", "b"], "odd": values, "x": [1, 2, 3, 4]}), path)
    return path


def summary(file: Path, keys: tuple[str, ...], functions: Any) -> aggregation_job.Summary:  # noqa: ANN401
    return aggregation_job.summarise(
        aggregation_job.Wanted(keys, functions), aggregation_job.Item("a", file)
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_column_that_nobody_asks_for_is_no_obstacle(file: Path, name: str) -> None:
    del name
    found = summary(file, ("k",), {"x": ["sum"]})
    assert found.groups is not None
    assert dict(found.groups.select("k", "x\0sum").rows()) == {"a": 4, "b": 6}
    assert found.columns == ("k", "odd", "x")


@pytest.mark.parametrize("name", EVERY)
def test_a_column_is_aggregated_or_refused_by_name(file: Path, name: str) -> None:
    for keys, functions in (
        (("odd",), {"x": ["sum"]}),
        (("k",), {"odd": ["min", "max", "count"]}),
        ((), {"odd": ["count"]}),
    ):
        if name in ODD:
            with pytest.raises(InputProblemError, match=r"a\.parquet: column 'odd' (is of|holds)"):
                summary(file, keys, functions)
            continue
        found = summary(file, keys, functions)
        assert (found.rows, found.odd) == (ROWS, {})
        if keys == ("odd",):
            assert found.groups is not None
            assert found.groups.height == (1 if name == "null" else 3)


@pytest.mark.parametrize("name", EVERY)
def test_a_summary_of_all_counts_what_it_cannot_compute(file: Path, name: str) -> None:
    found = aggregation_job.describe(summary(file, (), None))
    present = 0 if name == "null" else 3
    assert (found["odd"]["count"], found["odd"]["missing"]) == (present, ROWS - present)
    assert (found["odd"]["type"] == "other") == (name in ODD)
    assert found["x"]["sum"] == 10


@pytest.mark.parametrize("name", EVERY)
def test_training_uses_a_column_or_says_that_it_does_not(file: Path, name: str) -> None:
    told: list[str] = []
    frame = reading.read(Source((file,), "parquet"), (), told)
    assert frame.height == ROWS
    plan = features.learn(frame)
    assert "x" in plan.feature_names[-1]
    assert features.transform(frame, plan).shape[0] == ROWS
    used = any(column.name == "odd" for column in plan.columns)
    said = "odd" in plan.dropped or any("'odd' was left out" in text for text in told)
    assert used != said
    assert used or name in {*ODD, "null"}


@pytest.mark.parametrize("name", sorted(ODD))
def test_the_inbox_takes_a_file_over_as_it_is(
    file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del name
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    new = file.parent / "new"
    new.mkdir()
    content = file.read_bytes()
    file.rename(new / "a.parquet")
    request = JobRequest(
        submission_id="t",
        runs_dir=str(file.parent / "runs"),
        datasets_dir=str(file.parent),
        models_dir=str(file.parents[1] / "models"),
        code_version="test",
        parameters={"settle_seconds": 0, "stale_seconds": 60},
    )
    result = inbox_job.main(request, Reporter(file.parent / "runs"))
    (done,) = result["files"]
    assert (done["status"], done["rows"], done["columns"]) == ("done", ROWS, 3)
    assert Path(done["output"]).read_bytes() == content
    (warning,) = result["warnings"]
    assert "'odd' was taken over as it is, and only counted" in warning


def test_a_value_beyond_64_bits_far_behind_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregation_job, "BATCH_ROWS", 2)
    path = tmp_path / "a.parquet"
    values = pl.Series([1, 2, 3, 4, 2**63, 5], dtype=pl.UInt64)
    pl.DataFrame({"x": range(6), "h": values}).write_parquet(path)
    assert aggregation_job.describe(summary(path, (), None))["h"] == {
        "type": "other", "count": 6, "missing": 0,
    }  # fmt: skip
    with pytest.raises(InputProblemError, match="'h' holds 9223372036854775808, beyond 64-bit"):
        summary(path, ("h",), {})


def test_a_name_with_a_dot_is_one_name(tmp_path: Path) -> None:
    """To pyarrow it is a path into a struct."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1], "a.b": [2], "s": [{"b": 3}]}).write_parquet(path)
    for name in ("a", "a.b"):
        ((frame, unknown),) = parquet_tables.parts(path, 10, [name])
        assert (frame.columns, unknown) == ([name], {})


def test_parts_of_different_units_keep_their_nanoseconds(tmp_path: Path) -> None:
    files = []
    for number, unit in enumerate(("ns", "us", "ms")):
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table({"t": pa.array([211], pa.timestamp(unit))}), files[-1])
    frame = reading.read(Source(tuple(files), "parquet"))
    assert frame["t"].to_physical().to_list() == [211, 211_000, 211_000_000]
    for late in (dt.datetime(3000, 1, 1), dt.date(3000, 1, 1)):  # noqa: DTZ001
        pl.DataFrame({"t": [late]}).write_parquet(files[1])
        with pytest.raises(InputProblemError, match=r"'t' holds times to the nanosec.*1\.parquet"):
            reading.read(Source(tuple(files), "parquet"))
    pl.DataFrame({"t": [dt.date(1970, 1, 2)]}).write_parquet(files[1])
    frame = reading.read(Source(tuple(files), "parquet"))
    assert frame["t"].to_physical().to_list() == [211, 86_400_000_000_000, 211_000_000]
    pq.write_table(pa.table({"t": pa.array([211], pa.timestamp("us", "UTC"))}), files[1])
    with pytest.raises(InputProblemError, match="'t' is of type"):
        reading.read(Source(tuple(files), "parquet"))
