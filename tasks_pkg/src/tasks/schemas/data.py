"""The arguments and results of the data tasks: names, units, bounds."""

from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, Field

from tasks.contracts import InvalidArgumentsError, distinct
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.requests import ProcessCsvRequest
from tasks.schemas.common import Column, CsvWritten, JobReport, RowAccount, checked


class Transformations(CsvWritten):
    """``transformations`` of ``process_large_csv``; every key has a default.

    ``filter``, ``new_columns`` and ``num_chunks`` are the keys that callers have always sent.
    """

    filter: dict[Column, int | float | str] | str | None = None
    """``{column: x}`` keeps rows with column > x (dates as ISO text); or a formula."""
    new_columns: dict[Column, str] = {}  # noqa: RUF012 - pydantic copies it
    """Formula by name, in order; each may use those before it. Added after filtering."""
    num_chunks: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of ranges in which the file is read; raised if a range would exceed 12 MiB."""
    columns: Annotated[list[Column], AfterValidator(distinct)] | None = None
    """The columns to write, in this order; by default all."""
    bad_rows: Literal["fail", "reject"] | None = None
    """How a row that does not fit is handled: by default reject where a schema is given."""
    overwrite: bool = False
    """Whether a file that celray did not write may be replaced by the output."""

    def request(self, file_path: str, output_path: str) -> ProcessCsvRequest:
        """Return the request for the Ray job."""
        return ProcessCsvRequest(
            filter=self.filter,
            new_columns=self.new_columns,
            num_chunks=self.num_chunks,
            columns=self.columns,
            overwrite=self.overwrite,
            csv=self.options(),
            bad_rows=self.bad_rows or ("reject" if self.declared else "fail"),
            file_path=file_path,
            output_path=output_path,
        )


class CsvResult(JobReport):
    """What ``process_large_csv`` returns. rows_read = written + filtered + rejected, always."""

    status: Literal["success"]
    input_file: str
    output_file: str
    total_rows_processed: int
    """The same as rows_read."""
    num_chunks: int
    rows_read: int
    rows_written: int
    rows_filtered: int
    rows_rejected: int
    rejects_file: str | None
    """CSV with row (from 1, without header and blank lines), column, reason, record (JSON)."""
    columns: dict[str, str]
    """The output's columns and their types."""
    input_bytes: int
    timings: dict[str, float]
    """``connect_seconds``, ``workers_seconds`` (to the first range's start), ``work_seconds``."""


class AggregateResult(RowAccount, JobReport):
    """What ``aggregate_data`` returns."""

    status: Literal["success"]
    total_rows: int
    num_sources: int
    summaries: list[dict[str, Any]]
    """By source: ``source``, ``files``, ``rows``, ``columns`` (type, missing, count, min, max)."""
    mismatches: list[dict[str, Any]]
    """By source that differs from the first: what it ``lacks`` and ``adds``, and ``types``."""
    output_file: str
    output_rows: int


class NewFile(TypedDict, total=False):
    """The outcome for one delivered file."""

    file: str
    status: Literal["done", "duplicate", "failed"]
    sha256: str | None
    """Absent for a file that could not be read."""
    reason: str | None
    """Why it failed."""
    output: str | None
    """Its Parquet file."""
    rows: int | None
    rows_rejected: int
    """Bad rows that were put aside."""
    rejects_file: str | None
    """The file that lists them with their reasons; None if there are none."""
    columns: int
    of: str
    """For a duplicate: the file with the same content that was processed."""
    warnings: list[str]
    """For a processed file: what was decided on its columns' types."""
    seconds: float


class NewDataResult(JobReport):
    """What ``process_new_data`` returns."""

    status: Literal["success"]
    files: list[NewFile]
    done: int
    duplicate: int
    failed: int
    waiting: list[str]
    """Files that are still being written, or whose content another run is processing."""


def transformations_from(value: dict[str, Any]) -> Transformations:
    """Check a caller's ``transformations``.

    Raises:
        InvalidArgumentsError: names each wrong key or value and the nearest right one, or the wrong
            place in a formula.
    """
    transformations = checked(Transformations, value, "transformations", ["num_chunks"])
    try:
        csv_files.filters(transformations.filter)
        csv_files.derived(transformations.new_columns)
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
    return transformations
