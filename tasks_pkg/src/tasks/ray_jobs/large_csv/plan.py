"""What a request of ``process_large_csv`` is to do with its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..csv import parsing as csv_parsing
from ..csv.files import CsvFile, derived, filters
from ..csv.plan import Plan, said
from ..inputs.sources import require_column


def make(file: CsvFile, parameters: Mapping[str, Any], folder: Path, sample: bytes) -> Plan:
    """Compile a request.

    Args:
        file: the input.
        parameters: of ``schemas_data.Transformations``.
        folder: for parts.
        sample: records that decide the types that were not given.

    Raises:
        InputProblemError: columns or formulas do not fit the file.
    """
    for name in parameters["schema"]:
        require_column(name, file.columns, "transformations.schema", str(file.path))
    form = said(parameters).of(file.written)
    form.require_formats(file.columns, str(file.path))
    plan = Plan(
        path=file.path,
        form=csv_parsing.fitted(sample, file.columns, form),
        folder=folder,
        output_format="parquet" if parameters["output_path"].lower().endswith("t") else "csv",
        reject=parameters["bad_rows"] == "reject",
        filters=tuple(filters(parameters["filter"])),
        derived=tuple(derived(parameters["new_columns"])),
        select=tuple(parameters["columns"]) if parameters["columns"] else None,
    )
    plan.check()
    return plan
