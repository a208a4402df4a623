"""Read the columns in the names of subfolders: ``year=2024/month=01/part-0.parquet``."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from ..csv import parsing as csv_parsing
from ..csv.parsing import Form
from ..inputs.sources import Source
from ..protocol import InputProblemError


def keys(source: Source, form: Form, text: Collection[str] = ()) -> pl.DataFrame:
    """Return the keys of a source's files, a row per file; a table without columns if it has none.

    Types are detected as for the columns of a CSV file: ``zip=02494`` is text.

    Args:
        source: the files.
        form: the declared types and missing values, as the caller gave them.
        text: columns that are text in any case.

    Raises:
        InputProblemError: a value is not of its declared type.
    """
    columns = []
    for name in source.keys[0] if source.keys else ():
        words = [known[name] for known in source.keys]
        values = pl.Series(name, [None if v in form.missing else v for v in words], pl.String())
        dtype = pl.String() if name in text else form.schema.get(name)
        columns.append(_typed(values, dtype or csv_parsing.narrowest(values, form)))
    return pl.DataFrame(columns)


def _typed(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype in {pl.String(), pl.Null()}:
        return values
    form = Form({values.name: dtype}, frozenset([values.name]), ("",))
    quoted = ((value or "").replace('"', '""') for value in values)
    data = "".join(f'"{value}"\n' for value in quoted).encode()
    try:
        return form.read(data, form.schema).to_series()
    except pl.exceptions.PolarsError:
        for value in values.drop_nulls().unique(maintain_order=True):
            try:
                form.read(f"{value}\n".encode(), form.schema)
            except pl.exceptions.PolarsError:
                raise InputProblemError(
                    "row_invalid",
                    f"A folder named {values.name}={value}: {value!r} is not of the declared type.",
                    f"Rename the folder, or declare another type for {values.name!r} (schema).",
                ) from None
        raise


def added(frame: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return a file's table with the columns in its folders' names; ``known`` is their one row."""
    return frame.with_columns(
        pl.repeat(column[0], frame.height, dtype=column.dtype, eager=True).alias(column.name)
        for column in known
    )


def without(form: Form, names: Sequence[str]) -> Form:
    """Return the caller's form without these columns."""
    schema = {name: dtype for name, dtype in form.schema.items() if name not in names}
    return replace(form, schema=schema, declared=frozenset(schema))
