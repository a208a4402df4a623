"""Which files a ``dataset_path`` means, and what can be told of them without reading them all.

Standard library only: the worker asks before a job is submitted, the job asks again, and both
must give the same answer.
"""

import csv
import difflib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .protocol import InputProblemError

FORMATS = {".csv": "csv", ".parquet": "parquet"}

# Longer than any sane header, shorter than what would fill a worker's memory.
HEADER_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """The files of one dataset, in the order in which their rows count, all of one format."""

    files: tuple[Path, ...]
    format: str


def resolve(dataset_path: str, roots: Sequence[str]) -> Source:
    """Find the files that ``dataset_path`` names.

    Args:
        dataset_path: a file, a folder (its ``.csv`` or ``.parquet`` files, not those of its
            subfolders), or the common prefix of ``<dataset_path>_part_<i>.csv``. A relative
            path is taken under the first root.
        roots: folders that the files must be in once every link and ``..`` is followed.

    Raises:
        InputProblemError: names the path, what is wrong with it, and the way out.
    """
    if "\0" in dataset_path or not dataset_path.strip():
        raise InputProblemError(
            "dataset_path_invalid",
            f"dataset_path {dataset_path!r} is not a path.",
            f"Give a file or folder under {' or '.join(roots)}.",
        )
    if re.match(r"[a-z][a-z0-9+.-]*://", dataset_path, re.IGNORECASE):
        raise InputProblemError(
            "dataset_path_invalid",
            f"dataset_path {dataset_path!r} is a URL.",
            f"Only files under {' or '.join(roots)} can be read.",
        )
    path = Path(os.path.normpath(Path(roots[0]) / dataset_path))
    try:
        return _find(dataset_path, path, roots)
    except PermissionError as error:
        raise InputProblemError(
            "dataset_unreadable",
            f"dataset_path {dataset_path!r}: {error.filename} cannot be read by user"
            f" {os.getuid()}.",
            "Let that user read it (chmod a+r on the file, a+rx on its folders).",
        ) from None
    except OSError as error:
        raise InputProblemError(
            "dataset_path_invalid", f"dataset_path {dataset_path!r}: {error.strerror}."
        ) from None


def _find(dataset_path: str, path: Path, roots: Sequence[str]) -> Source:
    _require_inside(dataset_path, path, roots)
    if path.is_dir():
        files = sorted(
            (f for f in path.iterdir() if f.suffix.lower() in FORMATS and f.name[0] not in "._"),
            key=_natural,
        )
        if not files:
            raise InputProblemError(
                "dataset_empty",
                f"dataset_path {dataset_path!r} is a folder with no .csv or .parquet file in it.",
                "Name the folder that holds the files; subfolders are not searched.",
            )
    elif path.exists():
        files = [path]
    else:
        files = _parts(path) or _missing(dataset_path, path)
    for file in files:
        _require_inside(dataset_path, file, roots)
        _require_readable(dataset_path, file)
    formats = sorted({FORMATS[file.suffix.lower()] for file in files})
    if len(formats) > 1:
        raise InputProblemError(
            "dataset_mixed",
            f"dataset_path {dataset_path!r} holds both {formats[0]} and {formats[1]} files.",
            "Keep one format per dataset.",
        )
    return Source(tuple(files), formats[0])


def _require_inside(dataset_path: str, path: Path, roots: Sequence[str]) -> None:
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        raise InputProblemError(
            "dataset_outside_roots",
            f"dataset_path {dataset_path!r} leads to {real}, which is outside"
            f" {' and '.join(roots)}.",
            "Copy the data there; a link that leads out is not followed.",
        )


def _require_readable(dataset_path: str, file: Path) -> None:
    if file.suffix.lower() not in FORMATS:
        raise InputProblemError(
            "dataset_format",
            f"dataset_path {dataset_path!r}: {file.name!r} is neither .csv nor .parquet.",
            "Convert it, or give it the suffix of its format.",
        )
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputProblemError(
            "dataset_path_invalid", f"dataset_path {dataset_path!r}: {file} is not a regular file."
        )
    if status.st_size == 0:
        raise InputProblemError(
            "dataset_empty", f"dataset_path {dataset_path!r}: {file} is empty (0 bytes)."
        )
    if not os.access(file, os.R_OK):
        raise PermissionError(13, "Permission denied", str(file))


def _parts(path: Path) -> list[Path]:
    """Find ``<path>_part_<i>`` files in the order of i; a gap in the numbers is an error."""
    pattern = re.compile(re.escape(path.name) + r"_part_(\d+)\.(?:csv|parquet)", re.IGNORECASE)
    if not path.parent.is_dir():
        return []
    found = {
        int(match[1]): file
        for file in path.parent.iterdir()
        if (match := pattern.fullmatch(file.name))
    }
    if not found:
        return []
    numbers = sorted(found)
    expected = range(numbers[0], numbers[0] + len(numbers))
    if numbers[0] > 1 or numbers != list(expected):
        missing = next(n for n in range(numbers[-1]) if n not in found and (n or 1 not in found))
        raise InputProblemError(
            "dataset_part_missing",
            f"dataset_path {str(path)!r}: {path.name}_part_{missing} is missing, while"
            f" part {numbers[-1]} is there.",
            "Add the missing part, or number the parts without a gap.",
        )
    return [found[number] for number in numbers]


def _missing(dataset_path: str, path: Path) -> NoReturn:
    hint = "Check the spelling; relative paths are taken under the datasets folder."
    if path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        near = difflib.get_close_matches(path.name, names, n=1)
        if near:
            hint = f"Did you mean {near[0]!r}?"
    else:
        hint = f"Not even its folder {path.parent} exists."
    raise InputProblemError(
        "dataset_missing",
        f"dataset_path {dataset_path!r} does not exist: neither {path} nor {path.name}_part_0.csv"
        " beside it.",
        hint,
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort ``part_10`` after ``part_9``."""
    return [
        (int(piece), "") if piece.isdigit() else (-1, piece)
        for piece in re.split(r"(\d+)", path.name)
        if piece
    ]


def csv_header(file: Path) -> list[str]:
    """Read the column names of a CSV file.

    Raises:
        InputProblemError: no text in UTF-8, no header line, an unnamed or a repeated column.
    """
    with file.open("rb") as stream:
        start = stream.read(HEADER_LIMIT_BYTES)
    try:
        text = start.decode("utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        # The last characters may merely be cut in two by the limit.
        if error.start < len(start) - 4:
            raise InputProblemError(
                "dataset_encoding",
                f"{file} is not UTF-8: byte 0x{start[error.start]:02x} at {error.start}.",
                "Convert it: iconv -f <its encoding> -t utf-8.",
            ) from None
        text = start.decode("utf-8-sig", errors="ignore")
    try:
        header = next(csv.reader(text.splitlines(keepends=True)))
    except (StopIteration, csv.Error):
        header = []
    if "\0" in text:
        raise InputProblemError(
            "dataset_damaged",
            f"{file} contains NUL bytes; it is not a CSV file.",
            "Export it again as plain text.",
        )
    if not any(header):
        raise InputProblemError(
            "dataset_empty", f"{file} has no header line.", "The first line names the columns."
        )
    require_distinct(file, header)
    return header


def require_distinct(file: Path, columns: Sequence[str]) -> None:
    """Refuse a column name that occurs twice: nobody could say which one is meant."""
    repeated = sorted({name for name in columns if list(columns).count(name) > 1})
    if repeated:
        raise InputProblemError(
            "columns_repeated",
            f"{file}: column {repeated[0]!r} occurs {list(columns).count(repeated[0])} times.",
            "Give every column its own name.",
        )


def require_column(column: str, columns: Sequence[str], origin: str, where: str) -> None:
    """Refuse a column that is not there, listing those that are.

    Args:
        column: the wanted name.
        columns: the names that exist.
        origin: where the wanted name came from, such as ``model_config.target``.
        where: the file that was looked at.
    """
    if column in columns:
        return
    near = difflib.get_close_matches(column, columns, n=1, cutoff=0.6) or [
        name for name in columns if name.strip().lower() == column.strip().lower()
    ]
    shown = ", ".join(columns[:30]) + (", ..." if len(columns) > 30 else "")  # noqa: PLR2004
    raise InputProblemError(
        "column_missing",
        f"{origin}: column {column!r} is not in {where}.",
        (f"Did you mean {near[0]!r}? " if near else "") + f"Its columns are: {shown}.",
    )
