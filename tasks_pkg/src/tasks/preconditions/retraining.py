"""Read which models to retrain, from which data and with which gate, before the job starts.

Each is a file ``registry/<name>.toml`` of the models folder::

    dataset_path = "wine"          # as of distributed_training
    enabled = true                 # false: kept, but not retrained

    [model_config]                 # as of distributed_training
    target = "quality"
    n_estimators = 200

    [gate]                         # in the unit of the metric, on the frozen hold-out
    min_score = 0.55               # none by default
    min_improvement = 0.0          # over the model in use; negative tolerates a loss

If an MLflow server is configured, the registered models with the tag ``celray.dataset_path`` are
used instead; ``celray.model_config`` and ``celray.gate`` are JSON.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs import requests
from tasks.ray_jobs.protocol import InfrastructureError, InputProblemError
from tasks.ray_jobs.registry.change import FOLDER
from tasks.ray_jobs.requests import BrokenEntry, RegisteredModel
from tasks.schemas.common import checked
from tasks.schemas.models import model_config_from
from tasks.settings import Settings
from tasks.submission.errors import RayUnavailableError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


class Gate(BaseModel):
    """The scores that a new model must reach to be used, in the unit of its metric."""

    # No comparison with NaN holds: a gate that contained one would pass everything.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_score: float | None = None
    """The limit on the frozen hold-out: the least score, or the most if less is better."""
    min_improvement: float = 0.0
    """The gain over the model in use, on the same rows; negative tolerates a loss."""


class Entry(BaseModel):
    """One file of the registry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_path: str = Field(min_length=1)
    """As of ``distributed_training``."""
    enabled: bool = True
    """Whether it is retrained."""
    config: dict[str, Any] = Field(default={}, alias="model_config")
    """As of ``distributed_training``."""
    gate: dict[str, Any] = {}
    """See :class:`Gate`."""


class _Found(NamedTuple):
    """The registry's entry for one name."""

    asked: RegisteredModel | BrokenEntry
    enabled: bool = True


def require_name(name: str) -> None:
    """Refuse a string that cannot be a model's name: it becomes part of a path.

    Raises:
        InvalidArgumentsError: the text says what a name is.
    """
    if not _NAME.fullmatch(name):
        message = (
            f"name: {name[:80]!r} is no name of a model; it has letters, digits, '_' and '-',"
            " at most 60"
        )
        raise InvalidArgumentsError(message)


def models(settings: Settings, names: list[str] | None) -> list[RegisteredModel | BrokenEntry]:
    """Return the models to retrain, as the job is asked.

    An entry with a mistake is included with its problem, so that the other models are retrained.

    Args:
        settings: provides the models folder, or the MLflow server.
        names: only these; None for all that are enabled.

    Raises:
        InvalidArgumentsError: a name is not registered.
        RayUnavailableError: the MLflow server does not answer; trying again later may help.
    """
    found = _of_mlflow(settings) if settings.mlflow_tracking_uri else _of_files(settings)
    if names is None:
        return [each.asked for each in found.values() if each.enabled]
    unknown = sorted(set(names) - set(found))
    if unknown:
        known = ", ".join(sorted(found)) or "none"
        message = f"names: {unknown[0]!r} is not registered; there are: {known}"
        raise InvalidArgumentsError(message)
    return [found[name].asked for name in dict.fromkeys(names)]


def _of_files(settings: Settings) -> dict[str, _Found]:
    folder = settings.models_dir / FOLDER
    files = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    # Files of editors, such as Emacs' locks, begin with a dot.
    return {file.stem: _of_file(file) for file in files if not file.name.startswith(".")}


def _of_file(file: Path) -> _Found:
    name = file.stem
    try:
        return _entry(name, tomllib.loads(file.read_text(encoding="utf-8")), str(file))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return _Found(BrokenEntry(name=name, problem=f"{file} cannot be read: {error}"))


def _of_mlflow(settings: Settings) -> dict[str, _Found]:
    from tasks.ray_jobs.registry.mlflow import MlflowRegistry  # noqa: PLC0415 - only where used

    kept = MlflowRegistry(str(settings.mlflow_tracking_uri))
    try:
        registered = kept.models()
    except InfrastructureError as error:
        raise RayUnavailableError(str(error)) from None
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
    found = {}
    for name, tags in sorted(registered.items()):
        enabled = tags.get("enabled", "true").lower() != "false"
        try:
            given = {
                "dataset_path": tags["dataset_path"],
                "model_config": json.loads(tags.get("model_config", "{}")),
                "gate": json.loads(tags.get("gate", "{}")),
                "enabled": enabled,
            }
        except ValueError as error:
            problem = f"a celray tag of model {name!r} in {kept.where} is not JSON: {error}"
            found[name] = _Found(BrokenEntry(name=name, problem=problem), enabled)
            continue
        found[name] = _entry(name, given, f"model {name!r} in {kept.where}")
    return found


def _entry(name: str, given: dict[str, Any], where: str) -> _Found:
    try:
        require_name(name)
        entry = checked(Entry, given, "the entry")
        config = model_config_from(entry.config)
        gate = checked(Gate, entry.gate, "gate")
    except InvalidArgumentsError as error:
        enabled = given.get("enabled") is not False
        return _Found(BrokenEntry(name=name, problem=f"{where}: {error}"), enabled)
    asked = RegisteredModel(
        name=name,
        parameters=config.training(entry.dataset_path).as_json(),
        gate=requests.Gate(min_score=gate.min_score, min_improvement=gate.min_improvement),
    )
    return _Found(asked, entry.enabled)
