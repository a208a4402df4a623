"""Any table, however it is written, and any bytes: the same rows to every task, or a named error.

The kind: what one reader drops, joins or reads otherwise, without a word. Held against what was
written, Python's csv module and polars; where DuckDB is installed (the long form), against it too.
``.ci/test-long`` runs it with ever new seeds and ``CELRAY_FUZZ_EXAMPLES`` for an hour.
"""

import csv
import datetime as dt
import importlib.util
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_csv import converted, is_kept, records, summary, summary_of_ranges, table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.protocol import InputProblemError

EXAMPLES = int(os.environ.get("CELRAY_FUZZ_EXAMPLES", "40"))
ANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# -- any table, written in any way -----------------------------------------------------------------

LETTERS = "abxZ\"'\\;,|\t#~ \n."
ENCODINGS = {"utf-8": "é€中", "utf-8-sig": "é€中", "utf-16": "é€中", "cp1252": "é€", "latin-1": "é",
             "gb18030": "中€"}  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**9).map(lambda n: (n, 0)),
    st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 3)),
)
DATES = st.dates(dt.date(1000, 1, 1), dt.date(2999, 12, 31))
FORMATS = [None, "%d.%m.%Y", "%m/%d/%Y", "%Y%m%d", "%d-%b-%Y", "%d.%m.%y"]


@dataclass
class Sheet:
    """A table, how it is written, and what has to be said of it."""

    rows: list[tuple[int, tuple[int, int] | None, dt.date | None, str | None]]
    content: bytes
    said: dict[str, Any]
    number: Callable[[tuple[int, int]], str]
    day: Callable[[dt.date], str]


def grouped(number: tuple[int, int], point: str, group: str) -> str:
    value, digits = number
    text = f"{value / 10**digits:,.{digits}f}"
    return text.replace(",", "G").replace(".", point).replace("G", group)


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    encoding = draw(st.sampled_from(list(ENCODINGS)))
    separator = draw(st.sampled_from(",;\t|~"))
    quote, escape = draw(st.sampled_from("\"'")), draw(st.sampled_from([None, None, "\\"]))
    point, group = draw(
        st.sampled_from([(".", ""), (".", ","), (",", "."), (",", ""), (".", " "), (".", "'")])
    )
    form = draw(st.sampled_from(FORMATS))
    words = draw(st.sampled_from([None, ["", "-"], ["", "?", "n/a"]]))
    above, comment = draw(st.integers(0, 3)), draw(st.sampled_from([None, None, "#", "//"]))
    line = st.text(st.sampled_from(LETTERS.replace("\n", "")), max_size=8)
    lost = words or list(csv_files.MISSING)
    word = st.text(st.sampled_from(LETTERS + ENCODINGS[encoding]), max_size=6).filter(
        lambda text: text.strip() not in {*lost, ""}
    )
    dates = DATES if form != "%d.%m.%y" else st.dates(dt.date(1970, 1, 1), dt.date(2068, 12, 31))
    rows = draw(
        st.lists(
            st.tuples(st.none() | NUMBERS, st.none() | dates, st.none() | word),
            min_size=1, max_size=9,
        )
    )  # fmt: skip
    table_ = [(number, *row) for number, row in enumerate(rows, 1)]

    def number(value: tuple[int, int]) -> str:
        return grouped(value, point, group)

    def day(value: dt.date) -> str:
        return value.isoformat() if form is None else value.strftime(form)

    quoting: Any = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    out = io.StringIO(newline="")
    writer = csv.writer(
        out, delimiter=separator, quotechar=quote, escapechar=escape, doublequote=escape is None,
        lineterminator=end, quoting=quoting,
    )  # fmt: skip
    out.write("".join(f"{draw(line)}{end}" for _ in range(above)))
    writer.writerow(["id", "v", "day", "word"])
    for key, v, date, text in table_:
        if comment is not None and draw(st.booleans()):
            out.write(f"{comment}{draw(line)}{end}")
        if draw(st.integers(0, 9)) == 0:
            out.write(end)
        none = draw(st.sampled_from(lost))
        writer.writerow(
            [
                key,
                none if v is None else number(v),
                none if date is None else day(date),
                none if text is None else text,
            ]
        )
    text = out.getvalue()
    if draw(st.booleans()):
        text = text[: -len(end)]
    said: dict[str, Any] = {"separator": separator, "skip_rows": above}
    said |= {"encoding": encoding} if encoding not in {"utf-8", "utf-8-sig"} else {}
    said |= {"quote": quote} if quote != '"' else {}
    said |= {"escape": escape, "comment": comment, "missing": words, "date_format": form}
    said |= {"decimal": point} if point != "." else {}
    said |= {"thousands": group} if group else {}
    if draw(st.booleans()):
        said["schema"] = {"v": "number", "day": "date", "word": "text"}
    said = {name: value for name, value in said.items() if value is not None}
    return Sheet(table_, text.encode(encoding), said, number, day)


def require_same(sheet: Sheet, frame: pl.DataFrame) -> None:
    """Hold a table against what was written, value by value."""
    assert frame["id"].to_list() == [row[0] for row in sheet.rows]
    declared = sheet.said.get("schema", {})
    for name, at, write in (("v", 1, sheet.number), ("day", 2, sheet.day), ("word", 3, str)):
        for row, found in zip(sheet.rows, frame[name].to_list(), strict=True):
            value: Any = row[at]
            if value is None:
                assert found is None, (name, row)
            elif isinstance(found, str):  # as it was written, where it could not be written back
                assert name not in declared or declared[name] == "text", (name, row, found)
                assert found.strip() == write(value).strip(), (name, row, found)
            elif name == "v":
                assert float(found) == pytest.approx(value[0] / 10 ** value[1], rel=1e-15)
            else:
                assert found == value, (name, row, found)


def require_sums(sheet: Sheet, found: aggregation_job.Summary) -> None:
    assert found.rows == len(sheet.rows)
    columns = aggregation_job.describe(found)
    for name, at in (("v", 1), ("day", 2), ("word", 3)):
        known: list[Any] = [row[at] for row in sheet.rows if row[at] is not None]
        assert (columns[name]["missing"], columns[name]["count"]) == (
            found.rows - len(known), len(known),
        )  # fmt: skip
        if name == "v" and known and "sum" in columns["v"]:
            assert columns["v"]["sum"] == pytest.approx(sum(v / 10**d for v, d in known))


@pytest.mark.slow
@pytest.mark.timeout(60 + EXAMPLES)
@given(sheet=sheets(), count=st.integers(1, 7), length=st.integers(1, 90))
@ANY
def test_any_table_is_the_same_to_every_task_however_it_is_written(
    tmp_path: Path, sheet: Sheet, count: int, length: int
) -> None:
    """Whatever is said of it by whichever arguments, and wherever its ranges are cut."""
    path = tmp_path / "any.csv"
    path.write_bytes(sheet.content)
    require_same(sheet, table(path, **sheet.said))
    require_same(sheet, converted(path, count, length, **sheet.said))
    require_sums(sheet, summary(path, **sheet.said))
    require_sums(sheet, summary_of_ranges(path, length, **sheet.said))
    require_beside(sheet, path)


def require_beside(sheet: Sheet, path: Path) -> None:
    """Other readers see as many rows, where they know such a file."""
    said = sheet.said
    plain = "escape" not in said and "comment" not in said
    if not plain or said.get("encoding", "utf-8") not in {"utf-8", "utf-8-sig"}:
        return
    # To polars a blank line of a wider table is a short record, with a lone quote an error.
    other = pl.read_csv(
        path.read_bytes(), separator=said["separator"], quote_char=said.get("quote", '"'),
        skip_lines=said["skip_rows"], infer_schema=False,
    )  # fmt: skip
    keys = [key.strip() for key in other["id"] if key]
    assert keys == [str(row[0]) for row in sheet.rows]
    if importlib.util.find_spec("duckdb") and said["skip_rows"] == 0:
        require_duckdb(sheet, path)


def require_duckdb(sheet: Sheet, path: Path) -> None:
    import duckdb  # noqa: PLC0415 - the long form's alone

    quote = sheet.said.get("quote", '"')
    try:
        found = duckdb.read_csv(
            str(path), delimiter=sheet.said["separator"], quotechar=quote, escapechar=quote,
            header=True, all_varchar=True, strict_mode=False,
        ).pl()  # fmt: skip
    except duckdb.Error:
        return  # it refuses more than is wrong; here only what it reads counts
    assert [key for key in found["id"] if key] == [str(row[0]) for row in sheet.rows]


# -- any bytes -------------------------------------------------------------------------------------

#: What decides where records and fields end, what they are taken for, and what does not.
BITS = st.sampled_from(
    [b'"', b'""', b"'", b",", b"\n", b"\r\n", b"\n\n", b"a", b"1", b"2.5", b"1,5", b"NA", b"\\",
     b" ", b"\xc3\xa4", b";", b"\t", b"|", b"007", b"1e5", b"2024-01-31", b"x,y\n", b'"q",1\n',
     b"1;2\n", b"\xff", b"\0", b"\r", b"#", b"true", b"\xef\xbb\xbf", b"-"]
)  # fmt: skip
LAST = "behind it all"
#: Faults of a file that some record of it must really have.
OF_RECORDS = {"row_invalid", "file_encoding", "quote_open", "file_damaged"}


@pytest.mark.timeout(60 + EXAMPLES)
@given(
    columns=st.integers(1, 4),
    separator=st.sampled_from(",;\t|"),
    content=st.lists(BITS, min_size=1, max_size=40).map(b"".join),
    count=st.integers(1, 7),
    length=st.integers(1, 60),
    said=st.fixed_dictionaries(
        {},
        optional={
            "missing": st.sampled_from([[""], ["", "1"], ["-"]]),
            "decimal": st.just(","),
            "thousands": st.sampled_from(["'", " "]),
            "quote": st.sampled_from(["'", None]),
            "escape": st.just("\\"),
            "encoding": st.just("latin-1"),
            "skip_rows": st.integers(1, 2),
        },
    ),
)
@example(2, ",", b'1,"a " b"\n2,c\n3,"d " e"\n', 3, 7, {})
@example(2, ",", b'1,"x\n2,y"\n', 2, 5, {})
@example(1, ",", b"\xef\xbb\xbf\n\xef\xbb\xbf1\n\xef\xbb\xbfx", 3, 4, {})
@example(1, ",", b'a\r"b\n', 1, 1, {"quote": "'"})
@example(2, ",", b"1,C:\\dir\n2,\\N\n", 2, 9, {"escape": "\\"})
@ANY
def test_any_bytes_are_the_same_rows_to_every_task_or_an_error_that_says_where(  # noqa: PLR0913, PLR0917
    tmp_path: Path, columns: int, separator: str, content: bytes, count: int, length: int,
    said: dict[str, Any],
) -> None:  # fmt: skip
    """Never fewer rows without a word, and no error where nothing is wrong."""
    path = tmp_path / "any.csv"
    path.write_bytes(separator.join("abcd"[:columns]).encode() + b"\n" + content)
    said = {"separator": separator, **said}
    if said.get("skip_rows"):
        path.write_bytes(b"above it\n" * said["skip_rows"] + path.read_bytes())
    readers: list[Callable[[], tuple[int, list[Any]]]] = [
        lambda: of_frame(table(path, **said)),
        lambda: of_frame(converted(path, count, length, **said)),
        lambda: of_summary(summary(path, **said)),
        lambda: of_summary(summary_of_ranges(path, length, **said)),
    ]
    answers = [told(reader) for reader in readers]
    errors = [answer for answer in answers if isinstance(answer, InputProblemError)]
    expected = seen(path.read_bytes(), said)
    for error in errors:
        assert "\n" not in str(error)
        assert str(path) in str(error)
        assert error.kind != "row_invalid" or re.search(r"any\.csv, row [0-9]+: ", str(error))
    if errors:
        assert len(errors) == len(answers), answers
        faulty = expected is None or any(len(record) != columns for record in expected)
        assert faulty or not {error.kind for error in errors} & OF_RECORDS, answers
        return
    assert expected is not None
    assert [answer[0] for answer in answers] == [len(expected)] * len(answers)  # type: ignore[index]
    assert all(len(record) == columns for record in expected)
    frames = [answer[1] for answer in answers[:2]]  # type: ignore[index]
    missing = {*said.get("missing", csv_files.MISSING), ""}
    for values in frames:
        for record, row in zip(expected, values, strict=True):
            for text, value in zip(record, row, strict=True):
                assert is_kept(text, value, missing, said), (record, row)


def told(
    reader: Callable[[], tuple[int, list[Any]]],
) -> tuple[int, list[Any]] | InputProblemError:
    try:
        return reader()
    except InputProblemError as error:
        return error


def of_frame(frame: pl.DataFrame) -> tuple[int, list[Any]]:
    return frame.height, frame.rows()


def of_summary(found: aggregation_job.Summary) -> tuple[int, list[Any]]:
    assert all(
        column["missing"] + column["count"] == found.rows
        for column in aggregation_job.describe(found).values()
    )
    return found.rows, []


def seen(content: bytes, said: dict[str, Any]) -> Sequence[Sequence[str]] | None:
    """Return the rows that Python's csv module sees; None where it sees a fault."""
    quote = said.get("quote", '"')
    dialect: dict[str, Any] = {"quotechar": quote, "escapechar": said.get("escape")}
    dialect["quoting"] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    try:
        text = content.decode(said.get("encoding", "utf-8-sig"))
        # What is open at the end takes in what is put behind it.
        text += "" if text.endswith("\n") else "\n"
        rows = records(
            escaped(text, said) + LAST, said["separator"], said.get("skip_rows", 0), **dialect
        )
    except (UnicodeDecodeError, csv.Error):
        return None
    return None if "\0" in text or rows[-1:] != [[LAST]] else rows[:-1]


def escaped(text: str, said: dict[str, Any]) -> str:
    """Write escapes of what needs none as Python's csv module keeps them."""
    out, signs = "", iter(text)
    for sign in signs:
        following = next(signs, "") if sign == said.get("escape") else ""
        needs = following in {said["separator"], said.get("quote", '"'), sign, "\n", "\r", ""}
        out += sign + following if needs else sign * 2 + following
    return out
