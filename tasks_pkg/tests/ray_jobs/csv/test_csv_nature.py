"""What is no table is refused by every task with what it really is; what is one is read."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from celray_jobs import ALL, Place, Task, place_in

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import dialect as csv_dialect
from tasks.ray_jobs.csv import file_kind
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.csv.dialect import PLAIN
from tasks.ray_jobs.protocol import InputProblemError

ROWS = [(i, f"n{i}", i / 2) for i in range(40)]


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "a,b\n1,2\n")
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(buffer)
    return buffer.getvalue()


def lines(separator: str) -> bytes:
    rows = [separator.join(["id", "name", "v"])]
    rows += [separator.join([str(a), b, str(c)]) for a, b, c in ROWS]
    return ("\n".join(rows) + "\n").encode()


FAULTS = {
    "parquet": (parquet(), "a Parquet file. Give it the suffix .parquet"),
    "gzip": (gzip.compress(lines(",")), "a gzip archive"),
    "zip": (zipped("a.csv"), "a zip archive. Unpack it"),
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook (.xlsx)"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Excel workbook (.xls)"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "a PDF document"),
    "page": (
        b"<!DOCTYPE html>\n<html>\n<head><title>404 Not Found</title></head>\n<body>\n</html>\n",
        "a page in HTML or XML with the title '404 Not Found'",
    ),
    "xml": (b'<?xml version="1.0"?>\n<rows>\n<row/>\n</rows>\n', "a page in HTML or XML"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n",
        "a git-lfs pointer",
    ),
    "json_lines": (b'{"a":1}\n{"a":2}\n', "JSON lines"),
    "json": (b'[\n  {"a": 1},\n  {"a": 2}\n]\n', "JSON"),
    "sep": (b"sep=;\n" + lines(";"), "whose first line says sep=;"),
    # One line of another width: what separates the fields is not clear, and must be said.
    "semicolons": (lines(";") + b"odd\n", "its lines hold ';'"),
    "tabs": (lines("\t") + b"odd\n", "its lines hold tab"),
    "pipes": (lines("|") + b"odd\n", "its lines hold '|'"),
    "either": (b"a;b|c\n" + b"1;2|3\n" * 9, "a table with ';' and with '|' between the fields"),
    "sep_first": (b"Report\n\n" + lines(";"), "say skip_rows 2 and separator ';'"),
    "commented": (b"# made by hand\n" + lines(","), "say skip_rows 1, or comment '#'"),
    "width": (
        b"id   name    v\n" + b"".join(f"{i:<4} n{i:<6} {i}\n".encode() for i in range(40)),
        "of fixed width",
    ),
    "title": (
        b"Report 2026,,\n,,\nyear,mean,unc\n1959,315.98,0.12\n1960,316.91,0.12\n",
        "If the header is line 3, say skip_rows 2",
    ),
    # As scikit-learn, statsmodels and R ship their data sets.
    "blanks": (b"Chins Situps Jumps\n5 162 60\n2 110 60\n12 101 101\n", "separator ' '"),
    "r": (b'"x" "y"\n"1" 2 3\n"2" 5 6\n"3" 8 9\n', "blanks seem to separate its columns"),
    "row_names": (b'"x","y"\n"1",2,3\n"2",5,NA\n"3",8,9\n', "write the file with row.names=FALSE"),
    "trailing": (b"a,b\n1,2,\n3,4,\n5,6,\n", "Each record ends with a separator"),
    "wider": (
        b"178,13,a\n" + b"14.2,1.7,2.4,15\n" * 3,
        "has 3 fields, and each record below it has 4",
    ),
    "no_header": (b"0,0,1.5\n1,0,2.5\n2,1,3.5\n", "seems to be a row and no header"),
    "short": (b"Report 2026,,\nyear,mean,unc\n", "names one column of 3"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("nature") / "place") as made:
        yield made


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_table_is_told_by_its_nature(place: Place, task: str, fault: str) -> None:
    content, words = FAULTS[fault]
    (place.datasets / f"{fault}.csv").write_bytes(content)
    try:
        result = place.call(task, f"{fault}.csv")
    except InvalidArgumentsError as error:
        said = str(error)
    else:
        assert result.get("done", 0) == 0
        (told,) = result["models"] if task == Task.RETRAIN else result["files"]
        said = told["reason"]
    assert words in said
    assert f"{fault}.csv" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "content",
    [
        b"BZhash,ORC\n1,2\n", b"PAR1,b\n1,2\n", b"[id],[name]\n1,2\n", b"{a},b\n1,2\n",
        b"sep,b\n1,2\n", b"text\na; b\nc\nd\n", b"a;b\nx\ny\nz\n", b",x\n0,1\n", b",,\n1,2,3\n",
        b"words\none  two\nthree\nfour  five\n", b"a b,c\n1,2\n", b"ORC\n1\n", b'"a;b"\n1\n2\n',
    ],
)  # fmt: skip
def test_what_only_looks_like_something_else_is_a_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    if content.startswith(b",,"):
        with pytest.raises(InputProblemError, match="no header line"):
            csv_files.columns_of(tmp_path / "a.csv")
    else:
        assert csv_files.columns_of(tmp_path / "a.csv")


def test_a_page_of_any_bytes_is_looked_at_in_time() -> None:
    """No pattern that takes for ever on what is built for it."""
    for sign in (b"<", b" ", b"[", b"{", b"sep=", b"a  ", b";"):
        path, text = Path("a.csv"), sign * 100_000
        file_kind.require_no_archive(path, text)
        file_kind.require_text(path, text)
        with suppress(InputProblemError):
            file_kind.require_table(path, text.decode(), ["a"], PLAIN)
        csv_dialect.detected(path, text, PLAIN, whole=True)
