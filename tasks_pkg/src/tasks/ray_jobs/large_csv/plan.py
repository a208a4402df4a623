"""Compile a request of ``process_large_csv`` for its file."""

from pathlib import Path

from ..csv import parsing as csv_parsing
from ..csv.files import CsvFile, derived, filters
from ..csv.plan import Plan, said
from ..inputs.sources import require_column
from ..requests import ProcessCsvRequest


def make(file: CsvFile, asked: ProcessCsvRequest, folder: Path, sample: bytes) -> Plan:
    """Return the plan for a request.

    Args:
        file: the input.
        asked: the request.
        folder: the folder for parts.
        sample: records that decide the types that were not given.

    Raises:
        InputProblemError: columns or formulas do not match the file.
    """
    for name in asked.csv.schema:
        require_column(name, file.columns, "transformations.schema", str(file.path))
    form = said(asked.csv).of(file.written)
    form.require_formats(file.columns, str(file.path))
    plan = Plan(
        path=file.path,
        form=csv_parsing.fitted(sample, file.columns, form),
        folder=folder,
        output_format="parquet" if asked.output_path.lower().endswith("t") else "csv",
        reject=asked.bad_rows == "reject",
        filters=tuple(filters(asked.filter)),
        derived=tuple(derived(asked.new_columns)),
        select=tuple(asked.columns) if asked.columns else None,
    )
    plan.check()
    return plan
