"""``process_large_csv``: right rows, exact accounts, told mistakes, nothing half done."""

import csv
import gzip
import io
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from celray_jobs import run_job_in, write_compressed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.csv import parsing as csv_parsing
from tasks.ray_jobs.csv import text as csv_text
from tasks.ray_jobs.csv.byte_ranges import Piece
from tasks.ray_jobs.csv.parsing import Form
from tasks.ray_jobs.large_csv import job as large_csv_job
from tasks.ray_jobs.protocol import (
    ENGINE_VARIABLE,
    REQUEST_VARIABLE,
    InputProblemError,
    JobRequest,
    decode,
)
from tasks.ray_jobs.tables.reading import MISSING
from tasks.schemas.data import transformations_from

Process = Callable[..., dict[str, Any]]


@pytest.fixture
def process(root: Path, one_process: pytest.MonkeyPatch) -> Process:  # noqa: ARG001 - sets up
    """Run the job in this process."""

    def run(file: str, output: str = "out.parquet", **transformations: object) -> dict[str, Any]:
        parameters = transformations_from(transformations).request(file, output).as_json()
        return run_job_in(root, large_csv_job.main, parameters)

    return run


def accounts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    read, written = result["rows_read"], result["rows_written"]
    filtered, rejected = result["rows_filtered"], result["rows_rejected"]
    assert read == written + filtered + rejected == result["total_rows_processed"]
    return read, written, filtered, rejected


def nothing_left(root: Path, output: str = "out.parquet") -> bool:
    return not [path for path in root.iterdir() if output in path.name]


@pytest.mark.parametrize("chunks", [1, 3, 40])
def test_what_callers_have_always_sent_gives_what_polars_alone_gives(
    process: Process, root: Path, chunks: int
) -> None:
    frame = pl.DataFrame(
        {
            "a": range(1000),
            "b": [i / 8 for i in range(1000)],
            "note": [f'he said "{i}",\nand more' if i % 3 else None for i in range(1000)],
        }
    )
    frame.write_csv(root / "in.csv")
    result = process(
        "in.csv", filter={"a": 99}, new_columns={"c": "df['a'] * df['b']"}, num_chunks=chunks
    )
    expected = frame.filter(pl.col("a") > 99).with_columns(c=pl.col("a") * pl.col("b"))
    assert_frame_equal(pl.read_parquet(root / "out.parquet"), expected)
    assert pq.read_table(root / "out.parquet").num_rows == 900
    assert accounts(result) == (1000, 900, 100, 0)
    keys = ("status", "input_file", "output_file", "total_rows_processed", "num_chunks")
    assert [result[key] for key in keys] == [
        "success", str(root / "in.csv"), str(root / "out.parquet"), 1000, chunks,
    ]  # fmt: skip
    assert not result["warnings"]


def test_derived_columns_are_made_in_the_callers_order(process: Process, root: Path) -> None:
    """Also on the way to the job, and for what is known to be the same request."""
    (root / "in.csv").write_text("a\n1\n2\n")
    first = process("in.csv", new_columns={"z": "a * 10", "b": "z + 1", "a": "a + 1"})
    assert pl.read_parquet(root / "out.parquet").to_dict(as_series=False) == {
        "a": [2, 3], "z": [10, 20], "b": [11, 21],
    }  # fmt: skip
    assert list(first["columns"]) == ["a", "z", "b"]
    parameters = {"new_columns": {"z": "a", "b": "a"}}
    sent = JobRequest("t", "r", "d", "m", code_version="test", parameters=parameters)
    assert list(json.loads(sent.encode())["parameters"]["new_columns"]) == ["z", "b"]
    one = process("in.csv", new_columns={"x": "a", "a": "x + 1"})
    other = process("in.csv", new_columns={"a": "a + 1", "x": "a"})
    assert (one["reused"], other["reused"]) == (False, False)
    assert pl.read_parquet(root / "out.parquet")["x"].to_list() == [2, 3]


@pytest.mark.parametrize(
    ("mebibytes", "wanted", "cpus", "count"),
    [
        (1, None, 4, 1),
        (10, None, 4, 3),
        (40, None, 4, 12),
        (406, None, 2, 34),
        (406, None, 16, 64),
        (40, 1, 4, 4),
        (40, 7, 4, 7),
    ],
)
def test_a_file_is_cut_so_that_all_cpus_have_as_much(
    mebibytes: int, wanted: int | None, cpus: int, count: int
) -> None:
    assert large_csv_job.range_count(mebibytes << 20, wanted, cpus) == count


def test_what_numbers_cannot_be(process: Process, root: Path) -> None:
    (root / "in.csv").write_text("a,b\n1,0\n")
    formulas = {"q": "a / b", "l": "log(b)", "r": "sqrt(0 - a)", "z": "b / b", "p": "a ** 2"}
    process("in.csv", new_columns=formulas)
    found = pl.read_parquet(root / "out.parquet").row(0, named=True)
    assert [found[name] for name in "qlrzp"] == [math.inf, -math.inf, None, None, 1.0]
    assert isinstance(found["p"], float)


@pytest.mark.parametrize("chunks", [1, 40])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["12345678901234567891", "12345678901234567890"], "text"),
        (["9007199254740993", "1.5"], "text"),
        (["-9007199254740993", "1.5", ""], "text"),
        (["1" * 400, "1"], "text"),
        (["9007199254740992", "1.5"], "number"),
        (["1e300", "2"], "number"),
        (["9223372036854775807", "-9223372036854775808"], "integer"),
    ],
)
def test_long_whole_numbers_keep_their_digits(
    process: Process, root: Path, chunks: int, values: list[str], kind: str
) -> None:
    few = [f"{number},x" for number in range(2000)]
    (root / "in.csv").write_text("\n".join(["id,note", *few, *(f"{v},y" for v in values)]) + "\n")
    result = process("in.csv", num_chunks=chunks)
    assert result["columns"]["id"] == kind
    if kind == "text":
        there = pl.read_parquet(root / "out.parquet").filter(pl.col("note") == "y")["id"]
        assert there.to_list() == [value or None for value in values]
    declared = process("in.csv", "typed.parquet", num_chunks=chunks, schema={"id": "number"})
    assert (declared["columns"]["id"], declared["rows_rejected"]) == ("number", 0)


def test_an_identical_request_returns_what_is_there(process: Process, root: Path) -> None:
    (root / "in.csv").write_text("a,b\n1,2\n3,4\n")
    first = process("in.csv", filter="a > 1")
    assert not first["reused"]
    written = (root / "out.parquet").stat()  # its access time changes as it is read
    again = process("in.csv", filter="a > 1")
    assert again == {**first, "reused": True}
    there = (root / "out.parquet").stat()
    assert (there.st_ino, there.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    # Other rows, another question, or a file that somebody changed: it is made again.
    assert not process("in.csv", filter="a > 2")["reused"]
    (root / "out.parquet").write_bytes(b"x")
    assert not process("in.csv", filter="a > 2")["reused"]
    (root / "in.csv").write_text("a,b\n1,2\n3,5\n")
    assert not process("in.csv", filter="a > 2")["reused"]
    assert pl.read_parquet(root / "out.parquet").rows() == [(3, 5)]
    manifest = json.loads((root / "out.parquet.manifest.json").read_text())
    assert manifest["inputs"][0]["bytes"] == 12
    assert sorted(path.name for path in root.iterdir()) == [
        "in.csv", "out.parquet", "out.parquet.manifest.json",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_compressed_files_are_read_alike(process: Process, root: Path, suffix: str) -> None:
    text = "a,b\n" + "".join(f'{i},"x\n{i}"\n' for i in range(5000))
    path = root / f"in.csv{suffix}"
    write_compressed(path, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_csv_job, "RANGE_BYTES", 4096)
        result = process(path.name, filter={"a": 4})
    assert accounts(result) == (5000, 4995, 5, 0)
    assert result["num_chunks"] > 10
    got = pl.read_parquet(root / "out.parquet")
    assert got["b"].to_list() == [f"x\n{i}" for i in range(5, 5000)]


def test_a_cut_archive_is_told(process: Process, root: Path) -> None:
    whole = gzip.compress(b"a,b\n" + os.urandom(500_000).hex().encode().replace(b"7", b",1\n"))
    (root / "in.csv.gz").write_bytes(whole[:-2000])
    with pytest.raises(InputProblemError, match="cannot be decompressed"):
        process("in.csv.gz")
    (root / "in.csv.zst").write_bytes(b"no archive at all")
    with pytest.raises(InputProblemError, match="cannot be decompressed"):
        process("in.csv.zst")
    assert nothing_left(root)


def test_bad_rows_go_to_the_rejects_file_with_number_and_reason(
    process: Process, root: Path
) -> None:
    rows = [f"{i},{i}.5,2026-01-{i % 28 + 1:02}" for i in range(1, 2001)]
    rows[9] = "x10,1.5,2026-01-01"
    rows[1500] = "1501,1.5"
    rows[1600] = "1601,1.5,2026-01-01,more"
    rows[1700] = "1701,1.5,soon"
    data = ("n,v,day\n" + "\n".join(rows) + "\n").encode()
    data = data.replace(b"1900,1900.5", b"1900,\xff") + b"2001,a\0b,2026-01-01\n"
    (root / "in.csv").write_bytes(data)
    schema = {"n": "integer", "v": "number", "day": "date"}
    result = process("in.csv", schema=schema, num_chunks=7, filter="n <= 1000")
    assert accounts(result) == (2001, 999, 996, 6)
    rejects = pl.read_csv(result["rejects_file"])
    assert rejects.select("row", "column", "reason").rows() == [
        (10, "n", "'x10' is not a 64-bit whole number"),
        (1501, "", "2 fields, not 3"),
        (1601, "", "4 fields, not 3"),
        (1701, "day", "'soon' is not a date such as 2026-01-31"),
        (1900, "", "not UTF-8; where the whole file is not, say its encoding"),
        (2001, "", "a NUL byte"),
    ]
    assert json.loads(rejects["record"][1]) == ["1501", "1.5"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("7", "row 51: 1 field, not 2. Correct the file"),
        ("7,8,9", "row 51: 3 fields, not 2"),
        ("x,8", "row 51: column 'a': 'x' is not a 64-bit whole number"),
        ('7,"8', "never closed"),
    ],
)
def test_a_bad_row_fails_the_run_where_no_rejects_are_wanted(
    process: Process, root: Path, line: str, words: str
) -> None:
    lines = [f"{i},{i}" for i in range(50)] + [line] + [f"{i},{i}" for i in range(50)]
    (root / "in.csv").write_text("a,b\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputProblemError) as caught:
        process("in.csv", schema={"a": "integer"}, bad_rows="fail", num_chunks=9)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert nothing_left(root)


def test_types_are_widened_by_a_value_far_behind(process: Process, root: Path) -> None:
    lines = ["i,f,t,e,m,none"] + [f"{i},{i},{i},,," for i in range(60_000)]
    lines[50_000] = "50000,0.5,later,2026-01-01,-1,"
    (root / "in.csv").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "SAMPLE_BYTES", 2000)
        patch.setattr(csv_text, "SAMPLE_POINTS", 0)
        result = process("in.csv", num_chunks=6)
    assert result["columns"] == {
        "i": "integer", "f": "number", "t": "text", "e": "date", "m": "integer", "none": "integer",
    }  # fmt: skip
    got = pl.read_parquet(root / "out.parquet")
    assert got.height == 60_000
    assert got["t"][0] == "0"
    assert got["f"].sum() == pytest.approx(sum(range(60_000)) - 49_999 + 0.5)


DATES = {
    "2026-02-01": "2026-02-01",
    "01/02/2026": None,
    "12/31/2026": None,
    "2026/02/01": None,
    "20260201": None,
    "2026-2-1": None,
    "2026-02-30": None,
    "2026-02-01T10:00:00": None,
}
MOMENTS = {
    "2026-02-01": "2026-02-01T00:00:00",
    "2026-02-01 10:00": "2026-02-01T10:00:00",
    "2026-02-01T10:00:00": "2026-02-01T10:00:00",
    "2026-02-01T10:00:00Z": "2026-02-01T10:00:00",
    "2026-02-01 10:00:00.5+02:00": "2026-02-01T08:00:00.500000",
    "2026-02-01T22:00:00.123456789-0230": "2026-02-02T00:30:00.123456",
    "2026-02-01T10:00:00+02": "2026-02-01T08:00:00",
    "2026-02-01T24:00:00": None,
    "2026-02-01T10:00:60": None,
    "2026-02-01T10:00:00 CET": None,
    "01/02/2026 10:00": None,
    "10:00": None,
}


@pytest.mark.parametrize("chunks", [1, 2, 100])
@pytest.mark.parametrize(("kind", "meant"), [("date", DATES), ("datetime", MOMENTS)])
def test_a_date_means_the_same_beside_whatever_neighbours(
    process: Process, root: Path, kind: str, meant: dict[str, str | None], chunks: int
) -> None:
    for values in (list(meant), list(reversed(meant))):
        lines = "".join(f"{value},{n}\n" for n, value in enumerate(values))
        (root / "in.csv").write_text(f"v,n\n{lines}")
        result = process("in.csv", schema={"v": kind}, num_chunks=chunks)
        got = pl.read_parquet(root / "out.parquet")
        there = {values[n]: v.isoformat() for v, n in got.rows()}
        assert there == {value: read for value, read in meant.items() if read}
        rejects = pl.read_csv(result["rejects_file"])
        assert rejects["column"].unique().to_list() == ["v"]
        assert [values[row - 1] for row in rejects["row"]] == [v for v in values if v not in there]


@pytest.mark.parametrize(
    ("usual", "odd", "kind"),
    [
        ("2026-02-01", "01/02/2026", "text"),
        ("2026-02-01", "2026-02-01T10:00:00", "datetime"),
        ("2026-02-01", "2026-02-01T10:00:00Z", "text"),
        ("2026-02-01T10:00:00", "2026-02-01T10:00:00Z", "text"),
        ("2026-02-01T10:00:00Z", "2026-02-01T10:00:00", "text"),
        ("2026-02-01T10:00:00Z", "2026-02-01 10:00:00.5+01:00", "datetime"),
        ("2026-02-01T10:00:00", "2026-02-01 10:00", "datetime"),
    ],
)
def test_odd_dates_far_behind_decide_the_type_whatever_the_chunks(
    process: Process, root: Path, usual: str, odd: str, kind: str
) -> None:
    values = [odd if 200 <= n < 220 else usual for n in range(300)]
    (root / "in.csv").write_text("v,n\n" + "".join(f"{v},{n}\n" for n, v in enumerate(values)))
    found = []
    for chunks in (1, 7, 900):  # with 900 each row is alone
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_text, "SAMPLE_BYTES", 2000)
            patch.setattr(csv_text, "SAMPLE_POINTS", 0)
            result = process("in.csv", num_chunks=chunks)
        assert (result["columns"]["v"], result["rows_written"]) == (kind, 300)
        found.append(pl.read_parquet(root / "out.parquet")["v"])
    assert found[0].to_list() == found[1].to_list() == found[2].to_list()
    assert not found[0].has_nulls()
    if kind == "text":
        assert found[0].to_list() == values


def test_an_empty_field_is_no_bad_number_beside_one(process: Process, root: Path) -> None:
    (root / "in.csv").write_text("a,d,k\n,,1\n1,2026-01-01,2\nx,,3\n")
    schema = {"a": "integer", "d": "date"}
    result = process("in.csv", schema=schema, missing=["NA"])
    assert accounts(result) == (3, 2, 0, 1)
    assert pl.read_parquet(root / "out.parquet")["a"].to_list() == [None, 1]


@pytest.mark.parametrize(
    "formula",
    [
        "contains(n, 'x')", "n == 'x'", "n in ('x', 'y')", "n > 3", "n != m", "n > '2026-01-31'",
        "n > d", "n", "not n", "n and b", "year(n) == 2026", "hour(n) < 5", "abs(n) > 1",
        "n - d > 1", "d - n > 1", "n - m > 1", "n + 'x' == 'yx'", "n + 1 == 2", "-n < 0",
        "length(n) > 1", "substring(n, 0, 2) == 'ab'", "round(n, 2) > 1", "sqrt(n) > 1",
        "number(n) > 1", "text(n) == 'x'", "date(n) > d", "concat(n, 'x') == 'x'", "if(n, b, n)",
        "coalesce(n, m)", "max(n, m) > 2", "min(n, d) > d", "2 ** n > 1", "n // 2 == 1",
    ],
)  # fmt: skip
def test_a_column_without_a_value_fits_any_formula(
    process: Process, root: Path, formula: str
) -> None:
    (root / "in.csv").write_text("n,m,d,b\n,,2026-01-01,true\n,,2026-01-02,true\n")
    assert accounts(process("in.csv", filter=formula)) == (2, 0, 2, 0)
    process("in.csv", new_columns={"z": formula, "y": "coalesce(z, z)"})
    got = pl.read_parquet(root / "out.parquet")
    if not formula.startswith("min"):  # of those that are not missing
        assert got["z"].to_list() == got["y"].to_list() == [None, None]


def test_missing_values_and_names_are_those_of_csv_tools(process: Process, root: Path) -> None:
    text = '\ufeffa.b,"unit, price",,x y\r\nNA,1,,"NULL"\r\n2,#N/A,u,\r\n\r\n-999,3,v,w'
    (root / "in.csv").write_bytes(text.encode())
    result = process(
        "in.csv", "o.csv", new_columns={"k": "a.b + `unit, price`", "l": "is_missing(`x y`)"}
    )
    assert accounts(result) == (3, 3, 0, 0)
    rows = list(csv.reader((root / "o.csv").open()))
    assert rows == [
        ["a.b", "unit, price", "column_3", "x y", "k", "l"],
        ["", "1", "", "", "", "true"],
        ["2", "", "u", "", "", "true"],
        ["-999", "3", "v", "w", "-996", "false"],
    ]
    result = process("in.csv", "p.csv", missing=["-999", ""], filter="is_missing(a.b)")
    assert accounts(result)[:2] == (3, 1)


def test_columns_can_be_chosen_and_rows_may_all_be_filtered_out(
    process: Process, root: Path
) -> None:
    (root / "in.csv").write_text("a;b\n1;x\n2;y\n")
    result = process(
        "in.csv", separator=";", filter="a > 5", new_columns={"c": "a * 2"}, columns=["c", "b"]
    )
    assert accounts(result) == (2, 0, 2, 0)
    got = pl.read_parquet(root / "out.parquet")
    assert (got.columns, got.height) == (["c", "b"], 0)
    assert process("in.csv", "o.csv", separator=";", columns=["b"])["rows_written"] == 2
    assert (root / "o.csv").read_text() == "b\nx\ny\n"


def test_one_column_alone_keeps_its_missing_values(process: Process, root: Path) -> None:
    (root / "in.csv").write_text('a,b\n1,\n,"\r"\n3,NA\n,x\n')
    for column in ("a", "b"):
        process("in.csv", f"{column}.csv", columns=[column], num_chunks=2)
        process("in.csv", f"{column}.parquet", columns=[column])
        assert process(f"{column}.csv", f"again-{column}.parquet")["rows_read"] == 4
        again = pl.read_parquet(root / f"again-{column}.parquet")
        assert_frame_equal(again, pl.read_parquet(root / f"{column}.parquet"))


BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "is empty (0 bytes)"),
    (b"\n\n", "has no header line"),
    (b"a,b\n", "has a header and no rows"),
    (b"a,b", "has a header and no rows"),
    (b"a,a\n1,2\n", "column 'a' occurs 2 times"),
    (b"a,\xe9\n1,2\n", "header: byte 0xe9 is not UTF-8"),
    (b"a,b\n1,\0\n", "NUL byte"),
    (b"a,b\r1,2\r3,4\r", "CR alone"),
    (b"a,b\n1,\xff\n", "row 1: not UTF-8"),
    (b"a,b\n1,2\n3\n", "row 2: 1 field, not 2"),
    (b"a,b\nx,2\n", "'>' cannot compare text with integer"),
]


@pytest.mark.parametrize(("content", "words"), BAD_FILES)
def test_bad_files_are_one_readable_error_and_leave_nothing(
    process: Process, root: Path, content: bytes, words: str
) -> None:
    (root / "in.csv").write_bytes(content)
    with pytest.raises(InputProblemError) as caught:
        process("in.csv", filter={"a": 0})
    assert words in str(caught.value)
    assert nothing_left(root)


def test_a_gigabyte_in_one_line_is_refused_in_little_memory(process: Process, root: Path) -> None:
    with (root / "line.csv").open("wb") as stream:
        stream.write(b"a,b\n1,")
        stream.truncate(1 << 30)  # sparse: NUL bytes, but nobody gets that far
        stream.seek(6)
        stream.write(b"x" * (2 << 20))
    with (root / "header.csv").open("wb") as stream:
        stream.write(b"a" * (2 << 20))
        stream.truncate(1 << 30)
    with pytest.raises(InputProblemError, match="no line end in its first 1 MiB"):
        process("header.csv")
    with pytest.raises(InputProblemError, match="longer than 16 MiB"):
        process("line.csv")
    assert nothing_left(root)


def test_a_file_of_somebody_elses_is_not_overwritten(process: Process, root: Path) -> None:
    (root / "in.csv").write_text("a\n1\n")
    (root / "out.parquet").write_text("precious")
    with pytest.raises(InputProblemError, match="celray did not write it"):
        process("in.csv")
    assert (root / "out.parquet").read_text() == "precious"
    assert process("in.csv", overwrite=True)["rows_written"] == 1
    with pytest.raises(InputProblemError, match="is the input file itself"):
        process("in.csv", "in.csv", overwrite=True)


@pytest.mark.parametrize("name", ["out.parquet.rejects.csv", "out.parquet.manifest.json"])
def test_what_lies_beside_the_output_is_not_overwritten_either(
    process: Process, root: Path, name: str
) -> None:
    (root / "in.csv").write_text("a,b\n1,2\nx,3\n")
    (root / name).write_text('{"mine": 1}')
    with pytest.raises(InputProblemError, match=f"{name} is there, and celray did not write it"):
        process("in.csv", schema={"a": "integer"})
    assert (root / name).read_text() == '{"mine": 1}'
    assert process("in.csv", schema={"a": "integer"}, overwrite=True)["rows_rejected"] == 1
    assert process("in.csv")["rows_rejected"] == 0  # what celray wrote makes way
    assert not (root / "out.parquet.rejects.csv").exists()


def test_a_manifest_of_somebody_elses_allows_nothing(process: Process, root: Path) -> None:
    (root / "in.csv").write_text("a\n1\n")
    (root / "out.parquet").write_text("precious")
    (root / "out.parquet.manifest.json").write_text('{"mine": 1}')
    with pytest.raises(InputProblemError, match="celray did not write it"):
        process("in.csv")
    assert (root / "out.parquet").read_text() == "precious"


def test_rejects_are_no_input_of_their_own_output(process: Process, root: Path) -> None:
    (root / "out.csv.rejects.csv").write_text("a\n1\n")
    with pytest.raises(InputProblemError, match=r"go to out.csv.rejects.csv, which is the input"):
        process("out.csv.rejects.csv", "out.csv", overwrite=True)
    assert (root / "out.csv.rejects.csv").read_text() == "a\n1\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"filtre": {}}, "unknown key 'filtre'; did you mean 'filter'"),
        ({"num_chunks": 0}, "transformations.num_chunks"),
        ({"filter": {"a": math.inf}}, "transformations.filter.a: inf cannot be compared with"),
        ({"separator": ";;"}, "one ASCII character"),
        ({"schema": {"a": "float"}}, "transformations.schema.a"),
        ({"new_columns": {"a": 5}}, "got 5"),
    ],
)
def test_wrong_transformations_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        transformations_from(changes)
    assert words in str(caught.value)


# -- the job as a process of its own ---------------------------------------------------------------

LIMIT_BYTES = 256 << 20


def limited() -> None:
    """One CPU, and so one process; and all the memory that it may write to."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", [b'%d,%d.25,"text, ""%d"""\n', b'"%d","%d","""%d"""\n'])
def test_a_file_four_times_the_memory_limit_goes_through(root: Path, form: bytes) -> None:
    """Also one of little but quotes."""
    block = b"".join(form % (i, i % 977, i % 10) for i in range(200_000))
    times = -(-4 * LIMIT_BYTES // len(block))
    with (root / "in.csv").open("wb") as stream:
        stream.write(b"a,b,c\n")
        for _ in range(times):
            stream.write(block)
    change = {"filter": {"a": 99_999}, "new_columns": {"d": "a * b"}}
    parameters = transformations_from(change).request("in.csv", "out.parquet").as_json()
    folders = {f"{name}_dir": str(root) for name in ("runs", "datasets")}
    folders["models_dir"] = str(root / "models")
    request = JobRequest("limited", code_version="test", parameters=parameters, **folders)
    environment = {
        "PYTHONPATH": str(Path(large_csv_job.__file__).parents[2]),
        ENGINE_VARIABLE: "plain",
        REQUEST_VARIABLE: request.encode(),
    }
    said = subprocess.run(
        [sys.executable, "-m", "ray_jobs", "process_csv"],
        env=environment, preexec_fn=limited, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = list(decode(said.stdout))[-1]
    assert last["type"] == "result", said.stdout[-500:] + said.stderr[-500:]
    assert accounts(last["result"]) == (200_000 * times, 100_000 * times, 100_000 * times, 0)
    (root / "in.csv").unlink()


# -- both ways of parsing --------------------------------------------------------------------------

VALUE = st.sampled_from(["", "1", "-2", "3.5", "NA", "x", 'q"q', "a,b", "l\nm", " 7", "é", "true"])


@given(
    rows=st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=20),
    blank=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_both_ways_of_parsing_give_the_same_table(
    rows: list[tuple[str, str, str]], blank: bool, end: str
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows(rows)
    data = out.getvalue().encode() + (end.encode() if blank else b"")
    marks, regular = byte_ranges.toggles(data, ord(","))
    schema = {"a": pl.String(), "b": pl.String(), "c": pl.String()}
    form = Form(schema, frozenset(), ("", "NA"))
    block = csv_parsing.parse(Piece(0, len(data), data, marks, regular), form)
    slowly = csv_parsing._parse_slowly(data, form)
    assert block.rows == slowly.rows == len(rows)
    assert_frame_equal(block.frame, slowly.frame)
    expected = [tuple(None if v in {"", "NA"} else v for v in row) for row in rows]
    assert block.frame.rows() == expected


@pytest.mark.parametrize("blank", ["", "\n"])
def test_line_ends_within_quotes_are_kept(process: Process, root: Path, blank: str) -> None:
    values = ["x", "y\r", "y\r\n", "\r", "p\rq", "5\r", "6\r"]
    rows = "".join(f'"{value}","{value}"\n' for value in values)
    (root / "in.csv").write_bytes(f"a,b\n{rows}{blank}".encode())
    process("in.csv")
    (root / "five.csv").write_bytes(f'a,b\n1,"5\r"\n{blank}'.encode())
    assert process("five.csv", "five.parquet")["columns"]["b"] == "text"
    assert pl.read_parquet(root / "five.parquet")["b"].to_list() == ["5\r"]
    got = pl.read_parquet(root / "out.parquet")
    assert [got[name].to_list() for name in "ab"] == [values, values]


FIELDS = [
    "",
    '""',
    "NA",
    '"NA"',
    "nan",
    "NaN",
    "null",
    "1",
    '"2"',
    "-3",
    "2.5",
    "inf",
    "x",
    '"a,b"',
]


@given(
    rows=st.lists(st.tuples(*[st.sampled_from(FIELDS)] * 3), min_size=1, max_size=6),
    missing=st.sampled_from([("",), (), ("", "NA"), ("NA", "nan", "NaN", "null"), tuple(MISSING)]),
)
def test_missing_values_are_the_same_before_parsing_and_after(
    rows: list[tuple[str, ...]], missing: tuple[str, ...]
) -> None:
    data = "".join(",".join(row) + "\n" for row in rows).encode()
    schema = {"a": pl.Int64(), "b": pl.Float64(), "c": pl.String()}
    form = Form(schema, frozenset(), missing)
    quickly = form._quickly(data)
    if quickly is not None:
        assert_frame_equal(quickly, form.read(data, form.schema))


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("missing", [(), ("",), ("NA",), tuple(MISSING)])
@pytest.mark.parametrize("value", ["5", "2.5", "true", "2020-01-01", "2020-01-01 10:00:00", "x"])
def test_a_short_record_is_noticed_whatever_the_type_it_lacks(
    value: str, missing: tuple[str, ...], quick: bool
) -> None:
    dtype = csv_parsing.narrowest(pl.Series([value]), Form({}, frozenset(), ()))
    schema = {"a": pl.Int64(), "b": dtype}
    data = f"1,{value}\n2\n\n3,{value}\n".encode()
    piece = Piece(0, len(data), data, *byte_ranges.toggles(data, ord(",")))
    block = csv_parsing.parse(piece, Form(schema, frozenset(schema), missing, quick=quick))
    assert block.frame["a"].to_list() == [1, 3]
    assert block.frame["b"].dtype == dtype
    assert (block.rows, [reject.row for reject in block.rejects]) == (3, [1])


@pytest.mark.parametrize(
    ("missing", "quick"),
    [(tuple(MISSING), True), (("-999",), False), (("true",), False), (("NA", "2020-01-01"), False)],
)
def test_a_missing_value_that_is_a_value_is_told_before_parsing(
    missing: tuple[str, ...], quick: bool
) -> None:
    form = Form({"a": pl.Int64()}, frozenset(), missing)
    assert csv_parsing.quick(b"1\n2\n", form) is quick


VALUES = [
    "5", "-7", "2.5", "1e300", "nan", "true", "2020-01-01", "2020-01-01 10:00", "NA", "", "x",
    '"a,b"', "12345678901234567890", "0.10", "\N{LATIN SMALL LETTER E WITH ACUTE}",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(VALUES), min_size=1, max_size=3),
    st.sampled_from(VALUES),
    st.sampled_from([tuple(MISSING), ("",), ("NA",), (), ("", "5")]),
)
@example(["5"], "", ("NA",))
@settings(deadline=None)
def test_the_first_records_decide_no_type_that_a_later_one_does_not_have(
    first: list[str], later: str, missing: tuple[str, ...]
) -> None:
    before = "".join(f"1,{value}\n" for value in first)
    many = before * (csv_parsing.FEW_BYTES // len(before.encode()) + 1)
    sample = f"{many}2,{later}\n3,{first[0]}\n".encode()
    form = Form({}, frozenset(), missing)
    fitted = csv_parsing.fitted(sample, ["a", "b"], form)
    assert fitted.schema == csv_parsing.infer(sample, ["a", "b"], form)
    assert fitted.quick == csv_parsing.quick(sample, fitted)
