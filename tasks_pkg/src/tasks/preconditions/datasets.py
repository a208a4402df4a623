"""Check a dataset before a Ray job is started for it.

Each check receives a request, and the settings, which have the allowed roots. It raises
:class:`InvalidArgumentsError`, which names the value, its origin, and what to do.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.ray_jobs.inputs import sources
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.requests import AggregateRequest, ProcessCsvRequest
from tasks.settings import Settings

#: Options for CSV in the usual format.
NOTHING_SAID = CsvOptions()


def check(
    dataset_path: str,
    columns: dict[str, str],
    settings: Settings,
    options: CsvOptions = NOTHING_SAID,
) -> None:
    """Refuse a dataset that cannot be trained on, as far as this host can see.

    The job repeats these checks with the same code. If this host has no datasets (a root is absent
    or empty, as on a worker beside a remote Ray cluster), only the job checks them. The same holds
    for Parquet's columns: reading them needs a library that workers do not have.

    Args:
        dataset_path: as the caller gave it, see :func:`tasks.ray_jobs.inputs.sources.resolve`.
        columns: the required columns, and the parameter that names each.
        settings: provides the allowed roots.
        options: the caller's CSV options.
    """
    with _as_task_error(settings):
        source = sources.resolve(dataset_path, _roots(settings))
        for file in source.files if source.format == "csv" else ():
            own = csv_files.columns_of(file, options.written, sound=options.bad_rows != "reject")
            if own is not None:
                header = source.columns(file, own)
                for column, origin in columns.items():
                    sources.require_column(column, header, origin, str(file))


def check_csv(request: ProcessCsvRequest, settings: Settings) -> None:
    """Refuse what ``process_large_csv`` cannot do, as far as this host can see."""
    roots = _roots(settings)
    with _as_task_error(settings):
        formulas = csv_files.filters(request.filter)
        derived = csv_files.derived(request.new_columns)
        target = csv_files.output_file(request.output_path, "output_path", *roots)
        path = csv_files.input_file(request.file_path, "file_path", roots)
        csv_files.require_output_apart(path, target)
        compression = csv_files.compression_of(path, "file_path")
        head = csv_files.read_head(path, compression)
        if head is None:
            return
        begin = csv_files.beginning(path, request.csv.written, head)
        file = csv_files.look(path, compression, begin)
        for name in request.csv.schema:
            sources.require_column(name, file.columns, "transformations.schema", str(path))
        formats = request.csv.written.date_format
        for name in formats if isinstance(formats, Mapping) else ():
            sources.require_column(name, file.columns, "transformations.date_format", str(path))
        known = list(file.columns)
        for formula in formulas:
            formula.require_columns(known)
        for name, formula in derived:
            formula.require_columns(known)
            known.append(name)
        for name in request.columns or ():
            sources.require_column(name, known, "transformations.columns", str(path))


def check_sources(request: AggregateRequest, settings: Settings) -> None:
    """Refuse what ``aggregate_data`` cannot do, as far as this host can see."""
    roots = _roots(settings)
    needed = dict.fromkeys(request.group_by, "group_by")
    needed |= dict.fromkeys(request.aggregations or (), "aggregations")
    with _as_task_error(settings):
        target = csv_files.output_file(request.output_path, "output_path", *roots)
        found: dict[str, None] = {}
        whole = True
        for name in request.data_sources:
            source = sources.resolve(name, roots, "data_sources")
            for file in source.files:
                csv_files.require_output_apart(file, target)
                if source.format == "parquet":
                    whole = False
                    continue
                compression = csv_files.compression_of(file, "data_sources")
                head = csv_files.read_head(file, compression)
                if head is None:
                    whole = False
                    continue
                begin = csv_files.beginning(file, request.csv.written, head)
                own = csv_files.look(file, compression, begin).columns
                columns = source.columns(file, own)
                found |= dict.fromkeys(columns)
                for column, origin in needed.items():
                    sources.require_column(column, columns, origin, str(file))
        for column in request.csv.schema if whole else ():
            sources.require_column(column, list(found), "schema", "any of the sources")


def _roots(settings: Settings) -> tuple[str, str]:
    return str(settings.datasets_dir), str(settings.models_dir)


@contextmanager
def _as_task_error(settings: Settings) -> Iterator[None]:
    """Raise a job's refusal as a task's error; ignore a dataset that only the job can see."""
    try:
        yield
    except InputProblemError as error:
        root = settings.datasets_dir
        unseen = not (root.is_dir() and any(root.iterdir()))
        if unseen and error.kind in {"dataset_missing", "dataset_unreadable", "file_missing"}:
            return
        raise InvalidArgumentsError(str(error)) from None
