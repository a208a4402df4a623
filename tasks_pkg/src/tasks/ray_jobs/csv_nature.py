"""What a file that is called a CSV file really is. Standard library only.

Nearly any text is a table of one column, so that each of these would be read without a fault.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from .protocol import InputProblemError

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
    "a gzip archive": "Give it the suffix .csv.gz where the task takes that, or unpack it.",
    "a zstd archive": "Give it the suffix .csv.zst where the task takes that, or unpack it.",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = re.compile(rb"\s*<(?:!doctype\b|html\b|head\b|body\b|\?xml\b|!--)", re.IGNORECASE)
_SEP = re.compile(rb'\s*"?sep=(.)"?\s*\r?\n', re.IGNORECASE)

#: Characters that separate fields elsewhere, and how to call them.
SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
#: Lines that are looked at, and the share of them that must agree.
_LINES, _SHARE = 200, 0.9
#: So many columns of which the first alone has a name are a title above the header.
_TITLE_COLUMNS = 3


def require_csv(path: Path, head: bytes) -> None:
    """Refuse what is no CSV file by its beginning.

    Args:
        path: for errors.
        head: the file's first bytes, unpacked if its name says that it is packed.

    Raises:
        InputProblemError: names what it is, and the way out.
    """
    what, hint = _nature(head)
    if what:
        raise InputProblemError("file_format", f"{path} is no CSV file but {what}.", hint)


def _nature(head: bytes) -> tuple[str, str]:
    for magic, what in _MAGIC.items():
        # Letters alone may begin a header.
        if head.startswith(magic) and (not magic.isalnum() or not _is_text(head)):
            return what, _SUFFIXES.get(what, "Export it as CSV.")
    if head.startswith(_ZIP):
        if b"xl/" in head or b"[Content_Types].xml" in head:
            return "an Excel workbook (.xlsx)", "Export the sheet as CSV."
        return "a zip archive", "Unpack it."
    return _text(head.removeprefix(b"\xef\xbb\xbf"))


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
            "Remove that line, and tell the separator where it is no comma.",
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


def require_table(path: Path, text: str, columns: Sequence[str], separator: str) -> None:
    """Refuse text of which the header, so read, does not name the columns of a table.

    Args:
        path: for errors.
        text: the file's beginning, header included.
        columns: the names in the header, empty where it has none.
        separator: the character between fields.

    Raises:
        InputProblemError: the lines hold another separator; the columns are of fixed width; or a
            title stands above the header.
    """
    if len(columns) == 1:
        _require_one_column(path, text, separator)
    title, *others = columns
    if len(columns) >= _TITLE_COLUMNS and title.strip() and not any(map(str.strip, others)):
        raise InputProblemError(
            "header_missing",
            f"{path}: the first line names one column of {len(columns)}, {title[:60]!r}.",
            "If it is a title, remove what stands above the header; else name the other columns.",
        )


def _require_one_column(path: Path, text: str, separator: str) -> None:
    lines = [line for line in text.splitlines()[:_LINES] if line.strip()]
    for sign, shown in SEPARATORS.items():
        if sign != separator and _agree(lines, re.escape(sign)):
            raise InputProblemError(
                "separator_other",
                f"{path}: its lines hold {shown}, and its header no"
                f" {SEPARATORS.get(separator, repr(separator))}: all of it would be one column.",
                f"Say so: separator {sign!r} (delivered files with tabs are named .tsv). Or write"
                f" it with {SEPARATORS.get(separator, repr(separator))}.",
            )
    if len(lines) > 2 and _agree(lines, r"\S {2,}\S"):  # noqa: PLR2004
        raise InputProblemError(
            "separator_other",
            f"{path}: its columns seem to be of fixed width, with blanks between them.",
            "Write it with a separator.",
        )


def _agree(lines: Sequence[str], pattern: str) -> bool:
    """Say whether the header and nearly all lines hold what a pattern says."""
    found = [re.search(pattern, line) is not None for line in lines]
    return found[0] and sum(found) >= _SHARE * len(found)
