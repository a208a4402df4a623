"""The data tasks: each checks what it was given and runs one Ray job."""

from typing import Any, cast

from tasks import datasets
from tasks.contracts import Untyped, validated
from tasks.orchestration import ray_task, run_job
from tasks.schemas_data import CsvResult, transformations_from
from tasks.settings import get_settings


@ray_task("tasks.data_tasks.process_large_csv")
@validated
def process_large_csv(
    self: Untyped,
    file_path: str,
    output_path: str,
    transformations: dict[str, Any] | None = None,
) -> CsvResult:
    """Filter one large CSV file and derive columns, on all CPUs, in bounded memory.

    Progress, stopping and errors are those of :func:`tasks.orchestration.run_job`.

    Args:
        self: the bound task.
        file_path: a ``.csv``, ``.tsv`` or ``.txt`` file, also with ``.gz`` or ``.zst`` behind it,
            under the datasets or the models folder, relative to the former.
        output_path: what to write, ``.parquet`` or ``.csv``, in the same folders.
        transformations: see :class:`tasks.schemas_data.Transformations`.

    Returns:
        See :class:`tasks.schemas_data.CsvResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    parameters = transformations_from(transformations or {}).parameters(file_path, output_path)
    datasets.check_csv(parameters, get_settings())
    return cast("CsvResult", run_job(self, "process_csv", parameters))
