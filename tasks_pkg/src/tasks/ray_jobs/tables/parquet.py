"""Read Parquet as polars tables, column by column: one unsupported type spoils no other column."""

from collections.abc import Iterator
from pathlib import Path

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..inputs.sources import require_distinct
from ..protocol import InputProblemError

#: The most digits of a decimal in polars.
_DECIMAL_DIGITS = 38


def names(path: Path) -> tuple[str, ...]:
    """Return a file's columns.

    Raises:
        InputProblemError: it is no Parquet file, or two columns have the same name.
    """
    try:
        found: list[str] = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error, "file_damaged") from None
    require_distinct(path, found)
    return tuple(found)


def parts(
    path: Path, rows: int, columns: list[str] | None = None
) -> Iterator[tuple[pl.DataFrame, dict[str, str]]]:
    """Yield a file's rows in parts.

    Args:
        path: the file.
        rows: the number of rows in one part.
        columns: the columns to read; None: all.

    Yields:
        A table, and the types that polars lacks, by column. Such a column holds true in place of
        each value, and null elsewhere.

    Raises:
        InputProblemError: the file cannot be read as Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                table = pa.Table.from_batches([batch])
                # For pyarrow, the name "a" also selects the nested "a.b".
                yield _table(table if columns is None else table.select(columns))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error, "file_damaged") from None


def read(path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read a file without the columns whose type polars lacks.

    Returns:
        The table, and the types of the columns that were left out.

    Raises:
        InputProblemError: the file cannot be read as Parquet, or has no rows.
    """
    try:
        schema = pq.read_schema(path)
        require_distinct(path, schema.names)
        if all(_is_known(column.type) for column in schema):
            frame = pl.read_parquet(path)
            unknown: dict[str, str] = {}
        else:
            # As a single file: a dataset would read key=value in the path as a column.
            with pq.ParquetFile(path) as file:
                frame, unknown = _table(file.read())
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise damaged(path, error, "dataset_damaged") from None
    if not frame.height:
        raise InputProblemError(
            "dataset_empty", f"{path} has no rows.", "Check how it was exported."
        )
    return frame.drop(unknown), unknown


def _table(table: pa.Table) -> tuple[pl.DataFrame, dict[str, str]]:
    columns, unknown = [], {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if isinstance(field.type, pa.Decimal256Type):
            column = _short(column)  # noqa: PLW2901 - the same values
        if not _is_known(column.type):
            unknown[field.name] = str(field.type)
            column = pc.if_else(pc.is_valid(column), True, None)  # noqa: PLW2901
        columns.append(column)
    made = pl.from_arrow(pa.table(columns, names=table.column_names))
    if not isinstance(made, pl.DataFrame):
        message = f"a table became a {type(made)}"
        raise TypeError(message)
    return made, unknown


def _short(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals with at most as many digits as polars has; unchanged if that is too few."""
    try:
        return column.cast(pa.decimal128(_DECIMAL_DIGITS, column.type.scale))
    except (pa.ArrowException, ValueError):
        return column


def _is_known(kind: pa.DataType) -> bool:
    """Return whether polars supports a type: an unknown one would abort the process."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _is_known(kind.value_type)
    if pa.types.is_nested(kind):
        if pa.types.is_union(kind):
            return False
        return all(_is_known(kind.field(i).type) for i in range(kind.num_fields))
    if isinstance(kind, pa.BaseExtensionType):
        return False
    return not (pa.types.is_decimal256(kind) or pa.types.is_interval(kind))


def damaged(path: Path, error: Exception, kind: str) -> InputProblemError:
    """Return the error for a file that cannot be read."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputProblemError(
        kind,
        f"{path} cannot be read as Parquet: {first}.",
        "Write it again, or give it the suffix of what it is.",
    )
