"""Read and change which version of a model is in use. Standard library only.

In the folder ``registry/`` of the models folder, ``<name>.toml`` tells what to retrain (written by
people, see :mod:`tasks.preconditions.retraining`), and ``<name>/`` holds the results::

    versions.json           {"champion": 3, "previous": 2, "versions": [...]}; see Version
    holdout-<digest>.parquet  the rows on which versions are compared; chosen once per target

Both are plain files: a backup is a copy, and people can read them.
"""

import dataclasses
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .. import artefacts
from ..files import locked, write_json
from ..protocol import InputProblemError, JobRequest
from .versions import Registry, State, Version

FOLDER = "registry"
VERSIONS = "versions.json"
REPORT = "report.json"


class FileRegistry:
    """A registry of plain files.

    Args:
        models_dir: the models folder.
    """

    def __init__(self, models_dir: str) -> None:
        self.folder = Path(models_dir) / FOLDER
        self.where = str(self.folder)

    def retraining(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """See :class:`Registry`."""
        return locked(self.folder / ".retraining", waiting)

    def lock(self, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """See :class:`Registry`."""
        return locked(self.folder / ".lock", waiting)

    def state(self, name: str) -> State:
        """Return the state, see :class:`Registry`.

        Raises:
            InputProblemError: the file is damaged.
        """
        file = self.folder / name / VERSIONS
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            versions = tuple(Version(**version) for version in found["versions"])
            return State(found["champion"], found["previous"], versions)
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputProblemError(
                "registry_damaged",
                f"{file} cannot be read ({type(error).__name__}).",
                "Restore it from a backup, or move it away: the next retraining begins anew.",
            ) from None

    def record(self, name: str, version: Version) -> None:
        """Add a version, see :class:`Registry`; one write, so a killed job leaves no half."""
        before = self.state(name)
        champion, previous = before.champion, before.previous
        if version.promoted:
            champion, previous = version.number, before.champion
        self._write(name, State(champion, previous, (*before.versions, version)))

    def use(self, name: str, number: int) -> None:
        """See :class:`Registry`."""
        before = self.state(name)
        self._write(name, dataclasses.replace(before, champion=number, previous=before.champion))

    def _write(self, name: str, state: State) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_json(self.folder / name / VERSIONS, dataclasses.asdict(state))


def open_registry(models_dir: str, mlflow_uri: str | None) -> Registry:
    """Return the configured registry: an MLflow server's, or the plain files."""
    if mlflow_uri is None:
        return FileRegistry(models_dir)
    from .mlflow import MlflowRegistry  # noqa: PLC0415 - needs requests

    return MlflowRegistry(mlflow_uri)


@dataclasses.dataclass(frozen=True)
class Change:
    """One task's change of the registry, and the folder of its report.

    The folder belongs to the task, not to an attempt, so that a job that replaces a lost one finds
    its report. If there is no report yet, a :class:`Version` names the task that made it.
    """

    request: JobRequest
    task: str
    folder: Path
    kept: Registry

    @property
    def manifest_path(self) -> Path:
        """The report's manifest."""
        return self.folder / artefacts.MANIFEST

    def finished(self) -> dict[str, Any] | None:
        """Return the result, if an earlier attempt has finished the task."""
        result = artefacts.finished(self.manifest_path)
        return None if result is None else {**result, "reused": True}

    def report(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the report, and return the result."""
        manifest = {**artefacts.identity(self.request, self.task), "inputs": [], "result": result}
        return artefacts.publish(
            self.request, self.folder, manifest, lambda path: write_json(path / REPORT, result)
        )


def begin(
    request: JobRequest, mlflow_uri: str | None, task: str, folder: str, run_dir: Path
) -> Change:
    """Begin a change of the registry.

    Args:
        request: the job's request.
        mlflow_uri: the URI of the server with the registry; None: the registry is files.
        task: the full name of the task.
        folder: the folder of its reports, below the models folder.
        run_dir: the run's folder, which must also be writable.

    Raises:
        InputProblemError: a folder cannot be written to.
    """
    models = Path(request.models_dir)
    artefacts.require_writable(models / folder, models / FOLDER, run_dir)
    kept = open_registry(request.models_dir, mlflow_uri)
    return Change(request, task, models / folder / request.run, kept)


def way_back(registry: Registry, name: str, wanted: int | None) -> tuple[Version, Version]:
    """Return the version to use again, without a change.

    Args:
        registry: the registry.
        name: the model's name.
        wanted: the version; by default the one that was in use before.

    Returns:
        The version in use, and the version to go back to.

    Raises:
        InputProblemError: there is no such version, or no earlier one.
    """
    state = registry.state(name)
    current = state.version(state.champion)
    if current is None:
        raise InputProblemError(
            "model_unknown",
            f"{registry.where} has no model {name!r} in use.",
            "Its first version comes with retrain_models.",
        )
    number = state.previous if wanted is None else wanted
    if number is None:
        raise InputProblemError(
            "no_previous_version",
            f"Model {name!r} has had no version before version {current.number}.",
            "There is nothing to go back to.",
        )
    target = state.version(number)
    if target is None:
        known = ", ".join(str(version.number) for version in state.versions)
        raise InputProblemError(
            "version_unknown",
            f"Model {name!r} has no version {number}.",
            f"It has: {known}.",
        )
    if target.number == current.number:
        raise InputProblemError(
            "version_in_use", f"Version {number} of model {name!r} is in use already."
        )
    return current, target
