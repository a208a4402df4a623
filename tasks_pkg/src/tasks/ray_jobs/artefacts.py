"""The outputs of a run: their folder, their names, and their atomic publication.

A run writes under a temporary name, renames, and writes the manifest last. So outputs with a
manifest are complete, and an identical request finds them by their name.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .files import code_digest, locked, sha256, write_json
from .protocol import InputProblemError, JobRequest

MANIFEST = "manifest.json"

#: The libraries whose versions may affect what a run writes.
_LIBRARIES = ("ray", "polars", "numpy", "xgboost-cpu", "pyarrow")


def digest(request: JobRequest, digests: Sequence[str], ignoring: Collection[str] = ()) -> str:
    """Return 12 digits of a digest over everything that decides what a run writes.

    Args:
        request: provides the parameters.
        digests: digests of the input files' contents, in order.
        ignoring: parameters that do not matter, such as the inputs' location.
    """
    deciding = {
        "inputs": list(digests),
        "parameters": {k: v for k, v in request.parameters.items() if k not in ignoring},
        "code": code_digest(),
    }
    # In the caller's order: derived columns are computed and written in that order.
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:12]


def folder_name(stem: str, number: str) -> str:
    """Return a folder name that people recognise and that is unique to its content."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "run"
    return f"{readable}-{number}"


def identity(request: JobRequest, task: str) -> dict[str, Any]:
    """Return the part of a manifest about its origin: the task, the inputs, the versions."""
    return {
        "schema": 1,
        "task": task,
        "submission_id": request.submission_id,
        "created_at": time.time(),
        "parameters": request.parameters,
        "code_version": code_digest(),
        "worker_code_version": request.code_version,
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name.removesuffix("-cpu")] = version(name)
        except PackageNotFoundError:  # a plain job needs no Ray
            continue
    return found


def finished(manifest_path: Path) -> dict[str, Any] | None:
    """Return the result of a run that wrote its manifest and whose files are unchanged since."""
    try:
        manifest = json.loads(manifest_path.read_text())
        whole = all(
            sha256(manifest_path.parent / name) == file["sha256"]
            for name, file in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return None
    result: dict[str, Any] = manifest["result"]
    return result if whole else None


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Return digest and size (bytes) of every file in ``folder`` and below, by relative name."""
    return {
        str(file.relative_to(folder)): {"sha256": sha256(file), "bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def require_writable(*folders: Path) -> None:
    """Create the output folders before the job has done any work.

    Raises:
        InputProblemError: names the folder that cannot be written, and the user.
    """
    for path in folders:
        try:
            path.mkdir(parents=True, exist_ok=True)
            writable = os.access(path, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            raise InputProblemError(
                "unwritable",
                f"{path} cannot be written to by user {os.getuid()}.",
                "Give that folder on the Ray nodes to that user, and check its free space.",
            )


def publishing(request: JobRequest) -> AbstractContextManager[None]:
    """Return a lock under which one job at a time gives files their final names, for a moment.

    Without it, if two jobs publish the same names together, one could describe the other's files.
    """
    return locked(Path(request.runs_dir) / ".publishing")


def publish(
    request: JobRequest, path: Path, manifest: dict[str, Any], write: Callable[[Path], None]
) -> dict[str, Any]:
    """Write a folder under a temporary name, rename it, and write its manifest last.

    Args:
        request: the job's request.
        path: the folder's final name.
        manifest: :func:`identity` and further keys, including ``result``; ``files`` is added.
        write: writes the files into the folder that it is given.

    Returns:
        The result in the manifest that exists at the end: of this run, or of an identical one that
            was faster.
    """
    temporary = path.with_name(f".{path.name}.{request.submission_id}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        whole = {**manifest, "files": described(temporary)}
        json.dumps(whole)  # raise for what JSON cannot hold, before anything has its final name
        with publishing(request):
            other = finished(path / MANIFEST)
            if other is not None:
                return other
            shutil.rmtree(path, ignore_errors=True)  # a killed run left it, without a manifest
            temporary.rename(path)
            write_json(path / MANIFEST, whole)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    result: dict[str, Any] = manifest["result"]
    return result
