"""Find the files of a ``dataset_path``, and check them without reading them completely.

Standard library only: the worker checks before a job is submitted, and the job checks again; both
must agree.
"""

import difflib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import unquote

from ..protocol import InputProblemError
from . import paths

Compression = Literal["none", "gzip", "zstd"]

#: The suffixes of CSV files. This is the only list: every task accepts the same.
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
#: The compression suffixes that may follow the suffix of a CSV file.
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
PARQUET_SUFFIX = ".parquet"
#: In a folder such a file is often a note about the data, so it is read only if named itself.
NAMED_ALONE = ".txt"

#: The accepted names in words.
CSV_NAMES = ".csv, .tsv or .txt, also with .gz, .zst or .zstd behind it"
NAMES = f"{CSV_NAMES}, or {PARQUET_SUFFIX}"

#: The longest column name, in characters: a longer one is data in place of the header.
NAME_LIMIT_CHARS = 1000
_SHOWN_CHARS = 60
#: The first and last bytes of a Parquet file.
_PARQUET = b"PAR1"
#: The value of a Hive partition for a missing value.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Source:
    """The files of one dataset, in the order of their rows, all in one format.

    Attributes:
        files: the files.
        format: ``csv`` or ``parquet``.
        keys: for each file the columns in the names of its folders (``year=2024``), as text; None
            for a missing value. Empty if the folders' names hold no columns.
    """

    files: tuple[Path, ...]
    format: str
    keys: tuple[Mapping[str, str | None], ...] = ()

    def columns(self, file: Path, own: Sequence[str]) -> list[str]:
        """Return a file's columns, including those in its folders' names.

        Raises:
            InputProblemError: the file itself also has one of those columns.
        """
        keys = list(self.keys[0]) if self.keys else []
        for name in keys:
            if name in own:
                raise InputProblemError(
                    "columns_repeated",
                    f"{file}: column {name!r} is in the file and in the name of its folder.",
                    f"Leave it out of the files, or rename the folders {name}=... so that they hold"
                    " no '='.",
                )
        return [*own, *keys]


def resolve(dataset_path: str, roots: Sequence[str], parameter: str = "dataset_path") -> Source:
    """Find the files that ``dataset_path`` names.

    Args:
        dataset_path: a file that ends in one of :data:`NAMES`; a folder, of which such files are
            read except :data:`NAMED_ALONE`, and those in subfolders of a Hive partitioning
            (``year=2024/month=01/``), but not in other subfolders; or the common prefix of
            ``<dataset_path>_part_<i>.csv``. A relative path is under the first root.
        roots: folders that must contain the files once every link and ``..`` is followed.
        parameter: the path's name in error messages.

    Raises:
        InputProblemError: names the path, what is wrong with it, and what to do.
    """
    path = paths.inside(dataset_path, parameter, roots)
    shown = f"{parameter} {dataset_path!r}"
    try:
        return _find(path, shown, roots)
    except PermissionError as error:
        raise InputProblemError(
            "dataset_unreadable",
            f"{shown}: {error.filename} cannot be read by user {os.getuid()}.",
            "Let that user read it (chmod a+r on the file, a+rx on its folders).",
        ) from None
    except OSError as error:
        raise InputProblemError("path_invalid", f"{shown}: {error.strerror}.") from None


def _find(path: Path, shown: str, roots: Sequence[str]) -> Source:
    keys: tuple[Mapping[str, str | None], ...] = ()
    if path.is_dir():
        files, keys = _in_folder(path, shown)
        if not files:
            raise InputProblemError(
                "dataset_empty",
                f"{shown} is a folder with no .csv, .tsv or .parquet file in it.",
                "Name the folder that holds the files, or a .txt file by itself; of its subfolders"
                " only those that are called key=value are searched.",
            )
    elif path.exists():
        files = [path]
    else:
        files = _parts(path, shown) or _missing(path, shown)
    for file in files:
        paths.require_inside(file, shown, roots)
        _require_readable(file, shown)
    found = sorted({format_of(file) for file in files})
    if len(found) > 1:
        raise InputProblemError(
            "dataset_mixed",
            f"{shown} holds both {found[0]} and {found[1]} files.",
            "Keep one format per dataset.",
        )
    return Source(tuple(files), found[0], keys)


def _in_folder(folder: Path, shown: str) -> tuple[list[Path], tuple[Mapping[str, str | None], ...]]:
    """Find a folder's files, and the keys in its subfolders' names.

    Raises:
        InputProblemError: the files have different keys, or one exists compressed and uncompressed.
    """
    found = list(_partitions(folder, {}, shown))
    first, own = found[0] if found else (folder, {})
    for file, keys in found:
        if list(keys) != list(own):
            raise InputProblemError(
                "columns_differ",
                f"{shown}: {file} lies in folders that name {list(keys) or 'no key'}, and {first}"
                f" in folders that name {list(own) or 'none'}.",
                "Put all files equally deep, below folders of the same keys in the same order.",
            )
    files = [file for file, _ in found]
    seen: dict[Path, Path] = {}
    for file in files:
        other = seen.setdefault(uncompressed(file), file)
        if other != file:
            raise InputProblemError(
                "dataset_repeated",
                f"{shown}: by their names, {other} and {file.name} are the same file, compressed"
                " differently: its rows would count twice.",
                "Remove one of them, or name a file instead of the folder.",
            )
    return files, tuple(keys for _, keys in found) if own else ()


def _partitions(
    folder: Path, above: Mapping[str, str | None], shown: str
) -> Iterator[tuple[Path, Mapping[str, str | None]]]:
    """Yield the files of a folder and of those below it whose names are ``key=value``."""
    for entry in sorted(folder.iterdir(), key=_natural):
        if entry.name[0] in "._":
            continue
        key, sign, value = entry.name.partition("=")
        if format_of(entry) and not entry.is_dir():
            if uncompressed(entry).suffix.lower() != NAMED_ALONE:
                yield entry, above
        elif key and sign and entry.is_dir():
            name = unquote(key)
            if name in above:
                raise InputProblemError(
                    "columns_repeated",
                    f"{shown}: {entry} names {name!r}, which a folder above it names too.",
                    "Name each key once.",
                )
            there = None if value == _NO_VALUE else unquote(value)
            yield from _partitions(entry, {**above, name: there}, shown)


def uncompressed(file: Path) -> Path:
    """Return a file's path without its compression suffix."""
    return file.with_suffix("") if file.suffix.lower() in COMPRESSIONS else file


def name_of(dataset_path: str) -> str:
    """Return the readable name of a dataset: its path's last name without format suffixes."""
    return uncompressed(Path(dataset_path)).stem


def format_of(file: Path) -> Literal["csv", "parquet", ""]:
    """Return a file's format by its name; empty for a name that no task reads."""
    if file.suffix.lower() == PARQUET_SUFFIX:
        return "parquet"
    return "csv" if uncompressed(file).suffix.lower() in CSV_SUFFIXES else ""


def require_format(file: Path, shown: str) -> Literal["csv", "parquet"]:
    """Return a file's format by its name.

    Args:
        file: the file.
        shown: the origin of its name.

    Raises:
        InputProblemError: no task reads a file with such a name.
    """
    kind = format_of(file)
    if not kind:
        raise InputProblemError(
            "dataset_format",
            f"{shown}: {file.name!r} does not end in {NAMES}.",
            "Convert it, or give it the suffix of its format.",
        )
    return kind


def _require_readable(file: Path, shown: str) -> None:
    kind = require_format(file, shown)
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputProblemError("path_invalid", f"{shown}: {file} is not a regular file.")
    if status.st_size == 0:
        raise InputProblemError("dataset_empty", f"{shown}: {file} is empty (0 bytes).")
    if not os.access(file, os.R_OK):
        raise PermissionError(13, "Permission denied", str(file))
    if kind == "parquet":
        require_parquet(file)


def require_parquet(file: Path) -> None:
    """Refuse a file that is not Parquet by its first and last bytes.

    Raises:
        InputProblemError: names it.
    """
    with file.open("rb") as stream:
        first = stream.read(len(_PARQUET))
        stream.seek(-min(len(_PARQUET), file.stat().st_size), os.SEEK_END)
        if first == _PARQUET == stream.read():
            return
    raise InputProblemError(
        "dataset_damaged",
        f"{file} cannot be read as Parquet: it does not begin and end with PAR1.",
        "Write it again, or give it the suffix of what it is.",
    )


def _parts(path: Path, shown: str) -> list[Path]:
    """Find ``<path>_part_<i>`` files in the order of i.

    Raises:
        InputProblemError: a number is missing, or exists twice.
    """
    ends = rf"(?:{'|'.join(CSV_SUFFIXES)})(?:{'|'.join(COMPRESSIONS)})?|{PARQUET_SUFFIX}"
    ends = ends.replace(".", r"\.")
    pattern = re.compile(rf"{re.escape(path.name)}_part_(\d+)(?:{ends})", re.IGNORECASE)
    if not path.parent.is_dir():
        return []
    found: dict[int, Path] = {}
    for file in sorted(path.parent.iterdir()):
        if match := pattern.fullmatch(file.name):
            other = found.setdefault(int(match[1]), file)
            if other != file:
                raise InputProblemError(
                    "dataset_repeated",
                    f"{shown}: part {int(match[1])} is there twice, as {other.name} and as"
                    f" {file.name}.",
                    "Remove one of them.",
                )
    if not found:
        return []
    numbers = sorted(found)
    expected = range(numbers[0], numbers[0] + len(numbers))
    if numbers[0] > 1 or numbers != list(expected):
        missing = next(n for n in range(numbers[-1]) if n not in found and (n or 1 not in found))
        raise InputProblemError(
            "dataset_part_missing",
            f"{shown}: {path.name}_part_{missing} is missing, while part {numbers[-1]} is there.",
            "Add the missing part, or number the parts without a gap.",
        )
    return [found[number] for number in numbers]


def passed_over(
    files: Sequence[Path], before: tuple[str, ...] = (".csv", PARQUET_SUFFIX)
) -> list[str]:
    """Report which files of a folder, or of parts, earlier releases did not read.

    Args:
        files: the files that are read now.
        before: the suffixes that earlier releases read.
    """
    later = [file.name for file in files if not file.name.lower().endswith(before)]
    if not later or len(later) == len(files):
        return []
    said = (
        f"{len(later)} of {len(files)} files, such as {later[0]}, are read now; earlier releases"
        f" skipped them and read only {', '.join(before)}. Move them away if they are no part of"
        " the data."
    )
    return [said]


def _missing(path: Path, shown: str) -> NoReturn:
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
        f"{shown} does not exist: neither {path} nor {path.name}_part_0.csv beside it.",
        hint,
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts ``part_10`` after ``part_9``."""
    return [
        (int(piece), "") if piece.isdigit() else (-1, piece)
        for piece in re.split(r"(\d+)", path.name)
        if piece
    ]


def is_pattern(name: str) -> bool:
    """Return whether polars would interpret a column's name as a pattern."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def require_distinct(file: Path, columns: Sequence[str]) -> None:
    """Refuse a column name that occurs twice, since it would be ambiguous.

    Raises:
        InputProblemError: names it; or a name is a pattern, or longer than
            :data:`NAME_LIMIT_CHARS`.
    """
    for number, name in enumerate(columns, 1):
        if len(name) > NAME_LIMIT_CHARS:
            raise InputProblemError(
                "column_name_too_long",
                f"{file}: column {number} has a name of {len(name)} characters,"
                f" {name[:_SHOWN_CHARS]!r} and so on.",
                "The first line of a CSV file names the columns.",
            )
        if is_pattern(name):
            raise InputProblemError(
                "column_name_pattern",
                f"{file}: column {number} is called {name[:_SHOWN_CHARS]!r}, which polars"
                " reads as a pattern for the names of others.",
                "Give it another name: not '*', and not from '^' to '$'.",
            )
    repeated = [(name, count) for name, count in Counter(columns).items() if count > 1]
    if repeated:
        name, count = min(repeated)
        raise InputProblemError(
            "columns_repeated",
            f"{file}: column {name!r} occurs {count} times.",
            "Give every column its own name.",
        )


def require_column(column: str, columns: Sequence[str], origin: str, where: str) -> None:
    """Refuse a column that does not exist, and list those that do.

    Args:
        column: the wanted name.
        columns: the names that exist.
        origin: the origin of the wanted name, such as ``model_config.target``.
        where: the file that was searched.
    """
    if column in columns:
        return
    near = difflib.get_close_matches(column, columns, n=1, cutoff=0.6) or [
        name for name in columns if name.strip().lower() == column.strip().lower()
    ]
    shown = ", ".join(name[:_SHOWN_CHARS] for name in columns[:30])
    shown += ", ..." if len(columns) > 30 else ""  # noqa: PLR2004
    raise InputProblemError(
        "column_missing",
        f"{origin}: column {column!r} is not in {where}.",
        (f"Did you mean {near[0]!r}? " if near else "") + f"Its columns are: {shown}.",
    )
