"""``python -m ray_jobs retrain``: train registered models anew where their data are new."""

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import polars as pl

from . import comparison, metrics, reading, registry, signature, sources, train
from .job import Reporter
from .protocol import InputProblemError, JobRequest
from .registry import Registry, Version

FOLDER = "retraining"
TASK = "tasks.ml_tasks.retrain_models"


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Go through the registry, one model after the other.

    A model that cannot be retrained is told of, and the others go on.

    Args:
        request: its parameters are ``models`` (each ``name``, ``dataset_path``, ``parameters`` of
            a training and ``gate``, or a ``problem``), ``force`` and ``mlflow_uri``.
        reporter: told of every phase.

    Returns:
        The task's result, but for what only the submitter knows.
    """
    parameters = request.parameters
    change = registry.begin(request, TASK, FOLDER, reporter.run_dir)
    if (known := change.finished()) is not None:
        return known
    kept = change.kept
    entries = parameters["models"]
    outcomes: list[dict[str, Any]] = []
    with kept.lock(lambda: reporter.progress("waiting", 0, 1, "another retraining is under way")):
        for number, entry in enumerate(entries):
            reporter.progress("retraining", number, len(entries), entry["name"])
            outcomes.append(_outcome(request, entry, kept, reporter))
    failed = sum(outcome["outcome"] == "failed" for outcome in outcomes)
    result = {
        "status": "success" if not failed else "partial" if failed < len(outcomes) else "failed",
        "models": outcomes,
        "retrained": sum("version" in outcome for outcome in outcomes),
        "promoted": sum(outcome["outcome"] == "promoted" for outcome in outcomes),
        "failed": failed,
        "registry": kept.where,
        "manifest_path": str(change.manifest_path),
        "warnings": [] if entries else [f"{kept.where} names no model to retrain"],
    }
    return {**change.report(result), "reused": False}


def _outcome(
    request: JobRequest, entry: dict[str, Any], kept: Registry, reporter: Reporter
) -> dict[str, Any]:
    try:
        if "problem" in entry:
            return {"name": entry["name"], "outcome": "failed", "reason": entry["problem"]}
        return {"name": entry["name"], **_retrain(request, entry, kept, reporter)}
    except InputProblemError as error:
        return {"name": entry["name"], "outcome": "failed", "reason": str(error)}


def _retrain(
    request: JobRequest, entry: dict[str, Any], kept: Registry, reporter: Reporter
) -> dict[str, Any]:
    name, parameters = entry["name"], entry["parameters"]
    roots = (request.datasets_dir, request.models_dir)
    source = sources.resolve(parameters["dataset_path"], roots)
    taken = reading.fingerprints(source)
    inputs = [fingerprint.sha256 for fingerprint in taken]
    state = kept.state(name)
    in_use = state.version(state.champion)
    last = state.versions[-1] if state.versions else None
    if (
        last is not None
        and (last.inputs, last.parameters) == (inputs, parameters)
        and not request.parameters["force"]
    ):
        return {
            "outcome": "unchanged",
            "reason": f"version {last.number} was trained on the same data and parameters",
            "champion": _told(in_use),
        }
    frozen = freeze(Path(request.models_dir), name, parameters, source)
    training = dataclasses.replace(request, parameters=parameters)
    trained = train.fit(training, source, taken, reporter, frozen)

    reporter.progress("comparing", 0, 1, f"{name}: old and new on the same held-out rows")
    rows = pl.read_parquet(frozen)
    new = signature.find(trained["model_path"], request.models_dir)
    metric = metrics.chosen(parameters["metric"], trained["classes"] or [])
    score = comparison.score(new, rows, metric)
    old_score = _score_in_use(in_use, request.models_dir, parameters["target"], rows, metric)
    promoted, reason = judged(score, old_score, metric, entry["gate"])
    version = Version(
        number=(last.number if last else 0) + 1,
        model_path=trained["model_path"],
        inputs=inputs,
        parameters=parameters,
        metric=metric,
        score=score,
        compared_with=old_score,
        promoted=promoted,
        reason=reason,
        created_at=time.time(),
    )
    kept.record(name, version)
    now = kept.state(name)
    return {
        "outcome": "promoted" if promoted else "rejected",
        "reason": reason,
        "version": now.versions[-1].number,
        "model_path": version.model_path,
        "metric": metric,
        "score": score,
        "score_in_use": old_score,
        "holdout_path": str(frozen),
        "holdout_samples": rows.height,
        "champion": _told(now.version(now.champion)),
    }


def freeze(models_dir: Path, name: str, parameters: dict[str, Any], source: sources.Source) -> Path:
    """Give the file of a name's held-out rows; they are chosen when it is first asked for.

    What decides what a score means is in its name: another target needs other rows.
    """
    deciding = [parameters[key] for key in ("target", "task", "test_fraction", "seed")]
    number = hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:8]
    file = models_dir / registry.FOLDER / name / f"holdout-{number}.parquet"
    if not file.exists():
        frame = reading.read(source)
        rows = train.held_out_rows(frame, parameters, source)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            rows.write_parquet(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    return file


def _score_in_use(
    in_use: Version | None, models_dir: str, target: str, rows: pl.DataFrame, metric: str
) -> float | None:
    """Score the model in use; None where there is none that answers the same question."""
    if in_use is None or in_use.parameters["target"] != target:
        return None
    try:
        return comparison.score(signature.find(in_use.model_path, models_dir), rows, metric)
    except InputProblemError:  # it is gone, damaged, or of columns that the rows do not have
        return None


def judged(
    score: float | None, old: float | None, metric: str, gate: dict[str, Any]
) -> tuple[bool, str]:
    """Decide whether a new model is put to use.

    Args:
        score: of the new model on the frozen hold-out.
        old: of the model in use on the same rows; None where there is none to compare with.
        metric: of both.
        gate: ``min_improvement`` and ``min_score``, both in the metric's unit; for metrics of
            which less is better, ``min_score`` is the most that is allowed.
    """
    if score is None:
        return False, f"{metric} is not defined on the held-out rows"
    sign = -1.0 if metric in metrics.LOWER_IS_BETTER else 1.0
    least, gain = gate["min_score"], gate["min_improvement"]
    if least is not None and sign * score < sign * least:
        return False, f"{metric} {score:.6g} does not reach min_score {least:g}"
    if old is None:
        return True, f"{metric} {score:.6g}, and no model in use to compare with"
    better = sign * (score - old)
    told = f"{metric} {score:.6g} against {old:.6g} of the model in use"
    if better < gain:
        return False, f"{told}: {better:+.6g} does not reach min_improvement {gain:g}"
    return True, told


def _told(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {"version": version.number, "model_path": version.model_path}
