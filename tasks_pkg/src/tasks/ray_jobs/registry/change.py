"""Which model of a name is in use, which were before, and how that changes. Standard library only.

Below ``registry/`` of the models folder, ``<name>.toml`` says what is to be retrained (written by
people, see :mod:`tasks.preconditions.retraining`), and ``<name>/`` holds what came of it::

    versions.json           {"champion": 3, "previous": 2, "versions": [...]}; see Version
    holdout-<digest>.parquet  the rows on which versions are compared; chosen once per target

Both are plain files: a backup is a copy, and a person can read them.
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
        """See :class:`Registry`.

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
        """See :class:`Registry`; one write, so that a killed job has done it or has not."""
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
    """Return the registry that is configured: an MLflow server's, or the plain files."""
    if mlflow_uri is None:
        return FileRegistry(models_dir)
    from .mlflow import MlflowRegistry  # noqa: PLC0415 - needs requests

    return MlflowRegistry(mlflow_uri)


@dataclasses.dataclass(frozen=True)
class Change:
    """One task's change of the registry, and the folder in which it keeps its report.

    The folder is the task's, not its attempt's: a job that takes the place of one that was lost
    finds its report. Where there is none yet, a :class:`Version` says which task made it.
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
        """Return the result, if the task has come to its end before."""
        result = artefacts.finished(self.manifest_path)
        return None if result is None else {**result, "reused": True}

    def report(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the report, and give the result."""
        manifest = {**artefacts.identity(self.request, self.task), "inputs": [], "result": result}
        return artefacts.publish(
            self.request, self.folder, manifest, lambda path: write_json(path / REPORT, result)
        )


def begin(
    request: JobRequest, mlflow_uri: str | None, task: str, folder: str, run_dir: Path
) -> Change:
    """Begin a change of the registry.

    Args:
        request: the job's.
        mlflow_uri: of the server that keeps the registry; None: it is files.
        task: the full name of the task.
        folder: of its reports, below the models folder.
        run_dir: the run's folder, which must be writable too.

    Raises:
        InputProblemError: a folder cannot be written to.
    """
    models = Path(request.models_dir)
    artefacts.require_writable(models / folder, models / FOLDER, run_dir)
    kept = open_registry(request.models_dir, mlflow_uri)
    return Change(request, task, models / folder / request.run, kept)


def way_back(registry: Registry, name: str, wanted: int | None) -> tuple[Version, Version]:
    """Find the version to put to use again; changes nothing.

    Args:
        registry: where.
        name: of the model.
        wanted: the version; by default the one that was in use before.

    Returns:
        The version that is in use, and the one to go back to.

    Raises:
        InputProblemError: there is no such version, or none to go back to.
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
