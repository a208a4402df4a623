"""Where a model lies, under which name, and how it gets there whole."""

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import xgboost

from .files import code_digest, sha256, write_bytes, write_json
from .protocol import InputProblemError, JobRequest

FOLDER = "distributed_training"
MODEL = "model.ubj"
PREPROCESSING = "preprocessing.json"
HOLDOUT = "holdout.parquet"
MANIFEST = "manifest.json"


def folder(request: JobRequest, digests: Sequence[str]) -> Path:
    """Name the model's folder after everything that decides what is in it.

    Args:
        request: for the parameters; where the data lie makes no difference.
        digests: of the input files' contents, in order.
    """
    deciding = {
        "inputs": list(digests),
        "parameters": {k: v for k, v in request.parameters.items() if k != "dataset_path"},
        "code": code_digest(),
    }
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]
    stem = request.parameters["name"] or Path(request.parameters["dataset_path"]).stem
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "model"
    return Path(request.models_dir) / FOLDER / f"{readable}-{digest}"


def identity(request: JobRequest) -> dict[str, Any]:
    """Give the part of a manifest that says who made the model, from what, with which versions."""
    return {
        "schema": 1,
        "task": "tasks.ml_tasks.distributed_training",
        "submission_id": request.submission_id,
        "created_at": time.time(),
        "parameters": request.parameters,
        "code_version": code_digest(),
        "worker_code_version": request.code_version,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("ray", "polars", "numpy")},
            "xgboost": str(xgboost.__version__),
        },
    }


def finished(path: Path) -> dict[str, Any] | None:
    """Give the result of a run that wrote its manifest and whose files are still what it wrote."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        whole = all(sha256(path / name) == f["sha256"] for name, f in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    result: dict[str, Any] = manifest["result"]
    return result if whole else None


def require_writable(*folders: Path) -> None:
    """Make the folders that the run will write to, before it has cost anything.

    Raises:
        InputProblemError: names the one that cannot be written to, and by whom.
    """
    for path in folders:
        try:
            path.mkdir(parents=True, exist_ok=True)
            writable = os.access(path, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            raise InputProblemError(
                "models_unwritable",
                f"{path} cannot be written to by user {os.getuid()}.",
                "Give the models folder on the Ray nodes to that user, and check its free space.",
            )


def save(
    path: Path,
    model: bytes,
    preprocessing: dict[str, Any],
    holdout: pl.DataFrame,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Write the files under a temporary name, rename, and write the manifest last.

    Returns:
        The result in the manifest that is there at the end: of this run, or of an identical one
        that was quicker.
    """
    temporary = path.with_name(f".{path.name}.{manifest['submission_id']}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_bytes(temporary / MODEL, model)
        write_json(temporary / PREPROCESSING, preprocessing)
        holdout.write_parquet(temporary / HOLDOUT)
        files = {
            file.name: {"sha256": sha256(file), "bytes": file.stat().st_size}
            for file in sorted(temporary.iterdir())
        }
        other = finished(path)
        if other is not None:
            return other
        shutil.rmtree(path, ignore_errors=True)  # what a killed run left, without a manifest
        temporary.rename(path)
        write_json(path / MANIFEST, {**manifest, "files": files})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    result: dict[str, Any] = manifest["result"]
    return result
