"""``python -m ray_jobs train``: train one model on one dataset, and keep it with its manifest."""

import dataclasses
import hashlib
import json
import platform
import re
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost
from numpy.typing import NDArray

from . import features, metrics, reading, sources, split, target
from .files import code_digest, sha256, write_bytes, write_json
from .job import Reporter
from .predictor import HOLDOUT, MANIFEST, MODEL, PREPROCESSING, outputs
from .protocol import InputProblemError, JobRequest

FOLDER = "distributed_training"

#: Parameters that XGBoost takes under the name that callers use.
PASSED_ON = (
    "max_depth",
    "learning_rate",
    "subsample",
    "colsample_bytree",
    "min_child_weight",
    "reg_alpha",
    "reg_lambda",
)


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Train, or return what an identical request has trained before.

    Args:
        request: its parameters are ``dataset_path`` and those of ``schemas_ml.ModelConfig``.
        reporter: told of every phase.

    Returns:
        The task's result, but for what only the submitter knows.
    """
    parameters = request.parameters
    reporter.progress("reading", 0, 1, "looking at the input files")
    source = sources.resolve(parameters["dataset_path"], (request.datasets_dir, request.models_dir))
    taken = reading.fingerprints(source)
    folder = _folder(request, taken)
    finished = _finished(folder)
    if finished is not None:
        return {**finished, "reused": True}

    frame = reading.read(source)
    reading.require_unchanged(taken)
    goal, table = _target(frame, parameters, source)
    reporter.progress("preparing", 0, 1, f"{table.height} rows, {table.width} columns")
    held_out = split.holdout_mask(
        table.height,
        parameters["seed"],
        parameters["test_fraction"],
        goal.values.astype("int64") if goal.classes else None,
    )
    plan = features.learn(table.filter(~held_out))
    x = features.transform(table, plan)

    # Ray Train takes seconds to import, which a request that was trained before need not wait.
    from . import training  # noqa: PLC0415

    matrix = training.Matrix(
        x[~held_out],
        goal.values[~held_out].astype("float32"),
        plan.feature_names,
        plan.feature_types,
    )

    reporter.progress("waiting", 0, 1, "asking the cluster for CPUs")
    training.connect()
    workers, warnings = training.partitions(parameters["num_partitions"], len(matrix.y))
    workers, more = training.wait_for_cpus(workers, reporter.progress)
    rounds = parameters["n_estimators"]
    reporter.progress("training", 0, rounds, "boosting rounds")
    model = training.train(
        matrix, _xgboost_parameters(parameters, goal), rounds, workers, reporter.run_dir
    )
    shutil.rmtree(reporter.run_dir / "train", ignore_errors=True)

    reporter.progress("evaluating", 0, 1, f"{int(held_out.sum())} held-out rows")
    evaluation = _evaluate(model, x[held_out], goal, held_out, plan)
    warnings = [*_data_warnings(frame, goal, plan, table, held_out), *warnings, *more]
    main_metric = parameters["metric"] or ("accuracy" if goal.classes else "r2")
    result = {
        "status": "success",
        "avg_score": evaluation.metrics[main_metric],
        "metric": main_metric,
        "metrics": evaluation.metrics,
        "task": goal.task,
        "target": parameters["target"],
        "classes": goal.classes or None,
        "total_samples": table.height,
        "train_samples": int((~held_out).sum()),
        "test_samples": int(held_out.sum()),
        "num_features": len(plan.columns),
        "num_partitions": workers,
        "model_path": str(folder),
        "manifest_path": str(folder / MANIFEST),
        "warnings": warnings,
    }
    reporter.progress("saving", 0, 1, str(folder))
    manifest = {
        "schema": 1,
        "task": "tasks.ml_tasks.distributed_training",
        "submission_id": request.submission_id,
        "created_at": time.time(),
        "parameters": parameters,
        "inputs": [fingerprint.as_json() for fingerprint in taken],
        "split": "ray_jobs.split.holdout_mask over the rows that have a target",
        "columns": [dataclasses.asdict(column) for column in plan.columns],
        "code_version": code_digest(),
        "worker_code_version": request.code_version,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("ray", "polars", "numpy")},
            "xgboost": str(xgboost.__version__),
        },
        "result": result,
    }
    stored = {
        "plan": plan.as_json(),
        "target": {"name": parameters["target"], "task": goal.task, "classes": goal.classes},
    }
    return {**_save(folder, model, stored, evaluation.holdout, manifest), "reused": False}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the model is worth on rows that it has never seen."""

    metrics: dict[str, Any]
    holdout: pl.DataFrame


def _folder(request: JobRequest, taken: list[reading.Fingerprint]) -> Path:
    """Name the model's folder after everything that decides what is in it."""
    identity = {
        "inputs": [fingerprint.sha256 for fingerprint in taken],
        "parameters": {k: v for k, v in request.parameters.items() if k != "dataset_path"},
        "code": code_digest(),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    stem = request.parameters["name"] or Path(request.parameters["dataset_path"]).stem
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "model"
    return Path(request.models_dir) / FOLDER / f"{readable}-{digest}"


def _finished(folder: Path) -> dict[str, Any] | None:
    """Give the result of a run that wrote its manifest and whose files are still what it wrote."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        whole = all(sha256(folder / name) == f["sha256"] for name, f in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    result: dict[str, Any] = manifest["result"]
    return result if whole else None


def _target(
    frame: pl.DataFrame, parameters: dict[str, Any], source: sources.Source
) -> tuple[target.Target, pl.DataFrame]:
    """Give the target, and the other columns of the rows that have one."""
    name, excluded = parameters["target"], parameters["exclude_columns"]
    where = str(source.files[0])
    sources.require_column(name, frame.columns, "model_config.target", where)
    for column in excluded:
        sources.require_column(column, frame.columns, "model_config.exclude_columns", where)
    goal = target.encode(frame[name], parameters["task"])
    known = metrics.CLASSIFICATION if goal.classes else metrics.REGRESSION
    wanted = parameters["metric"]
    if wanted not in {None, *known} or (wanted == "roc_auc" and len(goal.classes) != 2):  # noqa: PLR2004
        raise InputProblemError(
            "metric_unfit",
            f"model_config.metric is {wanted!r}, which does not exist for {goal.task}"
            f" with {len(goal.classes) or 'no'} classes.",
            f"Choose one of {', '.join(known)}.",
        )
    return goal, frame.drop(name, *excluded).filter(pl.Series(goal.present))


def _xgboost_parameters(parameters: dict[str, Any], goal: target.Target) -> dict[str, Any]:
    classes = len(goal.classes)
    objective: dict[str, Any] = {"objective": "reg:squarederror"}
    if classes == 2:  # noqa: PLR2004
        objective = {"objective": "binary:logistic"}
    elif classes:
        objective = {"objective": "multi:softprob", "num_class": classes}
    return {
        **{name: parameters[name] for name in PASSED_ON},
        **objective,
        "tree_method": "hist",
        "seed": parameters["seed"] % (1 << 31),
        "nthread": 1,
    }


def _evaluate(
    model: bytes,
    x: NDArray[np.float32],
    goal: target.Target,
    held_out: NDArray[np.bool_],
    plan: features.Plan,
) -> Evaluation:
    booster = xgboost.Booster(model_file=bytearray(model))
    truth = goal.values[held_out]
    answers = outputs(booster, x, plan, len(goal.classes))
    rows = pl.Series(goal.present).arg_true().filter(pl.Series(held_out))
    if not goal.classes:
        scores = metrics.regression(truth, answers)
        table = pl.DataFrame({"row": rows, "truth": truth, "prediction": answers})
    else:
        scores = metrics.classification(truth, answers)
        labels = [str(label) for label in goal.classes]
        table = pl.DataFrame(
            {
                "row": rows,
                "truth": [labels[int(code)] for code in truth],
                "prediction": [labels[code] for code in answers.argmax(axis=1)],
                "probability": answers.max(axis=1),
            }
        )
    return Evaluation(metrics.rounded(scores), table)


def _data_warnings(
    frame: pl.DataFrame,
    goal: target.Target,
    plan: features.Plan,
    table: pl.DataFrame,
    held_out: NDArray[np.bool_],
) -> list[str]:
    """Say what a careful person would want to know about the data."""
    found = [f"column {name!r} was left out: {why}" for name, why in plan.dropped.items()]
    without = frame.height - table.height
    if without:
        found.append(f"{without} of {frame.height} rows were left out: they have no target")
    if goal.classes:
        codes, counts = pl.Series(goal.values).value_counts().sort("count")
        single = [goal.classes[int(c)] for c, n in zip(codes, counts, strict=True) if n == 1]
        if single:
            found.append(f"classes with one row cannot be tested: {single[:10]}")
    seen = table.select(list({c.name for c in plan.columns})).filter(~pl.Series(held_out)).unique()
    tested = table.select(seen.columns).filter(pl.Series(held_out))
    repeated = tested.join(seen, on=seen.columns, how="semi", nulls_equal=True).height
    if repeated:
        found.append(
            f"{repeated} of {tested.height} held-out rows have the same features as a training"
            " row: the score flatters the model if new data do not repeat old ones"
        )
    return found


def _save(
    folder: Path,
    model: bytes,
    stored: dict[str, Any],
    holdout: pl.DataFrame,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Write the files under a temporary name, rename, and write the manifest last."""
    temporary = folder.with_name(f".{folder.name}.{manifest['submission_id']}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_bytes(temporary / MODEL, model)
        write_json(temporary / PREPROCESSING, stored)
        holdout.write_parquet(temporary / HOLDOUT)
        files = {
            file.name: {"sha256": sha256(file), "bytes": file.stat().st_size}
            for file in sorted(temporary.iterdir())
        }
        finished = _finished(folder)  # an identical request may have been quicker
        if finished is not None:
            return finished
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left, without a manifest
        temporary.rename(folder)
        write_json(folder / MANIFEST, {**manifest, "files": files})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    result: dict[str, Any] = manifest["result"]
    return result
