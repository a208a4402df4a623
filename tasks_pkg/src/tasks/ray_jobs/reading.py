"""Reads a dataset into memory with polars, and takes the fingerprints of its files."""

import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from . import byte_ranges, csv_files
from .byte_ranges import RECORD_LIMIT_BYTES
from .files import sha256
from .protocol import InputProblemError
from .sources import Source, require_distinct

#: What stands for a missing value in a CSV file, beside the empty field.
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null"]

#: Rows that decide a CSV column's type. Where a later row disproves them, all are looked at.
SCHEMA_ROWS = 10_000


#: How much of a file is looked at at a time, before it is read.
BLOCK_BYTES = 8 << 20
_SHOWN = 80


@dataclass(frozen=True)
class Fingerprint:
    """What one input file was when it was read."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str

    def as_json(self) -> dict[str, str | int]:
        """Give the fields by name."""
        return asdict(self)


def fingerprints(source: Source) -> list[Fingerprint]:
    """Digest every file of ``source`` by its content."""

    def take(file: Path) -> Fingerprint:
        status = file.stat()
        return Fingerprint(str(file), status.st_size, status.st_mtime_ns, sha256(file))

    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run meanwhile
        return list(pool.map(take, source.files))


def require_unchanged(taken: list[Fingerprint]) -> None:
    """Refuse files that somebody wrote to while they were read.

    Raises:
        InputProblemError: names the first such file.
    """
    for fingerprint in taken:
        status = Path(fingerprint.path).stat()
        if (status.st_size, status.st_mtime_ns) != (fingerprint.bytes, fingerprint.modified_ns):
            raise InputProblemError(
                "dataset_changing",
                f"{fingerprint.path} was written to while it was being read.",
                "Copy it under another name and rename it when it is complete.",
            )


def read(source: Source, text: Collection[str] = ()) -> pl.DataFrame:
    """Read all files of ``source``, in their order, into one table.

    Text is stripped of surrounding blanks; what is then empty is missing.

    Args:
        source: the files.
        text: columns of a CSV file that are text even where they look like numbers.

    Raises:
        InputProblemError: a file that is damaged, or whose columns are not those of the first.
    """
    frames = [
        _read_csv(file, text) if source.format == "csv" else _read_parquet(file)
        for file in source.files
    ]
    names = frames[0].columns
    for file, frame in zip(source.files, frames, strict=True):
        if sorted(frame.columns) != sorted(names):
            added = sorted(set(frame.columns) - set(names))
            lacking = sorted(set(names) - set(frame.columns))
            raise InputProblemError(
                "columns_differ",
                f"{file} has not the columns of {source.files[0]}: it lacks {lacking or 'none'}"
                f" and adds {added or 'none'}.",
                "Give every part the same header.",
            )
    if source.format == "csv":
        frames = _with_text_as_written(source.files, frames, text)
    return _join(source.files, [frame.select(names) for frame in frames])


def _with_text_as_written(
    files: Sequence[Path], frames: list[pl.DataFrame], text: Collection[str]
) -> list[pl.DataFrame]:
    """Read again those files that hold only numbers, or the like, where another holds text.

    Else the same label would be ``007`` in one part and 7 in another.
    """
    mixed = [name for name in frames[0].columns if _is_mixed(_kinds(frames, name))]
    return [
        _read_csv(file, [*text, *mixed]) if any(f.schema[m] != pl.String for m in mixed) else f
        for file, f in zip(files, frames, strict=True)
    ]


def _kinds(frames: list[pl.DataFrame], name: str) -> dict[pl.DataType, int]:
    """Give the types that a column has, each with the number of the last table that has it.

    A CSV column without a value looks like text, and does not count.
    """
    return {f.schema[name]: i for i, f in enumerate(frames) if f[name].null_count() < len(f)}


def _is_mixed(kinds: dict[pl.DataType, int]) -> bool:
    return len(kinds) > 1 and pl.String() in kinds


def _join(files: Sequence[Path], frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Put tables below each other; a column that is text in one of them is text in all.

    Raises:
        InputProblemError: a column is of one kind here and of another there.
    """
    text = []
    for name in frames[0].columns if len(frames) > 1 else ():
        there = _kinds(frames, name)
        if _is_mixed(there):
            text.append(name)
            continue
        groups = {_group(kind): (kind, i) for kind, i in there.items()}
        if len(groups) > 1:
            (first, at), (other, beside) = list(groups.values())[:2]
            raise InputProblemError(
                "columns_differ",
                f"Column {name!r} is of type {first} in {files[at]} and {other} in"
                f" {files[beside]}.",
                "Write it in the same way in every part.",
            )
        empty = pl.lit(None).alias(name)
        frames = [f.with_columns(empty) if f[name].null_count() == len(f) else f for f in frames]
    joined = pl.concat(
        [f.with_columns(written(f[name]) for name in text) for f in frames],
        how="vertical_relaxed",
    )
    words = [name for name, kind in joined.schema.items() if kind == pl.String]
    if not words:
        return joined
    stripped = pl.col(words).str.strip_chars()
    return joined.with_columns(stripped).with_columns(
        pl.when(pl.col(name).is_in(MISSING)).then(None).otherwise(pl.col(name)).alias(name)
        for name in words
    )


def written(column: pl.Series) -> pl.Series:
    """Give a column as text; a whole number is written alike, whatever stands beside it."""
    if not column.dtype.is_float():
        return column.cast(pl.String)
    # Beside a fraction or a missing value, whole numbers are stored as floats.
    return column.fill_nan(None).cast(pl.String).str.strip_suffix(".0")


def _group(kind: pl.DataType) -> str:
    """Name what a type goes together with."""
    if kind.is_numeric() or kind == pl.Boolean:
        return "number"
    return "moment" if kind in {pl.Date, pl.Datetime} else str(kind)


def require_sound_text(file: Path) -> list[tuple[int, int]]:
    """Refuse a CSV file that is not UTF-8, holds a NUL byte, or opens a quote for ever.

    Polars would take the rest of the file for one value.

    Returns:
        Where its blank lines begin and end: to polars they are rows.

    Raises:
        InputProblemError: names the place; or a row is longer than :data:`RECORD_LIMIT_BYTES`.
    """
    blank: list[tuple[int, int]] = []

    def blocks() -> Iterator[bytes]:
        with file.open("rb") as stream:
            for piece in byte_ranges.stream_pieces(stream, BLOCK_BYTES, ord(","), file):
                if not piece.closed:
                    offset = piece.start + int(piece.toggles[-1])
                    raise byte_ranges.quote_open(file, offset)
                blank.extend(_blank_lines(piece))
                yield piece.data

    csv_files.require_text(file, blocks())
    return blank


def _blank_lines(piece: byte_ranges.Piece) -> Iterator[tuple[int, int]]:
    data = piece.data
    # Looking for them one by one takes longer than all else, and few files have any.
    if b"\n\n" in data or b"\n\r\n" in data or data.startswith((b"\n", b"\r\n")):
        for line in re.finditer(rb"^\r?\n", data, re.MULTILINE):
            if byte_ranges.quotes_before(piece.toggles, line.start()) % 2 == 0:
                yield piece.start + line.start(), piece.start + line.end()


def _without(file: Path, gaps: list[tuple[int, int]]) -> bytes:
    data = memoryview(file.read_bytes())
    starts = [0, *(end for _, end in gaps)]
    ends = [*(start for start, _ in gaps), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def require_even_rows(file: Path) -> None:
    """Refuse a CSV file in which a row has not the header's number of fields.

    Polars fills up what a row lacks, so that a line that was cut off becomes missing values.

    Raises:
        InputProblemError: quotes the first such row.
    """
    uneven: list[pa_csv.InvalidRow] = []

    def stop(row: pa_csv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    try:
        with pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(
                autogenerate_column_names=True, block_size=2 * RECORD_LIMIT_BYTES
            ),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=stop),
            convert_options=pa_csv.ConvertOptions(
                include_columns=["f0"], column_types={"f0": pa.binary()}, check_utf8=False
            ),
        ) as batches:
            for _ in batches:
                pass
    except pa.ArrowInvalid as error:
        what = _first_line(error)
        if uneven:
            row = uneven[0]
            text = row.text if len(row.text) <= _SHOWN else f"{row.text[:_SHOWN]}..."
            what = f"a row has {row.actual_columns} fields, not {row.expected_columns}: {text!r}"
        raise InputProblemError(
            "rows_uneven",
            f"{file} cannot be read as CSV: {what}.",
            "Every row needs the header's number of fields; quote values that hold a comma.",
        ) from None


def _read_csv(file: Path, text: Collection[str]) -> pl.DataFrame:
    header = csv_files.columns_of(file)
    blank = require_sound_text(file)
    require_even_rows(file)
    content = _without(file, blank) if blank else file
    try:
        # Polars' own names differ where the header has none.
        own = pl.read_csv(file, n_rows=0).columns
        types = {mine: pl.String() for mine, name in zip(own, header, strict=True) if name in text}
        try:
            frame = _parse_csv(content, SCHEMA_ROWS, types)
        except pl.exceptions.ComputeError:
            frame = _parse_csv(content, None, types)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputProblemError(
            "dataset_damaged",
            f"{file} cannot be read as CSV: {_first_line(error)}.",
            "Every row needs the header's number of fields, in UTF-8.",
        ) from None
    frame.columns = header
    if frame.is_empty():
        raise InputProblemError(
            "dataset_empty", f"{file} has a header and no rows.", "Check how it was exported."
        )
    return frame


def _parse_csv(
    content: Path | bytes, schema_rows: int | None, types: dict[str, pl.String]
) -> pl.DataFrame:
    return pl.read_csv(
        content,
        schema_overrides=types,
        null_values=MISSING,
        infer_schema_length=schema_rows,
        try_parse_dates=True,
        truncate_ragged_lines=False,
    )


def _read_parquet(file: Path) -> pl.DataFrame:
    try:
        require_distinct(file, pq.read_schema(file).names)  # polars reads none with such
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise InputProblemError(
            "dataset_damaged",
            f"{file} cannot be read as Parquet: {_first_line(error)}.",
            "Write it again, or give it the suffix of what it is.",
        ) from None
    if frame.is_empty():
        raise InputProblemError(
            "dataset_empty", f"{file} has no rows.", "Check how it was exported."
        )
    return frame


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
