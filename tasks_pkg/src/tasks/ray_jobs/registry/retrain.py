"""``python -m ray_jobs retrain``: retrain registered models whose data are new."""

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from .. import artefacts
from ..accounting import ACCOUNT
from ..csv import plan as csv_plan
from ..files import write_bytes
from ..inputs import sources
from ..job import Reporter
from ..model import comparison, metrics, signature
from ..protocol import InputProblemError, JobRequest
from ..requests import (
    BrokenEntry,
    Gate,
    ModelOptions,
    RegisteredModel,
    RetrainRequest,
    TrainRequest,
)
from ..tables import memory as table_memory
from ..tables import reading
from ..training import job as training_job
from . import change as registry_change
from .versions import Registry, Version

FOLDER = "retraining"
TASK = "tasks.ml_tasks.retrain_models"


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Retrain the models of the registry, one after the other.

    A model that cannot be retrained is reported, and the others continue.
    """
    asked = RetrainRequest.of(request)
    change = registry_change.begin(request, asked.mlflow_uri, TASK, FOLDER, reporter.run_dir)
    if (known := change.finished()) is not None:
        return known
    kept = change.kept
    entries = asked.models
    outcomes: list[dict[str, Any]] = []

    def waiting() -> None:
        reporter.progress("waiting", 0, 1, "another retraining is under way")

    with kept.retraining(waiting):
        for number, entry in enumerate(entries):
            reporter.progress("retraining", number, len(entries), entry.name)
            outcomes.append(_outcome(request, entry, kept, reporter, force=asked.force))
    failed = sum(outcome["outcome"] == "failed" for outcome in outcomes)
    result = {
        "status": "success" if not failed else "partial" if failed < len(outcomes) else "failed",
        "models": outcomes,
        "retrained": sum("version" in outcome for outcome in outcomes),
        "promoted": sum(outcome["outcome"] == "promoted" for outcome in outcomes),
        "failed": failed,
        "registry": kept.where,
        "manifest_path": str(change.manifest_path),
        "warnings": [
            *([] if entries else [f"{kept.where} names no model to retrain"]),
            *(f"{one['name']}: {text}" for one in outcomes for text in one.get("warnings", ())),
        ],
    }
    return {**change.report(result), "reused": False}


def _outcome(
    request: JobRequest,
    entry: RegisteredModel | BrokenEntry,
    kept: Registry,
    reporter: Reporter,
    *,
    force: bool,
) -> dict[str, Any]:
    if isinstance(entry, BrokenEntry):
        return {"name": entry.name, "outcome": "failed", "reason": entry.problem}
    try:
        return {"name": entry.name, **_retrain(request, entry, kept, reporter, force=force)}
    except InputProblemError as error:
        return {"name": entry.name, "outcome": "failed", "reason": str(error)}


def _retrain(
    request: JobRequest, entry: RegisteredModel, kept: Registry, reporter: Reporter, *, force: bool
) -> dict[str, Any]:
    name, parameters = entry.name, entry.parameters
    training = dataclasses.replace(request, parameters=parameters)
    asked = TrainRequest.of(training)
    folder = Path(request.models_dir) / registry_change.FOLDER / name
    state = kept.state(name)
    in_use = state.version(state.champion)
    last = state.versions[-1] if state.versions else None
    made = next((version for version in state.versions if version.run == request.run), None)
    if made is not None:  # by an earlier job of this task that was lost before its report
        trained = artefacts.finished(Path(made.model_path) / artefacts.MANIFEST) or {}
        return {**_done(made, folder, in_use), **_account(trained)}
    roots = (request.datasets_dir, request.models_dir)
    source = sources.resolve(asked.dataset_path, roots)
    taken = reading.fingerprints(source)
    inputs = [fingerprint.sha256 for fingerprint in taken]
    if last is not None and (last.inputs, last.parameters) == (inputs, parameters) and not force:
        return {
            "outcome": "unchanged",
            "reason": f"version {last.number} was trained on the same data and parameters",
            "champion": _described(in_use),
        }
    frozen = freeze(folder, asked, source, in_use or last)
    trained = training_job.fit(training, source, taken, reporter, frozen)
    reporter.progress("comparing", 0, 1, f"{name}: old and new on the same held-out rows")
    with kept.lock():
        outcome = _judge(request, entry, asked.model, kept, frozen, inputs, trained)
    return {**outcome, **_account(trained)}


def _account(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row account of a training, and its warnings."""
    return {name: trained[name] for name in (*ACCOUNT, "warnings") if name in trained}


def _judge(  # noqa: PLR0913, PLR0917 - what _retrain has found out
    request: JobRequest,
    entry: RegisteredModel,
    options: ModelOptions,
    kept: Registry,
    frozen: Path,
    inputs: list[str],
    trained: dict[str, Any],
) -> dict[str, Any]:
    """Compare a new model with the one in use, which may have changed during the training.

    A training takes long, and a rollback does not wait for it.
    """
    name = entry.name
    state = kept.state(name)
    in_use = state.version(state.champion)
    if in_use is not None and in_use.model_path == trained["model_path"]:
        return {
            "outcome": "unchanged",
            "reason": f"version {in_use.number} in use is the very model that this training gives",
            "champion": _described(in_use),
        }
    rows = pl.read_parquet(frozen)
    new = signature.find(trained["model_path"], request.models_dir)
    metric = metrics.chosen(options.metric, trained["classes"] or [])
    score = comparison.score(new, rows, metric)
    old_score, uncompared = _score_in_use(in_use, request, options.target, frozen, metric)
    promoted, reason = judged(score, old_score, metric, entry.gate, uncompared)
    version = Version(
        number=(state.versions[-1].number if state.versions else 0) + 1,
        model_path=trained["model_path"],
        inputs=inputs,
        parameters=entry.parameters,
        metric=metric,
        score=score,
        compared_with=old_score,
        promoted=promoted,
        reason=reason,
        created_at=time.time(),
        holdout=frozen.name,
        run=request.run,
    )
    kept.record(name, version)
    now = kept.state(name)
    return _done(now.versions[-1], frozen.parent, now.version(now.champion))


def _done(version: Version, folder: Path, in_use: Version | None) -> dict[str, Any]:
    return {
        "outcome": "promoted" if version.promoted else "rejected",
        "reason": version.reason,
        "version": version.number,
        "model_path": version.model_path,
        "metric": version.metric,
        "score": version.score,
        "score_in_use": version.compared_with,
        "holdout_path": str(folder / version.holdout),
        "holdout_samples": pl.scan_parquet(folder / version.holdout)
        .select(pl.len())
        .collect()
        .item(),
        "champion": _described(in_use),
    }


def freeze(
    folder: Path, asked: TrainRequest, source: sources.Source, before: Version | None
) -> Path:
    """Return the file of a name's held-out rows; choose the rows if there is none yet.

    Another target needs other rows. Nothing else changes them, not even another seed or share: the
    model in use was trained on all rows except these.

    Args:
        folder: the folder with the results for the name.
        asked: decides which rows are chosen.
        source: the source of the rows.
        before: the version in use, or else the last one; its rows stay held out.
    """
    if before is not None and before.parameters["target"] == asked.model.target:
        file = folder / _holdout_of(before)
        if file.exists():
            return file
    content = io.BytesIO()
    table_memory.require(source)
    frame = reading.read(source, said=csv_plan.said(asked.csv))
    training_job.held_out_rows(frame, asked.model, source).write_parquet(content)
    number = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    file = folder / f"holdout-{number}.parquet"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content.getvalue())
    return file


def _holdout_of(version: Version) -> str:
    """Return the name of the file with a version's held-out rows."""
    if version.holdout:
        return version.holdout
    # Earlier versions named it after the options by which the rows were chosen.
    deciding = [version.parameters[key] for key in ("target", "task", "test_fraction", "seed")]
    return f"holdout-{hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:8]}.parquet"


def _score_in_use(
    in_use: Version | None, request: JobRequest, target: str, frozen: Path, metric: str
) -> tuple[float | None, str]:
    """Return the score of the model in use on the held-out rows, or why there is no comparison."""
    if in_use is None:
        return None, "no model in use to compare with"
    shown = f"version {in_use.number} in use was not compared with"
    if in_use.parameters["target"] != target:
        return None, f"{shown}: it predicts {in_use.parameters['target']!r}"
    if _holdout_of(in_use) != frozen.name:
        return None, f"{shown}: it may have learnt the held-out rows, which were chosen after it"
    try:
        model = signature.find(in_use.model_path, request.models_dir)
        score = comparison.score(model, pl.read_parquet(frozen), metric)
    except InputProblemError as error:  # the model is missing, or damaged
        return None, f"{shown}: {error}"
    return score, "" if score is not None else f"{shown}: it has no {metric} on the held-out rows"


def judged(
    score: float | None, old: float | None, metric: str, gate: Gate, uncompared: str
) -> tuple[bool, str]:
    """Decide whether a new model is promoted.

    Args:
        score: the score of the new model on the frozen hold-out.
        old: the score of the model in use on the same rows; None if there is no comparison.
        metric: the metric of both scores.
        gate: ``min_improvement`` and ``min_score``, both in the metric's unit; if less is better,
            ``min_score`` is the highest score allowed.
        uncompared: why there is no ``old`` score, if so.
    """
    if score is None:
        return False, f"{metric} is not defined on the held-out rows"
    sign = -1.0 if metric in metrics.LOWER_IS_BETTER else 1.0
    least, gain = gate.min_score, gate.min_improvement
    if least is not None and sign * score < sign * least:
        return False, f"{metric} {score:.6g} does not reach min_score {least:g}"
    if old is None:
        return True, f"{metric} {score:.6g}, and {uncompared}"
    better = sign * (score - old)
    compared = f"{metric} {score:.6g} against {old:.6g} of the model in use"
    if better < gain:
        return False, f"{compared}: {better:+.6g} does not reach min_improvement {gain:g}"
    return True, compared


def _described(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {"version": version.number, "model_path": version.model_path}
