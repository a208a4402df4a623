"""What a file that is called a CSV file really is. Standard library only.

Nearly any text is a table of one column, so that each of these would be read without a fault.
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

#: What files begin with, and what they are.
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
#: Suffixes that celray itself would have read.
_SUFFIXES = {
    "a Parquet file": "Give it the suffix .parquet.",
    "a gzip archive": "Give it the suffix .csv.gz, or unpack it.",
    "a zstd archive": "Give it the suffix .csv.zst, or unpack it.",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = re.compile(rb"\s*<(?:!doctype\b|html\b|head\b|body\b|\?xml\b|!--)", re.IGNORECASE)
_SEP = re.compile(rb'\s*"?sep=(.)"?\s*\r?\n', re.IGNORECASE)

#: Lines that are looked at, and the share of them that must agree.
_LINES, _SHARE = 200, 0.9
#: So many records at least show how wide a table is.
_RECORDS = 3
#: And so many names that are numbers, each above the one before, are no row by chance.
_SERIES = 4
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?\s*")
_WHOLE = re.compile(r"[0-9]+")
#: So many columns of which the first alone has a name are a title above the header.
_TITLE_COLUMNS = 3


def require_no_archive(path: Path, raw: bytes) -> None:
    """Refuse what is of another format by its first bytes.

    Args:
        path: for errors.
        raw: the file's first bytes, unpacked if its name says that it is packed.

    Raises:
        InputProblemError: names what it is, and the way out.
    """
    _refuse(path, *_binary(raw))


def require_text(path: Path, text: bytes) -> None:
    """Refuse text that is no CSV file by its beginning.

    Args:
        path: for errors.
        text: the file's first bytes, in UTF-8.

    Raises:
        InputProblemError: names what it is, and the way out.
    """
    _refuse(path, *_text(text))


def _refuse(path: Path, what: str, hint: str) -> None:
    if what:
        raise InputProblemError("file_format", f"{path} is no CSV file but {what}.", hint)


def _binary(head: bytes) -> tuple[str, str]:
    for magic, what in _MAGIC.items():
        # Letters alone may begin a header.
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
    """Refuse text of which the header, so read, does not name the columns of a table.

    Args:
        path: for errors.
        text: the file's beginning, header included.
        columns: the names in the header, empty where it has none.
        written: how the file is written, the separator included.

    Raises:
        InputProblemError: the lines hold another separator; the columns are of fixed width; or a
            title stands above the header.
    """
    separator = written.separator or ","
    if len(columns) == 1:
        _require_one_column(path, text, separator)
    title, *others = columns
    is_title = len(columns) >= _TITLE_COLUMNS and title.strip() and not any(map(str.strip, others))
    for sign in (separator, *SEPARATORS) if is_title or len(columns) == 1 else ():
        # A column of text may hold a sign in most of its values, but not as often in each.
        least = len(columns) if sign == separator else _TITLE_COLUMNS
        if at := _header_at(text, sign, least):
            lines = written.skip_rows + at
            other = "" if sign == separator else f" and separator {sign!r}"
            comment = f", or comment {title[0]!r}" if title[:1] in {"#", "%"} else ""
            raise InputProblemError(
                "header_missing",
                f"{path}: the first line names one column, {title[:60]!r}, and what stands below"
                " is wider.",
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
    """Return the header and the first records below it, as far as they are whole."""
    return first_records(text, separator, Written(), whole=text.endswith("\n"))


def _require_width(path: Path, records: Sequence[Sequence[str]]) -> None:
    """Refuse a header that is narrower than every record, with the likely reason.

    Raises:
        InputProblemError: says how wide they are.
    """
    (header, *below) = records or [[]]
    widths = {len(record) for record in below}
    if len(below) < _RECORDS or len(widths) > 1 or widths <= {*range(len(header) + 1)}:
        return
    (wide,) = widths
    hint = (
        "The first line names the columns: put one above the records, or say how many lines stand"
        " above it (skip_rows)."
    )
    if wide == len(header) + 1:
        hint = (
            "R writes row names so: write it with row.names=FALSE, or put a name for them in front"
            " of the header."
        )
        if not any(record[-1].strip() for record in below):
            hint = "Each record ends with a separator: end the header with one and a name, or none."
    raise InputProblemError(
        "header_missing",
        f"{path}: its header has {len(header)} fields, and each record below it has {wide}.",
        hint,
    )


def like_a_row(text: str, columns: Sequence[str], separator: str) -> str:
    """Return a name in the header that makes it seem to be a row; empty where it seems to be none.

    So it is where every column of numbers has one for its name. Years (``2019,2020``) and other
    series are names all the same.

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
    if len(names) >= _SERIES and (rising or falling):
        return ""
    if rising and all(_WHOLE.fullmatch(name) and str(int(name)) == name for name in names):
        return ""
    return names[0]


def no_header(path: Path, name: str) -> InputProblemError:
    """Tell of a first line that names columns alike, and seems to be a row."""
    return InputProblemError(
        "header_missing",
        f"{path}: its first line seems to be a row and no header: a column would be called"
        f" {name[:60]!r}, and holds such values.",
        "Put a line of names above it.",
    )


def _header_at(text: str, sign: str, least: int) -> int:
    """Give the number of lines above what seems to be the header of a table; 0 where there is none.

    It is the first of nearly all records that are as wide as the last, and has all names.
    """
    lines = text.splitlines()[:_LINES]
    if len(lines) == _LINES or not text.endswith("\n"):
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
    lines = [line for line in text.splitlines()[:_LINES] if line.strip()]
    for sign, shown in SEPARATORS.items():
        if sign != separator and _agree(lines, re.escape(sign)):
            raise InputProblemError(
                "separator_other",
                f"{path}: its lines hold {shown}, and its header no"
                f" {SEPARATORS.get(separator, repr(separator))}: all of it would be one column.",
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
            f"{path}: blanks seem to separate its columns, and it would be one column.",
            "Say so: separator ' '." if single else "Write it with a separator.",
        )


def _blanks(text: str) -> bool | None:
    """Return whether a table with blanks or tabs between its columns has one blank each.

    None where it is none: lines are as wide as the header, or one wider by R's row names, and hold
    numbers below it; of two columns both do, since ``Main Street 5`` is an address.
    """
    rows = [
        [field for field in record if field]
        for record in csv.reader(
            io.StringIO(text, newline=""), delimiter=" ", skipinitialspace=True
        )
        if any(record)
    ][:_LINES]
    if not text.endswith("\n"):
        rows = rows[:-1]  # which may be cut
    header, *below = rows or [[]]
    wide = len(below[0]) if below else 0
    if len(below) < _RECORDS - 1 or len(header) not in {wide, wide - 1} or len(header) < 2:  # noqa: PLR2004 - two columns
        return None
    if any(len(row) != wide for row in below):
        return None
    numbers = sum(all(_NUMBER.fullmatch(row[at]) for row in below) for at in range(wide))
    if not numbers or (wide == 2 and numbers < wide):  # noqa: PLR2004 - two columns
        return None
    return len(header) == wide and re.search(r"  |\t|^ | $", text, re.MULTILINE) is None


def _agree(lines: Sequence[str], pattern: str) -> bool:
    """Return whether the header and nearly all lines hold what a pattern says."""
    found = [re.search(pattern, line) is not None for line in lines]
    return bool(found) and found[0] and sum(found) >= _SHARE * len(found)
