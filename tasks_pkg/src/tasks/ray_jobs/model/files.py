"""A model's folder: its name and its files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from .. import artefacts
from ..files import write_bytes, write_json
from ..protocol import JobRequest

FOLDER = "distributed_training"
TASK = "tasks.ml_tasks.distributed_training"
MODEL = "model.ubj"
PREPROCESSING = "preprocessing.json"
HOLDOUT = "holdout.parquet"


def folder(request: JobRequest, stem: str, digests: Sequence[str]) -> Path:
    """Return the model's folder, named after everything that decides its content.

    Args:
        request: provides the parameters; the location of the data does not matter.
        stem: the readable part of the name.
        digests: digests of the input files' contents, in order.
    """
    number = artefacts.digest(request, digests, ignoring={"dataset_path"})
    return Path(request.models_dir) / FOLDER / artefacts.folder_name(stem or "model", number)


def writer(
    model: bytes, preprocessing: dict[str, Any], holdout: pl.DataFrame
) -> Callable[[Path], None]:
    """Return the function that writes a model's files into a folder."""

    def write(path: Path) -> None:
        write_bytes(path / MODEL, model)
        write_json(path / PREPROCESSING, preprocessing)
        holdout.write_parquet(path / HOLDOUT)

    return write
