"""``python -m ray_jobs search``: try combinations of parameters, and store the best model."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from .. import artefacts, cluster
from ..accounting import ACCOUNT
from ..csv import plan as csv_plan
from ..files import LOCK, locked
from ..inputs import sources
from ..job import Reporter
from ..model import metrics
from ..protocol import InfrastructureError, InputProblemError, JobRequest
from ..requests import SearchRequest
from ..tables import memory as table_memory
from ..tables import reading
from ..training import job as training_job
from . import folds as validation_folds
from . import plots as trial_plots
from . import trials
from .trials import Problem, Trial

FOLDER = "hyperparameter_search"
TASK = "tasks.ml_tasks.hyperparameter_search"
TRIALS = "trials.parquet"
PNG = "trials.png"
HTML = "trials.html"

#: The folder of running searches' state, below the runs folder; cleaned up like runs.
STATE = "celray-search"


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Search, or return the result of an identical request."""
    asked = SearchRequest.of(request)
    if asked.early_stopping is None:  # an explicit default and an omitted one are the same search
        asked = dataclasses.replace(asked, early_stopping=asked.combinations is None)
        stops = {"early_stopping": asked.early_stopping}
        request = dataclasses.replace(request, parameters=request.parameters | stops)
    reporter.progress("reading", 0, 1, "looking at the input files")
    source = sources.resolve(asked.dataset_path, (request.datasets_dir, request.models_dir))
    taken = reading.fingerprints(source)
    number = artefacts.digest(
        request,
        [fingerprint.sha256 for fingerprint in taken],
        ignoring={"dataset_path", "max_concurrent"},
    )
    stem = asked.model.name or sources.name_of(asked.dataset_path)
    folder = Path(request.models_dir) / FOLDER / artefacts.folder_name(stem, number)
    state = Path(request.runs_dir) / f"{STATE}-{number}"
    artefacts.require_writable(folder.parent, reporter.run_dir, state)

    def waiting() -> None:
        reporter.progress("waiting", 0, 1, "an identical search is under way")

    with locked(state / LOCK, waiting):  # for a task that was sent twice
        finished = artefacts.finished(folder / artefacts.MANIFEST)
        if finished is not None:
            shutil.rmtree(state, ignore_errors=True)
            return {**finished, "reused": True}
        found = _search(request, asked, source, taken, state, folder, reporter)
        shutil.rmtree(state, ignore_errors=True)
    return {**found, "reused": False}


def _search(  # noqa: PLR0913, PLR0917 - what main has found out
    request: JobRequest,
    asked: SearchRequest,
    source: sources.Source,
    taken: list[reading.Fingerprint],
    state: Path,
    folder: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    table_memory.require(source)
    frame = reading.read(source, said=csv_plan.said(asked.csv))
    data = training_job.prepare(frame, asked.model, source, reporter)
    reading.require_unchanged(taken)
    problem, told = _problem(data, asked)
    ended, resumed = _try_all(problem, asked, state, reporter)
    order = trials.ranked(ended, problem.direction)
    best = _best(order, asked.max_seconds)

    training = dataclasses.replace(request, parameters=asked.training(best.params).as_json())
    model = training_job.fit(training, source, taken, reporter)

    shown = [_shown(trial) for trial in order]
    folds = len(problem.folds) if asked.folds else 0
    result = {
        "status": "success",
        "best_params": best.params,
        "best_score": metrics.six_digits(best.score),
        "all_results": shown,
        "metric": problem.metric,
        "direction": problem.direction,
        "validation": f"{folds}-fold cross-validation" if folds else "held-out training rows",
        "num_trials": len(ended),
        "holdout_score": model["avg_score"],
        **{name: model[name] for name in ACCOUNT},
        "model_path": model["model_path"],
        "trials_path": str(folder / TRIALS),
        "plot_png": str(folder / PNG),
        "plot_html": str(folder / HTML),
        "manifest_path": str(folder / artefacts.MANIFEST),
        "resumed": resumed,
        "warnings": [*told, *_warnings(ended), *model["warnings"]],
    }
    manifest = {
        **artefacts.identity(request, TASK),
        "inputs": [fingerprint.as_json() for fingerprint in taken],
        "model": model["manifest_path"],
        "result": result,
    }
    reporter.progress("saving", 0, 1, str(folder))

    def write(path: Path) -> None:
        _table(ended).write_parquet(path / TRIALS)
        title = f"{source.files[0].name}: {problem.metric} of {len(ended)} trials"
        trial_plots.write(ended, order, problem, title, path / PNG, path / HTML)

    return artefacts.publish(request, folder, manifest, write)


def _problem(data: training_job.Prepared, asked: SearchRequest) -> tuple[Problem, list[str]]:
    """Return what the trials share, and warnings about the validation rows."""
    goal = data.goal
    y = goal.values[~data.held_out]
    classes = y.astype("int64") if goal.classes else None
    metric = metrics.chosen(asked.model.metric, goal.classes)
    folds, warnings = validation_folds.folds(asked.folds, len(y), goal.classes, classes, metric)
    return Problem(
        rows=data.training_rows(),
        folds=trials.divide(len(y), asked.model.seed, folds, classes),
        classes=len(goal.classes),
        settings=training_job.xgboost_parameters(asked.model, goal, data.scaling),
        metric=metric,
        rounds=asked.model.n_estimators,
        scaling=data.scaling,
    ), warnings


def _try_all(
    problem: Problem, asked: SearchRequest, state: Path, reporter: Reporter
) -> tuple[list[Trial], bool]:
    if cluster.engine() == "plain":
        from . import local as local_search  # noqa: PLC0415 - Optuna takes a second to import

        return local_search.search(problem, asked, state, reporter)
    from . import ray_tune  # noqa: PLC0415 - so does Ray Tune

    return ray_tune.search(problem, asked, state, reporter)


def _best(order: list[Trial], max_seconds: float | None) -> Trial:
    """Return the best trial.

    Raises:
        InputProblemError: all trials failed, or the caller's time limit was too short.
        InfrastructureError: no trial ended.
    """
    best = order[0] if order else None
    if best and best.score is not None and best.status in {"complete", "stopped early"}:
        return best
    failed = next((trial for trial in order if trial.error), None)
    if failed is not None:
        raise InputProblemError(
            "trials_failed",
            f"All {len(order)} trials failed; {json.dumps(failed.params)}: {failed.error}.",
            "Choose another metric, or other parameters.",
        )
    if max_seconds is not None:
        raise InputProblemError(
            "no_trials",
            f"No trial came to its first score in search_config.max_seconds, {max_seconds:g}.",
            "Raise it, or lower n_estimators or folds.",
        )
    raise InfrastructureError("no_trials", "No trial came to its first score.")


def _shown(trial: Trial) -> dict[str, Any]:
    return {
        "params": trial.params,
        "score": metrics.six_digits(trial.score),
        "status": trial.status,
        "rounds": trial.rounds,
        "seconds": round(trial.seconds, 3),
    } | ({"error": trial.error} if trial.error else {})


def _warnings(ended: list[Trial]) -> list[str]:
    failed = [trial for trial in ended if trial.status == "failed"]
    if not failed:
        return []
    return [f"{len(failed)} of {len(ended)} trials failed; the first: {failed[0].error}"]


def _table(ended: list[Trial]) -> pl.DataFrame:
    names = sorted({name for trial in ended for name in trial.params})
    return pl.DataFrame(
        {
            "trial": [trial.number for trial in ended],
            **{
                f"param_{name}": pl.Series(
                    [trial.params.get(name) for trial in ended], strict=False
                )
                for name in names
            },
            "score": pl.Series([trial.score for trial in ended], dtype=pl.Float64),
            "status": [trial.status for trial in ended],
            "rounds": [trial.rounds for trial in ended],
            "seconds": [trial.seconds for trial in ended],
            "error": pl.Series([trial.error for trial in ended], dtype=pl.String),
        }
    )
