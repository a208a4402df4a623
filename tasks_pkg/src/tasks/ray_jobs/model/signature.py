"""The columns that a model takes, by name and type. Standard library only.

The worker checks rows before a job is submitted, and the job checks them again.
"""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..csv import dialect as csv_dialect
from ..csv.dialect import CsvOptions
from ..inputs import paths
from ..protocol import InputProblemError

MANIFEST = "manifest.json"

#: The tasks whose output folders hold a model.
MODEL_TASKS = frozenset({"tasks.ml_tasks.distributed_training"})

#: The version of signatures that older releases must refuse: without the scaling of its numbers
#: their predictions would be wrong. Those releases look for ``columns``, which this version lacks.
SCALED = 2

#: The size limit of a manifest, which is normally a page of JSON.
_MANIFEST_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Model:
    """A model's folder and its manifest.

    Attributes:
        folder: the model's folder.
        manifest: the whole manifest.
        types: the input columns in the order of the training table, with their types.
    """

    folder: Path
    manifest: dict[str, Any]
    types: dict[str, str]

    @property
    def needed(self) -> list[str]:
        """Return the columns that the model requires."""
        return [name for name, kind in self.types.items() if kind != "unused"]


def describe(
    columns: Sequence[str],
    roles: Mapping[str, str],
    preprocessing: Mapping[str, Any],
    *,
    scaled: bool,
) -> dict[str, Any]:
    """Return a model's signature as stored in its manifest.

    Args:
        columns: the columns in the order of the training table.
        roles: their types.
        preprocessing: the model's preprocessing.
        scaled: whether it scales anything; releases without scaling then refuse the model.
    """
    inputs = [{"name": name, "type": roles[name]} for name in columns]
    output = preprocessing["target"]
    if scaled:
        return {"version": SCALED, "inputs": inputs, "output": output}
    return {"columns": inputs, "output": output}


def find(model_path: str, models_dir: str) -> Model:
    """Find a model and read its manifest.

    Args:
        model_path: a model's folder or its manifest, as in a training's result; a relative path is
            under the models folder.
        models_dir: the folder that must contain it once every link and ``..`` is followed.

    Raises:
        InputProblemError: names the path, what is wrong with it, and what to do.
    """
    shown = f"model_path {model_path!r}"
    way_out = "Name a model_path from a training's result."
    path = paths.inside(model_path, "model_path", [models_dir])
    folder = path.parent if path.name == MANIFEST else path
    paths.require_inside(folder / MANIFEST, shown, [models_dir])
    try:
        if (folder / MANIFEST).stat().st_size > _MANIFEST_LIMIT_BYTES:
            raise ValueError
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        task = manifest["task"]
        types = _types(manifest["signature"], shown) if task in MODEL_TASKS else {}
    except PermissionError:
        raise InputProblemError(
            "model_unreadable",
            f"{shown}: {folder / MANIFEST} cannot be read by user {os.getuid()}.",
            "Let that user read it.",
        ) from None
    except OSError:
        raise InputProblemError(
            "model_missing",
            f"{shown}: {folder} holds no readable {MANIFEST}, so no finished model.",
            _nearest(folder) or way_out,
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputProblemError(
            "model_foreign",
            f"{shown}: {folder / MANIFEST} is not the manifest of a model that this version"
            " trained.",
            "Train the model again; models from elsewhere, such as pickles, are not loaded.",
        ) from None
    if task not in MODEL_TASKS:
        raise InputProblemError(
            "model_foreign", f"{shown}: {folder} was written by {task} and is no model.", way_out
        )
    return Model(folder, manifest, types)


def _types(found: Mapping[str, Any], shown: str) -> dict[str, str]:
    """Return the columns' types from a signature of this or an earlier release."""
    version = dict(found).get("version", 1)
    if version not in (1, SCALED):
        raise InputProblemError(
            "model_newer",
            f"{shown}: a later release of celray trained it (signature version {version!r}; this"
            f" one knows up to {SCALED}).",
            "Deploy that release again, or train the model with this one.",
        )
    columns = found["inputs" if version == SCALED else "columns"]
    return {str(column["name"]): str(column["type"]) for column in columns}


#: CSV options of a training that may differ in the files to predict, where they can be detected.
_OWN = {"separator", "encoding", "skip_rows", "comment"}


def written(model: Model, said: CsvOptions) -> dict[str, Any]:
    """Return the CSV options for files that a model is to predict.

    Args:
        model: the model. Options about the meaning of values are those of its training, unless the
            caller gives others. Options about the structure of files are not taken from the
            training: they are detected, or an error shows them.
        said: the options that the caller gave.
    """
    names = {"missing", *csv_dialect.DEFAULTS} - _OWN
    trained = model.manifest.get("parameters") or {}
    formats = trained.get("date_format")
    if isinstance(formats, dict):  # the target's, say, is not to be in the files
        needed = {name: form for name, form in formats.items() if name in model.needed}
        trained = {**trained, "date_format": needed}
    own = {name: value for name, value in said.given().items() if name != "schema"}
    return {**{name: trained[name] for name in sorted(names) if name in trained}, **own}


def _nearest(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    near = difflib.get_close_matches(folder.name, [f.name for f in folder.parent.iterdir()], n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def require_columns(model: Model, columns: Sequence[str], where: str) -> None:
    """Refuse a table that lacks a column of the model.

    Raises:
        InputProblemError: names the missing columns.
    """
    lacking = [name for name in model.needed if name not in columns]
    if not lacking:
        return
    near = difflib.get_close_matches(lacking[0], columns, n=1)
    hint = f"Did you mean it by {near[0]!r}? " if near else ""
    raise InputProblemError(
        "column_missing",
        f"{where} lacks column {lacking[0]!r}, which the model {model.folder.name} needs"
        f" ({len(lacking)} of its {len(model.needed)} columns are missing).",
        f"{hint}It takes: {', '.join(model.needed)}.",
    )
