"""What the data tasks take and give: names, units, bounds."""

import re
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from tasks.contracts import InvalidArgumentsError, distinct, wrong
from tasks.ray_jobs import csv_files
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.sources import is_pattern

Kind = Literal["integer", "number", "text", "boolean", "date", "datetime"]


def _plain(name: str) -> str:
    if "\0" in name:
        message = "a name has no NUL byte in it"
        raise ValueError(message)
    if is_pattern(name):
        message = f"{name[:80]!r} is no name: not '*', and not from '^' to '$'"
        raise ValueError(message)
    return name


def _one_sign(value: str) -> str:
    if not re.fullmatch(r"[\t -~]", value) or value == '"':
        message = "must be one ASCII character other than a quote"
        raise ValueError(message)
    return value


#: What stands between the fields of a CSV file.
Separator = Annotated[str, AfterValidator(_one_sign)]

Column = Annotated[str, Field(min_length=1), AfterValidator(_plain)]

#: What stands for a missing value in a CSV file.
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null")

Model = TypeVar("Model", bound=BaseModel)


class Transformations(BaseModel):
    """``transformations`` of ``process_large_csv``; every key has a default.

    ``filter``, ``new_columns`` and ``num_chunks`` are what callers have always sent.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    filter: dict[Column, int | float | str] | str | None = None
    """``{column: x}`` keeps rows with column > x (dates as ISO text); or a formula."""
    new_columns: dict[Column, str] = {}
    """Formula by name, in order; each may use those before it. Added after filtering."""
    num_chunks: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Ranges that the file is read in; raised where one would be more than 12 MiB."""
    columns: Annotated[list[Column], AfterValidator(distinct)] | None = None
    """The columns to write, in this order; by default all."""
    declared: Annotated[dict[Column, Kind], Field(alias="schema")] = {}
    """Type by column; columns that are not named get the narrowest that holds their values."""
    bad_rows: Literal["fail", "reject"] | None = None
    """What to do with a row that does not fit: by default reject where a schema is given."""
    missing: list[str] = list(MISSING)
    """What stands for a missing value, quoted or not."""
    separator: Separator = ","
    """The character between fields."""
    overwrite: bool = False
    """Whether a file that celray did not write may be replaced by the output."""

    def parameters(self, file_path: str, output_path: str) -> dict[str, Any]:
        """Give the parameters of the Ray job."""
        return {
            **self.model_dump(by_alias=True),
            "bad_rows": self.bad_rows or ("reject" if self.declared else "fail"),
            "file_path": file_path,
            "output_path": output_path,
        }


class JobTimes(TypedDict):
    """What every task that stands for a Ray job returns beside its own."""

    manifest_path: str
    reused: bool
    """An identical request had been done before, and this is its result."""
    warnings: list[str]
    ray_submission_id: str
    queue_seconds: float | None
    """Publishing to the task's start; None where the client stamps no messages."""
    startup_seconds: float
    """Submission to the first line of the job's code."""
    engine_seconds: float
    """The first line of the job's code to its result."""


class CsvResult(JobTimes):
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


class AggregateResult(JobTimes):
    """What ``aggregate_data`` returns."""

    status: Literal["success"]
    total_rows: int
    rows_read: int
    """= rows_used + rows_filtered + rows_rejected, always."""
    rows_used: int
    rows_filtered: int
    rows_rejected: int
    """None: a bad row ends the task."""
    left_out: list[dict[str, Any]]
    """By ``reason`` the ``rows`` that were filtered, and the ``first`` of them, from 1."""
    num_sources: int
    summaries: list[dict[str, Any]]
    """By source: ``source``, ``files``, ``rows``, ``columns`` (type, missing, count, min, max)."""
    mismatches: list[dict[str, Any]]
    """By source that differs from the first: what it ``lacks`` and ``adds``, and ``types``."""
    output_file: str
    output_rows: int


class NewFile(TypedDict, total=False):
    """What became of one delivered file."""

    file: str
    status: Literal["done", "duplicate", "failed"]
    sha256: str | None
    """None of a file that could not be read."""
    reason: str | None
    """Why it failed."""
    output: str | None
    """Its Parquet file."""
    rows: int | None
    columns: int
    of: str
    """Of a duplicate: the file of the same content that was processed."""
    warnings: list[str]
    """Of one that is done: what was decided on its columns' types."""
    seconds: float


class NewDataResult(JobTimes):
    """What ``process_new_data`` returns."""

    status: Literal["success"]
    files: list[NewFile]
    done: int
    duplicate: int
    failed: int
    waiting: list[str]
    """Files that are still being written, or whose content another run has in hand."""


def transformations_from(value: dict[str, Any]) -> Transformations:
    """Check a caller's ``transformations``.

    Raises:
        InvalidArgumentsError: names each wrong key or value, and the nearest right one; or the
            place in a formula that is wrong.
    """
    value = dict(value)
    chunks = value.get("num_chunks")
    if isinstance(chunks, float) and chunks.is_integer():
        value["num_chunks"] = int(chunks)  # JSON from some clients
    transformations = checked(Transformations, value, "transformations")
    try:
        csv_files.filters(transformations.filter)
        csv_files.derived(transformations.new_columns)
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
    return transformations


def checked(model: type[Model], value: dict[str, Any], name: str) -> Model:
    """Check a dictionary that a caller gave as the parameter ``name``.

    Raises:
        InvalidArgumentsError: names each wrong key or value, and the nearest right one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        known = [field.alias or key for key, field in model.model_fields.items()]
        told = "; ".join(problem.text for problem in wrong(error, value, name, known))
        raise InvalidArgumentsError(told) from None
