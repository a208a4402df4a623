"""Reads a dataset into memory with polars, and takes the fingerprints of its files."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from .files import sha256
from .protocol import InputProblemError
from .sources import Source, csv_header, require_distinct

#: What stands for a missing value in a CSV file, beside the empty field.
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null"]

#: Rows that decide a CSV column's type. Where a later row disproves them, all are looked at.
SCHEMA_ROWS = 10_000


#: No row of a sane table is longer; one that is would have to be held in memory whole.
ROW_LIMIT_BYTES = 16 << 20

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
    return _join([frame.select(names) for frame in frames])


def _join(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Put tables below each other; a column that is text in one of them is text in all."""
    text = {
        name
        for name in frames[0].columns
        if any(f.schema[name] == pl.String for f in frames)
        and len({f.schema[name] for f in frames}) > 1
    }
    joined = pl.concat(
        [f.with_columns(pl.col(sorted(text)).cast(pl.String)) if text else f for f in frames],
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


def require_even_rows(file: Path) -> None:
    """Refuse a CSV file in which a row has not the header's number of fields.

    Polars fills up what a row lacks, so that a line that was cut off becomes missing values.

    Raises:
        InputProblemError: quotes the first such row; or a row is longer than
            :data:`ROW_LIMIT_BYTES`.
    """
    uneven: list[pa_csv.InvalidRow] = []

    def stop(row: pa_csv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    try:
        with pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(
                autogenerate_column_names=True, block_size=ROW_LIMIT_BYTES
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
        elif "straddl" in what:
            what = f"a row is longer than {ROW_LIMIT_BYTES >> 20} MiB"
        raise InputProblemError(
            "rows_uneven",
            f"{file} cannot be read as CSV: {what}.",
            "Every row needs the header's number of fields; quote values that hold a comma.",
        ) from None


def _read_csv(file: Path, text: Collection[str]) -> pl.DataFrame:
    header = csv_header(file)
    require_even_rows(file)
    types = {name: pl.String() for name in header if name in text}
    try:
        try:
            frame = _parse_csv(file, SCHEMA_ROWS, types)
        except pl.exceptions.ComputeError:
            frame = _parse_csv(file, None, types)
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame({name: [] for name in header})
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InputProblemError(
            "dataset_damaged",
            f"{file} cannot be read as CSV: {_first_line(error)}.",
            "Every row needs the header's number of fields, in UTF-8.",
        ) from None
    if frame.is_empty():
        raise InputProblemError(
            "dataset_empty", f"{file} has a header and no rows.", "Check how it was exported."
        )
    return frame


def _parse_csv(file: Path, schema_rows: int | None, types: dict[str, pl.String]) -> pl.DataFrame:
    return pl.read_csv(
        file,
        schema_overrides=types,
        null_values=MISSING,
        infer_schema_length=schema_rows,
        try_parse_dates=True,
        truncate_ragged_lines=False,
    )


def _read_parquet(file: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputProblemError(
            "dataset_damaged",
            f"{file} cannot be read as Parquet: {_first_line(error)}.",
            "Write it again, or give it the suffix of what it is.",
        ) from None
    require_distinct(file, frame.columns)
    if frame.is_empty():
        raise InputProblemError(
            "dataset_empty", f"{file} has no rows.", "Check how it was exported."
        )
    return frame


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
