"""Refuse files that are named like CSV but hold something else. Standard library only.

Nearly any text can be read as a table with one column, so no parser would report these files.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..protocol import InputProblemError
from .dialect import SEPARATORS, Written, first_records

#: File types by their first bytes.
_MAGIC = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"\x89HDF": "an HDF5 file",
    b"%PDF-": "a PDF document",
    b"SQLite format 3\0": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls) or another Office document",
}
_ZIP = b"PK\x03\x04"
#: The way out for types that celray reads under their own suffix.
_SUFFIXES = {
    "a Parquet file": "Give it the suffix .parquet.",
    "a gzip archive": "Give it the suffix .csv.gz, or unpack it.",
    "a zstd archive": "Give it the suffix .csv.zst, or unpack it.",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = re.compile(rb"\s*<(?:!doctype\b|html\b|head\b|body\b|\?xml\b|!--)", re.IGNORECASE)
_SEP = re.compile(rb'\s*"?sep=(.)"?\s*\r?\n', re.IGNORECASE)

#: The number of lines that are examined, and the share of them that must agree.
_MAX_LINES, _SHARE = 200, 0.9
#: The number of records that at least are needed to determine a table's width.
_MIN_RECORDS = 3
#: From so many numeric names on, a monotonic series is a header (of years, say), not a row.
_MIN_SERIES = 4
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_WHOLE = re.compile(r"[0-9]+")
#: From so many columns on, a line in which only the first field is filled is a title.
_MIN_TITLE_COLUMNS = 3


def require_no_archive(path: Path, raw: bytes) -> None:
    """Refuse a binary file of another format, by its first bytes.

    Args:
        path: the file, for errors.
        raw: the file's first bytes, decompressed if its suffix says that it is compressed.

    Raises:
        InputProblemError: names the format, and the way out.
    """
    _refuse(path, *_binary(raw))


def require_text(path: Path, text: bytes) -> None:
    """Refuse text of another format, by its beginning.

    Args:
        path: the file, for errors.
        text: the file's first bytes, in UTF-8.

    Raises:
        InputProblemError: names the format, and the way out.
    """
    _refuse(path, *_text(text))


def _refuse(path: Path, what: str, hint: str) -> None:
    if what:
        raise InputProblemError("file_format", f"{path} is no CSV file but {what}.", hint)


def _binary(head: bytes) -> tuple[str, str]:
    for magic, what in _MAGIC.items():
        # A signature of letters and digits may be the beginning of a header.
        if head.startswith(magic) and (not magic.isalnum() or not _is_text(head)):
            return what, _SUFFIXES.get(what, "Export it as CSV.")
    if head.startswith(_ZIP):
        if b"xl/" in head or b"[Content_Types].xml" in head:
            return "an Excel workbook (.xlsx)", "Export the sheet as CSV."
        return "a zip archive", "Unpack it."
    return "", ""


def _text(start: bytes) -> tuple[str, str]:
    if start.startswith(_POINTER):
        return (
            "a git-lfs pointer, which stands for a file that was not fetched",
            "Fetch it: git lfs pull.",
        )
    if _MARKUP.match(start):
        line = start.split(b"<title>", 1)[1].split(b"<", 1)[0] if b"<title>" in start else b""
        title = f" with the title {line[:60].decode(errors='replace').strip()!r}" if line else ""
        return f"a page in HTML or XML{title}", "Download the data itself; was it an error page?"
    if found := _SEP.match(start):
        sign = found[1].decode(errors="replace")
        return (
            f"one for Excel, whose first line says sep={sign}",
            f"Say so: skip_rows 1 and separator {sign!r}. Or remove that line.",
        )
    return _json(start)


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and head.isascii()


def _json(start: bytes) -> tuple[str, str]:
    text = start.lstrip()
    if text[:1] not in {b"{", b"["}:
        return "", ""
    line = text.split(b"\n", 1)[0].strip()
    hint = "Convert it to CSV or Parquet."
    if line in {b"{", b"[", b"[{"}:
        return "JSON", hint
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "", ""
    return ("JSON lines" if isinstance(value, dict) else "JSON"), hint


def require_table(path: Path, text: str, columns: Sequence[str], written: Written) -> None:
    """Refuse text whose first line, read with this separator, is not the header of a table.

    Args:
        path: the file, for errors.
        text: the file's beginning, header included.
        columns: the names in the header; empty strings for unnamed columns.
        written: how the file is written, with its separator.

    Raises:
        InputProblemError: the lines hold another separator; the columns have a fixed width; or a
            title stands above the header.
    """
    separator = written.separator or ","
    if len(columns) == 1:
        _require_one_column(path, text, separator)
    title, *others = columns
    is_title = (
        len(columns) >= _MIN_TITLE_COLUMNS and title.strip() and not any(map(str.strip, others))
    )
    for sign in (separator, *SEPARATORS) if is_title or len(columns) == 1 else ():
        # Most values of a text column may hold such a character, but rarely equally often.
        least = len(columns) if sign == separator else _MIN_TITLE_COLUMNS
        if at := _header_at(text, sign, least):
            lines = written.skip_rows + at
            other = "" if sign == separator else f" and separator {sign!r}"
            comment = f", or comment {title[0]!r}" if title[:1] in {"#", "%"} else ""
            raise InputProblemError(
                "header_missing",
                f"{path}: the first line names one column, {title[:60]!r}, but the lines below"
                " have more.",
                f"If the header is line {lines + 1}, say skip_rows {lines}{other}{comment}.",
            )
    if is_title:
        raise InputProblemError(
            "header_missing",
            f"{path}: the first line names one column of {len(columns)}, {title[:60]!r}.",
            "If it is a title, say how many lines stand above the header (skip_rows); else name"
            " the other columns.",
        )
    if len(columns) > 1:
        _require_width(path, _records(text, separator))


def _records(text: str, separator: str) -> list[list[str]]:
    """Return the header and the first complete records below it."""
    return first_records(text, separator, Written(), whole=text.endswith("\n"))


def _require_width(path: Path, records: Sequence[Sequence[str]]) -> None:
    """Refuse a header with fewer fields than every record.

    Raises:
        InputProblemError: names both numbers of fields, and the likely reason.
    """
    (header, *below) = records or [[]]
    widths = {len(record) for record in below}
    if len(below) < _MIN_RECORDS or len(widths) > 1 or widths <= {*range(len(header) + 1)}:
        return
    (wide,) = widths
    hint = (
        "The first line names the columns: put one above the records, or say how many lines stand"
        " above it (skip_rows)."
    )
    if wide == len(header) + 1:
        hint = (
            "R writes row names like this: write the file with row.names=FALSE, or put a name for"
            " the row names in front of the header."
        )
        if not any(record[-1].strip() for record in below):
            hint = (
                "Each record ends with a separator: add one and a name to the header, or remove it"
                " from the records."
            )
    raise InputProblemError(
        "header_missing",
        f"{path}: its header has {len(header)} fields, and each record below it has {wide}.",
        hint,
    )


def like_a_row(text: str, columns: Sequence[str], separator: str) -> str:
    """Return a name in the header that suggests that it is a row of data; empty if none does.

    A header looks like a row if every numeric column has a number as its name. Years
    (``2019,2020``) and other series of numbers still count as names.

    Args:
        text: the file's beginning, header included.
        columns: the names in the header, as they are written.
        separator: the character between fields.
    """
    if not any(_NUMBER.fullmatch(name) for name in columns):
        return ""
    below = [r for r in _records(text, separator)[1:] if len(r) == len(columns)]
    names = [
        name
        for name, values in zip(columns, zip(*below, strict=True), strict=False)
        if (known := [value for value in values if value.strip()])
        and all(_NUMBER.fullmatch(value) for value in known)
    ]
    if not names or not all(_NUMBER.fullmatch(name) for name in names):
        return ""
    numbers = [float(name.replace(",", ".")) for name in names]
    rising = all(here < there for here, there in pairwise(numbers))
    falling = all(here > there for here, there in pairwise(numbers))
    if len(names) >= _MIN_SERIES and (rising or falling):
        return ""
    if rising and all(_WHOLE.fullmatch(name) and str(int(name)) == name for name in names):
        return ""
    return names[0]


def no_header(path: Path, name: str) -> InputProblemError:
    """Return the error for a first line that has equal names and looks like a row of data."""
    return InputProblemError(
        "header_missing",
        f"{path}: its first line seems to be a row and no header: a column would be called"
        f" {name[:60]!r}, which looks like one of its values.",
        "Put a line of names above it.",
    )


def _header_at(text: str, sign: str, least: int) -> int:
    """Return the number of lines above the probable header of a table; 0 if there is none.

    The header is the first record of the greatest width in which no field is blank. Nearly all
    records below it must be as wide.
    """
    lines = text.splitlines()[:_MAX_LINES]
    if len(lines) == _MAX_LINES or not text.endswith("\n"):
        lines = lines[:-1]
    plain = Written()
    widths = {}
    for number, line in enumerate(lines):
        (record,) = first_records(line, sign, plain, whole=True) or ([],)
        widths[number] = record
    wide = max((len(record) for record in widths.values()), default=0)
    if wide < max(2, least):
        return 0
    table = [number for number, record in widths.items() if len(record) == wide]
    named = [number for number in table if all(map(str.strip, widths[number]))]
    if not named or named[0] == 0:
        return 0
    below = [number for number in table if number > named[0]]
    filled = [n for n, record in widths.items() if n > named[0] and record]
    return named[0] if len(below) > 1 and len(below) >= _SHARE * len(filled) else 0


def _require_one_column(path: Path, text: str, separator: str) -> None:
    lines = [line for line in text.splitlines()[:_MAX_LINES] if line.strip()]
    for sign, shown in SEPARATORS.items():
        if sign != separator and _agree(lines, re.escape(sign)):
            raise InputProblemError(
                "separator_other",
                f"{path}: its lines hold {shown}, and its header no"
                f" {SEPARATORS.get(separator, repr(separator))}: the table would have one column.",
                f"Say so: separator {sign!r} (files with tabs are named .tsv). Or write"
                f" it with {SEPARATORS.get(separator, repr(separator))}.",
            )
    if len(lines) > 2 and _agree(lines, r"\S {2,}\S"):  # noqa: PLR2004
        raise InputProblemError(
            "separator_other",
            f"{path}: its columns seem to be of fixed width, with blanks between them.",
            "Write it with a separator.",
        )
    if (single := _blanks(text)) is not None:
        raise InputProblemError(
            "separator_other",
            f"{path}: blanks seem to separate its columns; the table would have one column.",
            "Say so: separator ' '." if single else "Write it with a separator.",
        )


def _blanks(text: str) -> bool | None:
    """Return whether exactly one blank separates the columns of a table; None if blanks do not.

    Blanks separate columns if all lines are as wide as the header, or one field wider (R's row
    names), and at least one column holds only numbers. With two columns both must, since
    ``Main Street 5`` is an address.
    """
    rows = [
        [field for field in record if field]
        for record in csv.reader(
            io.StringIO(text, newline=""), delimiter=" ", skipinitialspace=True
        )
        if any(record)
    ][:_MAX_LINES]
    if not text.endswith("\n"):
        rows = rows[:-1]  # the last one may be cut
    header, *below = rows or [[]]
    wide = len(below[0]) if below else 0
    if len(below) < _MIN_RECORDS - 1 or len(header) not in {wide, wide - 1} or len(header) < 2:  # noqa: PLR2004 - two columns
        return None
    if any(len(row) != wide for row in below):
        return None
    numbers = sum(all(_NUMBER.fullmatch(row[at]) for row in below) for at in range(wide))
    if not numbers or (wide == 2 and numbers < wide):  # noqa: PLR2004 - two columns
        return None
    return len(header) == wide and re.search(r"  |\t|^ | $", text, re.MULTILINE) is None


def _agree(lines: Sequence[str], pattern: str) -> bool:
    """Return whether the header and nearly all lines match a pattern."""
    found = [re.search(pattern, line) is not None for line in lines]
    return bool(found) and found[0] and sum(found) >= _SHARE * len(found)
