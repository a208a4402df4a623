"""The data tasks: each checks its arguments and runs one Ray job."""

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from tasks.contracts import Distinct, Shape, Untyped, distinct, validated
from tasks.orchestration import ray_task, run_job
from tasks.preconditions import datasets
from tasks.ray_jobs.requests import AggregateRequest, InboxRequest
from tasks.schemas.common import Column, Kind, Separator
from tasks.schemas.csv_arguments import csv_arguments, csv_options
from tasks.schemas.data import (
    AggregateResult,
    CsvResult,
    NewDataResult,
    Transformations,
    transformations_from,
)
from tasks.settings import get_settings

Aggregation = Literal["count", "min", "max", "sum", "mean", "std"]
Aggregations = Annotated[list[Aggregation], Field(min_length=1), AfterValidator(distinct)]


@ray_task("tasks.data_tasks.process_large_csv")
@validated
def process_large_csv(
    self: Untyped,
    file_path: str,
    output_path: str,
    transformations: Annotated[
        dict[str, Any] | None, Shape(Transformations, transformations_from)
    ] = None,
) -> CsvResult:
    """Filter one large CSV file and derive columns, on all CPUs, in bounded memory.

    Progress, stopping and errors are those of every Ray job, see docs/tasks.md.

    Args:
        self: the bound task.
        file_path: a ``.csv``, ``.tsv`` or ``.txt`` file, also compressed as ``.gz`` or ``.zst``,
            under the datasets or the models folder, relative to the former.
        output_path: the file to write, ``.parquet`` or ``.csv``, under the datasets folder.
        transformations: see :class:`tasks.schemas.data.Transformations`.

    Returns:
        See :class:`tasks.schemas.data.CsvResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    request = transformations_from(transformations or {}).request(file_path, output_path)
    datasets.check_csv(request, get_settings())
    return cast("CsvResult", run_job(self, request.JOB, request))


@ray_task("tasks.data_tasks.aggregate_data")
@validated
@csv_arguments()
def aggregate_data(  # noqa: PLR0913, PLR0917 - what callers may name
    self: Untyped,
    data_sources: Annotated[Distinct, Field(min_length=1)],
    output_path: str,
    group_by: Distinct | None = None,
    aggregations: dict[str, Aggregations] | None = None,
    overwrite: bool = False,
    schema: dict[Column, Kind] | None = None,
    missing: list[str] | None = None,
    separator: Separator | None = None,
    **csv: Untyped,
) -> AggregateResult:
    """Summarise many CSV and Parquet sources, and aggregate over all of them by group.

    Progress, stopping and errors are those of every Ray job, see docs/tasks.md.

    Args:
        self: the bound task.
        data_sources: files, folders or prefixes of parts, as in ``distributed_training``.
        output_path: the file to write, ``.parquet`` or ``.csv``: the aggregates, or the sources'
            summaries if neither ``group_by`` nor ``aggregations`` is given.
        group_by: columns to group by, which every source must have.
        aggregations: functions by column, which every source must have; by default all but
            ``std`` of the numeric columns.
        overwrite: whether a file that celray did not write may be replaced.
        schema: type by column of the CSV sources; other columns get the narrowest type that holds
            all their values as written.
        missing: what stands for a missing value in CSV, quoted or not.
        separator: the character between fields in CSV; by default it is detected.
        csv: other options of the CSV format, see :class:`tasks.schemas.common.CsvWritten`.

    Returns:
        See :class:`tasks.schemas.data.AggregateResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    said = {"schema": schema, "missing": missing, "separator": separator, **csv}
    request = AggregateRequest(
        data_sources=data_sources,
        output_path=output_path,
        group_by=group_by or [],
        aggregations=aggregations,
        overwrite=overwrite,
        csv=csv_options("aggregate_data", said),
    )
    datasets.check_sources(request, get_settings())
    return cast("AggregateResult", run_job(self, request.JOB, request))


@ray_task("tasks.data_tasks.process_new_data")
@validated
@csv_arguments()
def process_new_data(
    self: Untyped,
    settle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0,
    stale_seconds: Annotated[float, Field(ge=60, le=7 * 86_400)] = 900.0,
    **csv: Untyped,
) -> NewDataResult:
    """Check the files delivered to ``new/`` of the datasets folder, and convert them to Parquet.

    Progress, stopping and errors are those of every Ray job, see docs/tasks.md. Concurrent runs
    process each file once.

    Args:
        self: the bound task.
        settle_seconds: a file is taken only after it has been unchanged for this time.
        stale_seconds: the files of another run are taken over if that run was silent for this time.
        csv: options of the CSV format, see :class:`tasks.schemas.common.CsvWritten`.

    Returns:
        See :class:`tasks.schemas.data.NewDataResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments, or folders that cannot be written to.
    """
    request = InboxRequest(
        settle_seconds=settle_seconds,
        stale_seconds=stale_seconds,
        csv=csv_options("process_new_data", csv),
    )
    return cast("NewDataResult", run_job(self, request.JOB, request))
