"""What can be told of a request for predictions before a Ray job is started for it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import dialect as csv_dialect
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.inputs import sources
from tasks.ray_jobs.model import signature
from tasks.ray_jobs.prediction import batches
from tasks.ray_jobs.protocol import InputProblemError
from tasks.settings import Settings


def check(
    model_path: str,
    data_batches: str | list[Any],
    id_column: str | None,
    settings: Settings,
    said: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Refuse a model and rows that do not go together, as far as this host can see.

    The job makes the same checks again, with the same code. Where this host has no models (as
    on a worker beside a Ray cluster elsewhere) they are left to it alone; so are the columns of
    Parquet files, which need a library that workers do not carry.

    Args:
        model_path: as the caller gave it, see :func:`tasks.ray_jobs.model.signature.find`.
        data_batches: as the caller gave them, see :mod:`tasks.ray_jobs.prediction.batches`.
        id_column: must be in every batch.
        settings: for the allowed roots.
        said: what the caller said of how CSV is written, by argument.

    Raises:
        InvalidArgumentsError: names the value, where it came from, and the way out.
    """
    roots = (settings.datasets_dir, settings.models_dir)
    try:
        files, rows = batches.divided(data_batches)
        if not all(root.is_dir() and any(root.iterdir()) for root in roots):
            return
        model = signature.find(model_path, str(settings.models_dir))
        written = csv_dialect.of(signature.written(model, said))
        for path in files:
            source = sources.resolve(path, [str(root) for root in roots], "data_batches")
            for file in source.files if source.format == "csv" else ():
                sound = said.get("bad_rows") != "reject"
                own = csv_files.columns_of(file, written, sound=sound)
                if own is None:  # it is packed, and workers lack the library
                    continue
                header = source.columns(file, own)
                signature.require_columns(model, header, str(file))
                if id_column is not None:
                    sources.require_column(id_column, header, "id_column", str(file))
        batches.require_rows(model, rows)
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
