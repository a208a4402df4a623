"""Check a prediction request before a Ray job is started for it."""

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.ray_jobs.inputs import sources
from tasks.ray_jobs.model import signature
from tasks.ray_jobs.prediction import batches
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.requests import PredictRequest
from tasks.settings import Settings


def check(request: PredictRequest, settings: Settings) -> None:
    """Refuse a model and rows that do not match, as far as this host can see.

    The job repeats these checks with the same code. If this host has no models (as on a worker
    beside a remote Ray cluster), only the job checks them. The same holds for the columns of
    Parquet files: reading them needs a library that workers do not have.

    Args:
        request: the job's request; its ``id_column`` must be in every batch.
        settings: provides the allowed roots.

    Raises:
        InvalidArgumentsError: names the value, its origin, and what to do.
    """
    roots = (settings.datasets_dir, settings.models_dir)
    try:
        files, rows = batches.divided(request.data_batches)
        if not all(root.is_dir() and any(root.iterdir()) for root in roots):
            return
        model = signature.find(request.model_path, str(settings.models_dir))
        written = CsvOptions.of(signature.written(model, request.csv)).written
        for path in files:
            source = sources.resolve(path, [str(root) for root in roots], "data_batches")
            for file in source.files if source.format == "csv" else ():
                sound = request.csv.bad_rows != "reject"
                own = csv_files.columns_of(file, written, sound=sound)
                if own is None:  # it is compressed, and workers lack the library
                    continue
                header = source.columns(file, own)
                signature.require_columns(model, header, str(file))
                if request.id_column is not None:
                    sources.require_column(request.id_column, header, "id_column", str(file))
        batches.require_rows(model, rows)
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
