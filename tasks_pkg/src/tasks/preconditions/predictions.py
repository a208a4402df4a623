"""What can be told of a request for predictions before a Ray job is started for it."""

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
    """Refuse a model and rows that do not go together, as far as this host can see.

    The job makes the same checks again, with the same code. Where this host has no models (as
    on a worker beside a Ray cluster elsewhere) they are left to it alone; so are the columns of
    Parquet files, which need a library that workers do not carry.

    Args:
        request: what the job is asked; its ``id_column`` must be in every batch.
        settings: for the allowed roots.

    Raises:
        InvalidArgumentsError: names the value, where it came from, and the way out.
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
                if own is None:  # it is packed, and workers lack the library
                    continue
                header = source.columns(file, own)
                signature.require_columns(model, header, str(file))
                if request.id_column is not None:
                    sources.require_column(request.id_column, header, "id_column", str(file))
        batches.require_rows(model, rows)
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
