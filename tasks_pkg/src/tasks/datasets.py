"""What can be told of a dataset before a Ray job is started for it."""

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs import sources
from tasks.ray_jobs.protocol import InputProblemError
from tasks.settings import Settings


def check(dataset_path: str, columns: dict[str, str], settings: Settings) -> None:
    """Refuse a dataset that cannot be trained on, as far as this host can see.

    The job makes the same checks again, with the same code. Where this host has no datasets
    (a root is absent or empty, as on a worker beside a Ray cluster elsewhere), they are left to
    it alone; so are Parquet's columns, which need a library that workers do not carry.

    Args:
        dataset_path: as the caller gave it, see :func:`tasks.ray_jobs.sources.resolve`.
        columns: columns that must be there, and the parameter that names each.
        settings: for the allowed roots.

    Raises:
        InvalidArgumentsError: names the value, where it came from, and the way out.
    """
    roots = (settings.datasets_dir, settings.models_dir)
    try:
        source = sources.resolve(dataset_path, [str(root) for root in roots])
        if source.format == "csv":
            header = sources.csv_header(source.files[0])
            for column, origin in columns.items():
                sources.require_column(column, header, origin, str(source.files[0]))
    except InputProblemError as error:
        unseen = not all(root.is_dir() and any(root.iterdir()) for root in roots[:1])
        if unseen and error.kind in {"dataset_missing", "dataset_unreadable"}:
            return
        raise InvalidArgumentsError(str(error)) from None
