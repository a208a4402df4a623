"""A code that looks like a number is kept as it is written, by whichever task reads it."""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import ALL, TABLES, Place, Task, place_in
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.csv import codes as csv_codes
from tasks.ray_jobs.csv import parsing as csv_parsing
from tasks.ray_jobs.csv.byte_ranges import Piece
from tasks.ray_jobs.csv.parsing import Form
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.prediction import job as prediction_job
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables import reading

CODES = ["02494", "+4915112345678", "1E05", "0047583311587E590003", "007", "-05", "12e4", "0E8",
         " 007", "  +1", "1E999", "00.5", "123E4"]  # fmt: skip
NUMBERS = ["0", "7", "-7", "0.5", "-0.25", "1.50", ".5", "5.", "1.5e-05", "1e+16", "1e16", "1.0E10",
           "2E-7", "-3e22", " 7", "1.5E300", "9007199254740991"]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_code_makes_its_column_text_wherever_it_stands(tmp_path: Path, code: str) -> None:
    for number, rows in enumerate(([code], ["1", "2.5", code], ["1"] * 200_000 + [code])):
        path = tmp_path / f"{number}.csv"
        path.write_text("c,n\n" + "".join(f"{row},1\n" for row in rows))
        frame = reading.read(Source((path,), "csv"))
        assert frame["c"][-1] == code.strip()
        assert frame["n"].dtype == pl.Int64
        summary = aggregation_job.summarise(
            aggregation_job.Wanted(("c",), {"n": ["sum"]}), aggregation_job.Item(path.name, path)
        )
        assert summary.kinds == {"c": "text", "n": "integer"}
        assert summary.groups is not None
        assert summary.groups["c"].n_unique() == len(set(rows))


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_writer_of_numbers_writes_is_a_number(number: str) -> None:
    assert csv_parsing.narrowest(pl.Series([number]), Form({}, frozenset(), ())).is_numeric()


FIELD = st.sampled_from([*CODES, *NUMBERS, "", "x", '"02"', '"7"', '"a,05"', '"\n07"', "e1", "5e"])


@given(st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=12), st.integers(4, 40))
@example([("-0", "+", "0")], 4)
@settings(max_examples=300, deadline=None)
def test_a_quick_look_misses_no_code(rows: list[tuple[str, str, str]], size: int) -> None:
    """What is found in the bytes of a piece, in slices of any size, is what its values show."""
    data = "".join(",".join(row) + "\n" for row in rows).encode()
    piece = Piece(0, len(data), data, *byte_ranges.toggles(data, ord(",")))
    text = Form(dict.fromkeys("abc", pl.String()), frozenset(), ()).read(
        data, dict.fromkeys("abc", pl.String())
    )
    for name in "abc":
        values = text[name].drop_nulls()
        if values.is_empty() or (values.cast(pl.Float64, strict=False).is_null()).any():
            continue
        schema = {other: pl.String() for other in "abc"} | {name: pl.Float64()}
        form = Form(schema, frozenset(), ("",))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_codes, "SLICE_BYTES", size)
            needed = csv_parsing.parse(piece, form).needed
        holds = any(looks_like_a_code(value) for value in values if value)
        assert bool(needed) == holds, (name, values.to_list())


def looks_like_a_code(value: str) -> bool:
    """Return it anew: by the text alone, value by value."""
    value = value.strip()
    if re.fullmatch(r"-?[1-9]e(1[6-9]|[2-9][0-9])", value):
        return False
    digits = value.removeprefix("-")
    if value.startswith("+") or re.match("0[0-9]", digits) or "E999" in value:
        return True
    return re.fullmatch("[0-9]+[eE][0-9]+", digits) is not None


def test_parts_of_a_dataset_agree_on_what_is_a_code(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("zip\n02494\n")
    (tmp_path / "1.csv").write_text("zip\n12010\n")
    files = (tmp_path / "0.csv", tmp_path / "1.csv")
    assert reading.read(Source(files, "csv"))["zip"].to_list() == ["02494", "12010"]


# -- what is said of it ----------------------------------------------------------------------------

#: As in three public reports: codes, and the dates of one month as the US write them.
TABLE = "zip,phone,plate,code,us,eu,iso,name,a,b,target\n" + "".join(
    f"{'02494' if i == 3 else 12010 + i},+49151{i:04},{i % 9}E05,{i % 40:03},"
    f"01/{i % 12 + 1:02}/2024,"
    f"{i % 12 + 1}.1.2024,2024-01-{i % 12 + 1:02},K{i % 5}A,{i}.5,{i % 7},{i % 2}\n"
    for i in range(60)
)
KEPT = {"zip": "02494", "phone": "+491510000", "plate": "0E05", "code": "000", "us": "01/01/2024",
        "eu": "1.1.2024"}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path / "place") as made:
        (made.datasets / "codes.csv").write_text(TABLE)
        yield made


@pytest.mark.parametrize("task", [task for task in ALL if task != Task.PREDICT])
def test_every_task_keeps_codes_and_dates_as_written_and_says_so(place: Place, task: str) -> None:
    every = {"aggregations": None} if task == Task.AGGREGATE else {}
    result = place.call(task, "codes.csv", **every)
    said = "\n".join(result["warnings"])
    for name, value in KEPT.items():
        row = 4 if name == "zip" else 1
        assert said.count(f"column {name!r} is text: {value!r} (codes.csv, row {row})") == 1, said
    for name in ("iso", "name", "a"):
        assert f"column {name!r} is text" not in said


@pytest.mark.parametrize(
    ("rows", "value", "row"),
    [
        (["2024-03-01", "31.12.2024", "1.4.2024"], "31.12.2024", 2),
        (["", "12", "7", "007", "08"], "007", 4),
        (["12345678901234567890", "1"], "12345678901234567890", 1),
    ],
)
def test_what_is_said_names_the_first_such_value_and_its_row(
    tmp_path: Path, rows: list[str], value: str, row: int
) -> None:
    (tmp_path / "a.csv").write_text("c,n\n" + "".join(f"{value},1\n" for value in rows))
    told: list[str] = []
    reading.read(Source((tmp_path / "a.csv",), "csv"), warnings=told)
    (line,) = told
    assert line.startswith(f"column 'c' is text: {value!r} (a.csv, row {row}) ")


def test_a_date_of_a_prediction_is_read_as_iso_has_it_or_refused() -> None:
    given = pl.Series(["2024-02-01", " 2024-02-01T10:00+02:00 ", None])
    moments = [dt.datetime(2024, 2, 1), dt.datetime(2024, 2, 1, 8), None]  # noqa: DTZ001 - UTC
    assert prediction_job._moments(given).to_list() == moments
    with pytest.raises(InputProblemError, match="'02/01/2024' is not a date"):
        prediction_job._conform(pl.Series("d", ["02/01/2024"]), "date", "f.csv")


def test_the_task_itself_takes_what_says_how_csv_is_written(place: Place) -> None:
    (place.datasets / "said.csv").write_text("zip;n\n02494;1\nNA;2\n")
    result = place.local.run(
        Task.AGGREGATE, data_sources=["said.csv"], output_path="said.parquet", group_by=["zip"],
        schema={"zip": "text"}, missing=[""], separator=";",
    )  # fmt: skip
    assert result["warnings"] == []
    rows = pl.read_parquet(place.datasets / "said.parquet").rows()
    assert [row[0] for row in rows] == ["02494", "NA"]


@pytest.mark.parametrize("task", TABLES)
def test_training_and_predictions_take_what_says_how_csv_is_written(
    place: Place, task: str
) -> None:
    """``NA`` is Namibia, the code is one, and so the number declared."""
    rows = "".join(
        f"{i};{i % 7};2024-01-{i % 28 + 1:02};{('NA', 'DE')[i % 2]};{i % 40:03};{i % 9:03}\n"
        for i in range(80)
    )
    (place.datasets / "said.csv").write_text("a;b;day;target;code;n\n" + rows)
    said: dict[str, Any] = {"separator": ";", "missing": [""]}
    given = place.arguments(task, "said.csv")
    if task == Task.PREDICT:
        given |= said
    else:
        said["schema"] = {"n": "integer", "b": "text"}
    if task == Task.RETRAIN:
        text = 'schema = {n = "integer", b = "text"}\nmissing = [""]\nseparator = ";"\n'
        with (place.root / "models/registry/m.toml").open("a") as entry:
            entry.write(text)
    for name in ("model_config", "search_config"):
        if name in given:
            given[name] = {**given[name], **said}
    result = place.local.run(task, **given)
    assert result["status"] == "success", result
    account = result["models"][0] if task == Task.RETRAIN else result
    assert (account["rows_read"], account["left_out"][:0]) == (80, [])
    assert not [one for one in account["left_out"] if one["reason"] == "it has no target"]
    if task == "distributed_training":
        assert result["classes"] == ["DE", "NA"]
        (told,) = [text for text in result["warnings"] if "is text" in text]
        assert told.startswith("column 'code' is text: '000' (said.csv, row 1)")
        (place.datasets / "said.csv").write_text("a;b;day;target;code;n\n" + rows + "x;1;;NA;1;y\n")
        with pytest.raises(InvalidArgumentsError, match="row 81: column 'n': 'y' is not a 64-bit"):
            place.local.run(task, **given)
