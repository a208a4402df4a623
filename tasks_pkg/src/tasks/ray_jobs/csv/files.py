"""Find the file that a task reads and the one it writes; read the beginning of a CSV file.

Standard library only, so that a worker can refuse a request before it starts a job.
"""

import codecs
import csv
import difflib
import gzip
import io
import math
import os
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..formulas.language import Formula, parse
from ..inputs import sources
from ..inputs.paths import inside, require_apart
from ..inputs.sources import Compression, require_distinct
from ..protocol import InputProblemError
from . import dialect as csv_dialect
from . import file_kind
from . import recoding as csv_recoding
from .dialect import PLAIN, Written

#: A run adds suffixes to the output's name; the longest result must fit into 255 bytes.
OUTPUT_NAME_LIMIT_BYTES = 180

#: The texts that stand for a missing value in a CSV file, unless the caller says otherwise.
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null")

#: The limit of the header's length: longer than real headers, small in a worker's memory.
HEADER_LIMIT_BYTES = 1 << 20
#: The number of bytes behind the header by which the file is checked to be a table.
NATURE_BYTES = 32 << 10
#: To detect the separator, so many times the header's length is read in addition.
_HEADER_LENGTHS = 4


@dataclass(frozen=True)
class CsvFile:
    """A CSV file as its first bytes show it.

    Attributes:
        path: the file.
        compression: by its suffix.
        columns: the names in its header.
        data_start: offset of the first byte behind the header, in the text after recoding.
        written: how it is written, with its separator.
        told: what was detected rather than given, in words for the caller.
        like_a_row: a name in the header that suggests that it is a row of data; or empty.
    """

    path: Path
    compression: Compression
    columns: tuple[str, ...]
    data_start: int
    written: Written
    told: tuple[str, ...] = ()
    like_a_row: str = ""

    @property
    def separator(self) -> str:
        """Return the character between fields."""
        return self.written.separator or ","

    @property
    def is_stream(self) -> bool:
        """Return whether the file can only be read from its beginning."""
        return self.compression != "none" or self.written.is_recoded


@dataclass(frozen=True)
class Beginning:
    """The beginning of a file's text, after recoding.

    Attributes:
        head: the bytes, in UTF-8.
        start: the offset of the header in them.
        whole: whether they are all of the file.
        written: how the file is written, with its separator.
        told: see :class:`CsvFile`.
    """

    head: bytes
    start: int
    whole: bool
    written: Written
    told: tuple[str, ...]


def input_file(path_text: str, parameter: str, roots: Sequence[str]) -> Path:
    """Return the path of a file to read.

    Raises:
        InputProblemError: it is missing, empty, not a regular file, or cannot be read.
    """
    path = inside(path_text, parameter, roots)
    try:
        status = path.stat()
    except FileNotFoundError:
        hint = "Check the spelling; relative paths are taken under the datasets folder."
        if path.parent.is_dir():
            names = [entry.name for entry in path.parent.iterdir()]
            if near := difflib.get_close_matches(path.name, names, n=1):
                hint = f"Did you mean {near[0]!r}?"
        raise InputProblemError(
            "file_missing", f"{parameter} {path_text!r}: {path} does not exist.", hint
        ) from None
    except OSError as error:
        raise InputProblemError(
            "path_invalid", f"{parameter} {path_text!r}: {error.strerror}."
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise InputProblemError("path_invalid", f"{parameter} {path_text!r} is not a regular file.")
    if status.st_size == 0:
        raise InputProblemError("file_empty", f"{parameter} {path_text!r} is empty (0 bytes).")
    if not os.access(path, os.R_OK):
        raise InputProblemError(
            "file_unreadable",
            f"{parameter} {path_text!r} cannot be read by user {os.getuid()}.",
            "Let that user read it (chmod a+r on the file, a+rx on its folders).",
        )
    return path


def output_file(path_text: str, parameter: str, datasets_dir: str, models_dir: str) -> Path:
    """Return the path of an output, which must be in the datasets folder.

    The models folder holds what training trusts: held-out rows, manifests, the live version. A
    task's sender must not be able to replace these.

    Raises:
        InputProblemError: the path is outside the datasets folder or in the models folder, is a
            folder, or ends neither in ``.csv`` nor in ``.parquet``.
    """
    path = inside(path_text, parameter, [datasets_dir])
    require_apart(path, f"{parameter} {path_text!r}", models_dir)
    if path.suffix.lower() not in {".csv", ".parquet"}:
        raise InputProblemError(
            "output_format",
            f"{parameter} {path_text!r} ends neither in .csv nor in .parquet.",
            "The suffix determines the format of the output.",
        )
    if len(os.fsencode(path.name)) > OUTPUT_NAME_LIMIT_BYTES:
        raise InputProblemError(
            "path_invalid",
            f"{parameter} '{path.name[:60]}...' is {len(os.fsencode(path.name))} bytes long; the"
            f" name of an output has at most {OUTPUT_NAME_LIMIT_BYTES}.",
            "The manifest and temporary names beside it are longer. Give a shorter one.",
        )
    if path.is_dir():
        raise InputProblemError("path_invalid", f"{parameter} {path_text!r} is a folder.")
    return path


def rejects_of(target: Path) -> Path:
    """Return the path of the bad rows of a run that writes to ``target``."""
    return target.with_name(f"{target.name}.rejects.csv")


def require_output_apart(path: Path, target: Path) -> None:
    """Refuse to overwrite the input.

    Raises:
        InputProblemError: the input is the same file as the output, or as its rejects file.
    """
    if os.path.realpath(path) == os.path.realpath(target):
        raise InputProblemError(
            "output_is_input", f"output_path {str(target)!r} is the input file itself."
        )
    if os.path.realpath(path) == os.path.realpath(rejects_of(target)):
        raise InputProblemError(
            "output_is_input",
            f"output_path {str(target)!r}: its bad rows go to {rejects_of(target).name}, which is"
            " the input file itself.",
            "Choose another name.",
        )


def compression_of(path: Path, parameter: str) -> Compression:
    """Return the compression of a CSV file, by its name.

    Raises:
        InputProblemError: the name is not the name of a CSV file.
    """
    if sources.format_of(path) != "csv":
        raise InputProblemError(
            "file_format",
            f"{parameter}: {path.name!r} is no CSV file by its name.",
            f"It must end in {sources.CSV_NAMES}.",
        )
    return sources.COMPRESSIONS.get(path.suffix.lower(), "none")


def beginning(path: Path, written: Written, raw: bytes) -> Beginning:
    """Detect how a file is written.

    Args:
        path: the file, for errors.
        written: what the caller said.
        raw: the file's first :data:`HEADER_LIMIT_BYTES`, decompressed.

    Raises:
        InputProblemError: it is no text, or not in the given encoding; or its separator is
            ambiguous.
    """
    whole = len(raw) < HEADER_LIMIT_BYTES
    told: list[str] = []
    if written.encoding is None and raw[:2] in csv_dialect.UTF16_MARKS:
        written = replace(written, encoding="utf-16")
        told.append("encoding 'utf-16'")
    if csv_dialect.is_utf8(written.encoding):
        file_kind.require_no_archive(path, raw)
    elif (said := _utf8_all_the_same(raw, str(written.encoding))) is not None:
        told.append(said)
    head, start = raw, 3 if raw.startswith(codecs.BOM_UTF8) else 0
    if written.is_recoded:
        blocks = csv_recoding.recoded(path, [raw], written, whole=whole, requoted=False)
        head, start = b"".join(blocks), 0
    else:
        for _ in range(written.skip_rows):
            start = head.find(b"\n", start) + 1 or len(head)
    file_kind.require_text(path, head[start:])
    # A header with thousands of columns alone may exceed NATURE_BYTES.
    some = head[start : start + NATURE_BYTES + _HEADER_LENGTHS * (head.find(b"\n", start) - start)]
    written, separator = csv_dialect.detected(
        path, some, written, whole=whole and len(some) == len(head) - start
    )
    told += [separator] if separator else []
    if written.quote != '"' or written.escape:
        head = b"".join(csv_recoding.recoded(path, [raw], written, whole=whole))
    return Beginning(head, start, whole, written, tuple(told))


def _utf8_all_the_same(raw: bytes, encoding: str) -> str | None:
    """Return a warning if a file seems to be UTF-8, though the caller gave another encoding."""
    if raw.isascii() or b"\0" in raw:
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(raw)
    except UnicodeDecodeError:
        return None
    return f"encoding {encoding!r}, as was said, though its beginning is UTF-8"


def look(path: Path, compression: Compression, begin: Beginning) -> CsvFile:
    """Read the header of a file.

    Raises:
        InputProblemError: the file is no table (:mod:`csv.file_kind`), or not UTF-8; it has no
            header line, no row below it, or a repeated column.
    """
    head, start, written = begin.head, begin.start, begin.written
    separator = written.separator or ","
    if not head[start:].strip() and written.skip_rows:
        raise InputProblemError(
            "file_empty",
            f"{path} has no line below the first {written.skip_rows}.",
            "skip_rows is the number of lines above the header.",
        )
    end = _header_end(path, head, start, whole=begin.whole)
    if b"\0" in head[:end]:
        raise InputProblemError(
            "file_damaged",
            f"{path}, header: a NUL byte; it is not a CSV file.",
            "Export it again as plain text; if it is UTF-16, say so: encoding 'utf-16-le'.",
        )
    text = _decoded(path, head[start:end])
    csv.field_size_limit(max(csv.field_size_limit(), HEADER_LIMIT_BYTES))
    fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    if not any(field.strip() for field in fields):
        raise InputProblemError(
            "file_empty",
            f"{path} has no header line.",
            "The first line names the columns; skip_rows is the number of lines above it.",
        )
    beyond = head[end : end + NATURE_BYTES].decode(errors="replace")
    file_kind.require_table(path, text + beyond, fields, written)
    # The index column that pandas writes has no name.
    names = [name or f"column_{number}" for number, name in enumerate(fields, 1)]
    like_a_row = file_kind.like_a_row(text + beyond, fields, separator)
    if like_a_row and len(set(names)) < len(names):
        raise file_kind.no_header(path, like_a_row)
    require_distinct(path, names)
    if begin.whole and not head[end:].strip():
        raise InputProblemError(
            "file_empty", f"{path} has a header and no rows.", "Check how it was exported."
        )
    return CsvFile(path, compression, tuple(names), end, written, begin.told, like_a_row)


def columns_of(path: Path, written: Written = PLAIN, *, sound: bool = True) -> list[str] | None:
    """Return the columns of a CSV file; None if a library is needed to decompress it.

    Args:
        path: the file.
        written: what the caller said.
        sound: whether all of its beginning must be text, since the task rejects no rows.

    Raises:
        InputProblemError: see :func:`beginning`, :func:`look` and :func:`require_text`.
    """
    compression = compression_of(path, "dataset_path")
    raw = read_head(path, compression)
    if raw is None:
        return None
    begin = beginning(path, written, raw)
    file = look(path, compression, begin)
    if sound:
        require_text(path, [begin.head], whole=begin.whole)
    return list(file.columns)


def require_text(path: Path, blocks: Iterable[bytes], *, whole: bool = True) -> None:
    """Refuse text that is not UTF-8, or holds a NUL byte.

    Args:
        path: the file, for errors.
        blocks: the bytes from the file's beginning.
        whole: whether they go to its end; if not, they may end within a character.

    Raises:
        InputProblemError: names the line.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    for block in blocks:
        if b"\0" in block:
            line = lines + block.count(b"\n", 0, block.index(0))
            raise InputProblemError(
                "file_damaged",
                f"{path}, line {line}: a NUL byte; it is not a CSV file.",
                "Export it again as plain text.",
            )
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            read: bytes = error.object  # may begin with a character's bytes of the block before
            line = lines + read.count(b"\n", 0, error.start)
            raise _not_text(f"{path}, line {line}", read[error.start]) from None
        lines += block.count(b"\n")
    rest, _ = decoder.getstate()
    if whole and rest:
        raise _not_text(f"{path}, line {lines}", rest[0])


def _not_text(where: str, byte: int) -> InputProblemError:
    return InputProblemError(
        "file_encoding",
        f"{where}: byte 0x{byte:02x} is not UTF-8.",
        "If the whole file is not UTF-8, say its encoding, such as 'cp1252' (Windows) or"
        " 'latin-1'; if only this byte is wrong, correct it.",
    )


def _header_end(path: Path, head: bytes, start: int, *, whole: bool) -> int:
    """Return the offset behind the first newline outside quotes."""
    end = start
    while True:
        at = head.find(b"\n", end)
        if at < 0:
            break
        if head.count(b'"', start, at) % 2 == 0:
            return at + 1
        end = at + 1
    if not whole:
        raise InputProblemError(
            "file_damaged",
            f"{path} has no line end in its first {HEADER_LIMIT_BYTES >> 20} MiB.",
            "The first line of a CSV file names the columns.",
        )
    if b"\r" in head.rstrip(b"\r"):
        raise InputProblemError(
            "file_damaged",
            f"{path} ends its lines with CR alone.",
            "Convert it: tr '\\r' '\\n'.",
        )
    return len(head)


def _decoded(path: Path, header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError as error:
        raise _not_text(f"{path}, header", header[error.start]) from None


def read_head(path: Path, compression: Compression) -> bytes | None:
    """Return a file's first :data:`HEADER_LIMIT_BYTES`; None if that needs a library (zstd).

    Raises:
        InputProblemError: the file is not compressed as its name says.
    """
    if compression == "zstd":
        return None
    try:
        with path.open("rb") as raw:
            stream = gzip.GzipFile(fileobj=raw) if compression == "gzip" else raw
            return stream.read(HEADER_LIMIT_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputProblemError(
            "file_damaged", f"{path} cannot be decompressed: {error}.", "Copy it again."
        ) from None


# -- formulas in a request -------------------------------------------------------------------------


def filters(given: str | Mapping[str, float | str] | None) -> list[Formula]:
    """Parse ``transformations.filter``: a formula, or bounds by column."""
    if given is None:
        return []
    if isinstance(given, str):
        return [parse(given, "transformations.filter")]
    return [
        parse(column_filter(column, bound), f"transformations.filter.{column}")
        for column, bound in given.items()
    ]


def derived(given: Mapping[str, str]) -> list[tuple[str, Formula]]:
    """Parse ``transformations.new_columns``."""
    return [
        (name, parse(text, f"transformations.new_columns.{name}")) for name, text in given.items()
    ]


def column_filter(column: str, bound: float | str) -> str:
    """Return the formula of ``filter: {column: bound}``, which keeps rows above the bound.

    Raises:
        InputProblemError: the bound is infinite or NaN, which formulas cannot express.
    """
    if isinstance(bound, float) and not math.isfinite(bound):
        raise InputProblemError(
            "formula_invalid",
            f"transformations.filter.{column}: {bound} cannot be compared with.",
            "Give a finite number, or leave the column out of the filter.",
        )
    return f"col({quoted(column)}) > {quoted(bound) if isinstance(bound, str) else repr(bound)}"


def quoted(text: str) -> str:
    """Return text as a literal of a formula."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
