"""What to do with each record of a CSV file; and whether the file changed while it was read."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from ..formulas import engine as formula_engine
from ..formulas.language import Formula, Kind
from ..inputs.sources import require_column
from ..protocol import InputProblemError
from . import files as csv_files
from . import parsing as csv_parsing
from .dialect import CsvOptions
from .parsing import Form

#: The number and the length of the blocks of a file that its fingerprint is made of.
DIGESTED_BLOCKS, DIGESTED_BLOCK_BYTES = 64, 64 << 10


@dataclass(frozen=True)
class Plan:
    """One request, compiled.

    Attributes:
        path: the input.
        form: what its records look like.
        folder: the folder for the parts of the output.
        output_format: the format of the result.
        reject: whether a bad record goes to the rejects file; if not, it ends the run.
        filters: conditions on the input's columns; a row is kept if all are true.
        derived: new columns in order; each may use the ones before it.
        select: the columns to write; None: all.
    """

    path: Path
    form: Form
    folder: Path
    output_format: Literal["parquet", "csv"]
    reject: bool
    filters: tuple[Formula, ...]
    derived: tuple[tuple[str, Formula], ...]
    select: tuple[str, ...] | None

    def transformed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Filter a table of input records, and add and choose columns."""
        lazy = frame.lazy()
        kinds = formula_engine.kinds(self.form.schema)
        conditions = [
            formula_engine.build(formula, kinds)[0].cast(pl.Boolean) for formula in self.filters
        ]
        if conditions:
            lazy = lazy.filter(conditions)
        for name, formula in self.derived:
            made, kind = formula_engine.build(formula, kinds)
            lazy = lazy.with_columns(made.alias(name))
            kinds[name] = kind
        if self.select is not None:
            lazy = lazy.select(self.select)
        return lazy.collect()

    def check(self) -> None:
        """Refuse formulas that do not fit the columns.

        Raises:
            InputProblemError: names formula, position and column.
        """
        kinds = formula_engine.kinds(self.form.schema)
        for formula in self.filters:
            if formula_engine.build(formula, kinds)[1] not in {"boolean", "missing"}:
                formula.refuse(formula.tree, "a filter must be true or false", "Compare: a > 0.")
        for name, formula in self.derived:
            kinds[name] = formula_engine.build(formula, kinds)[1]
        for name in self.select or ():
            require_column(name, list(kinds), "transformations.columns", str(self.path))

    def widened(self, needed: Mapping[str, Sequence[pl.DataType]]) -> "Plan":
        """Return the plan with types that hold the values that did not fit."""
        schema = dict(self.form.schema)
        for name, types in needed.items():
            schema[name] = csv_parsing.join([schema[name], *types])
        plan = replace(self, form=replace(self.form, schema=schema))
        plan.check()
        return plan

    def empty(self) -> pl.DataFrame:
        """Return the result's columns, without rows."""
        return self.transformed(pl.DataFrame(schema=self.form.dtypes))

    def output_columns(self) -> dict[str, Kind]:
        """Return the result's columns and their types, as formulas name them."""
        return formula_engine.kinds(self.empty().schema)


def said(options: CsvOptions) -> Form:
    """Return the form of records by a caller's options, with defaults for the rest."""
    declared = {name: formula_engine.DTYPES[kind] for name, kind in options.schema.items()}
    words = csv_files.MISSING if options.missing is None else tuple(options.missing)
    reject = options.bad_rows == "reject"
    form = Form(declared, frozenset(declared), words, reject=reject)
    return form.of(options.written)


# -- the input -------------------------------------------------------------------------------------


def fingerprint(path: Path) -> dict[str, str | int]:
    """Return what identifies a file's content: size, modification time, a digest of 64 blocks."""
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in range(DIGESTED_BLOCKS):
            stream.seek(
                max(0, status.st_size - DIGESTED_BLOCK_BYTES) * block // (DIGESTED_BLOCKS - 1)
            )
            digest.update(stream.read(DIGESTED_BLOCK_BYTES))
    return {
        "path": str(path),
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "sampled_sha256": digest.hexdigest(),
    }


def require_unchanged(path: Path, taken: Mapping[str, str | int]) -> None:
    """Refuse a file that was written to while it was read.

    Raises:
        InputProblemError: its size or time has changed.
    """
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (taken["bytes"], taken["modified_ns"]):
        raise InputProblemError(
            "file_changing",
            f"{path} was written to while it was being read.",
            "Copy it under another name and rename it when it is complete.",
        )
