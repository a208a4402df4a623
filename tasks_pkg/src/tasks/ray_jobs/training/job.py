"""``python -m ray_jobs train``: train a model on a dataset, and store it with its manifest."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost
from numpy.typing import NDArray

from .. import artefacts, cluster
from ..accounting import Rejected, account
from ..csv import plan as csv_plan
from ..files import sha256
from ..inputs import sources
from ..job import Reporter
from ..model import features, metrics, signature, target
from ..model import files as model_files
from ..model.predictor import outputs
from ..model.scaling import AS_IT_IS, Scaling, of_target
from ..protocol import InputProblemError, JobRequest
from ..requests import ModelOptions, TrainRequest
from ..tables import memory as table_memory
from ..tables import reading
from . import boosting, holdout, split

#: The column of row numbers; no file has a column with such a name.
_ROW = "\0row"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset that is ready for training.

    Attributes:
        rows_read: the rows in the files, including those without a target.
        goal: the target.
        columns: the table's columns, without the target and those left out on request.
        held_out: for each row with a target, whether it is held out for the score.
        plan: how the columns become numbers; learnt from the training rows.
        learnt: the numbers of the training rows.
        tested: the numbers of the held-out rows.
        warnings: remarks about the data.
        scaling: how a regression's target becomes the model's numbers.
    """

    rows_read: int
    goal: target.Target
    columns: list[str]
    held_out: NDArray[np.bool_]
    plan: features.Plan
    learnt: NDArray[np.float32]
    tested: NDArray[np.float32]
    warnings: list[str]
    scaling: Scaling

    @property
    def scaled(self) -> bool:
        """Return whether the model's numbers differ from the table's."""
        every = [self.scaling, *(column.scaling for column in self.plan.columns)]
        return any(each != AS_IT_IS for each in every)

    def training_rows(self) -> boosting.Matrix:
        """Return the rows that are not held out."""
        y = self.scaling.apply(self.goal.values[~self.held_out]).astype("float32")
        return boosting.Matrix(self.learnt, y, self.plan.feature_names, self.plan.feature_types)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The model's scores on rows that it has never seen."""

    metrics: dict[str, Any]
    holdout: pl.DataFrame


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Train a model, or return the result of an identical request."""
    asked = TrainRequest.of(request)
    reporter.progress("reading", 0, 1, "looking at the input files")
    source = sources.resolve(asked.dataset_path, (request.datasets_dir, request.models_dir))
    return fit(request, source, reading.fingerprints(source), reporter)


def fit(
    request: JobRequest,
    source: sources.Source,
    taken: list[reading.Fingerprint],
    reporter: Reporter,
    frozen: Path | None = None,
) -> dict[str, Any]:
    """Train on a dataset whose files are known, or return the result of an identical training.

    Args:
        request: a :class:`TrainRequest`.
        source: the dataset's files.
        taken: the files' fingerprints.
        reporter: receives the progress of every phase.
        frozen: held-out rows that were chosen before (:mod:`training.holdout`). Such rows of the
            dataset are left out of the training, and the score is taken on all of them.
    """
    asked = TrainRequest.of(request)
    options = asked.model
    digests = [fingerprint.sha256 for fingerprint in taken]
    deciding = digests if frozen is None else [*digests, sha256(frozen)]
    folder = model_files.folder(
        request, options.name or sources.name_of(asked.dataset_path), deciding
    )
    finished = artefacts.finished(folder / artefacts.MANIFEST)
    if finished is not None:
        return {**finished, "reused": True}
    artefacts.require_writable(folder.parent, reporter.run_dir)

    table_memory.require(source)
    told: list[str] = []
    rejected, held_out = Rejected(), None
    said = csv_plan.said(asked.csv)
    frame = reading.read(source, (), told, said, rejected=rejected)
    kept = np.delete(np.arange(rejected.read, dtype="uint32"), np.array(rejected.rows))
    places = kept
    if frozen is not None:
        frame, held_out = holdout.apart(frame.with_row_index(_ROW), pl.read_parquet(frozen))
        places = kept[frame[_ROW].drop_nulls().to_numpy()]
        frame = frame.drop(_ROW)
        if held_out.all():
            raise InputProblemError(
                "too_few_rows",
                f"Every row of {source.files[0].parent} is equal to one that is held out for"
                f" comparisons ({frozen}).",
                "Bring other rows, or move that file away: new ones are then chosen.",
            )
    data = prepare(frame, options, source, reporter, held_out)
    del frame  # by far the largest object; its numbers hold everything needed from here on
    rows = _account(rejected, kept, places, held_out, data)
    reading.require_unchanged(taken)
    model, cpus, warnings = _train(data, options, reporter)
    reporter.progress("evaluating", 0, 1, f"{int(data.held_out.sum())} held-out rows")
    evaluation = _evaluate(model, data)
    main_metric = metrics.chosen(options.metric, data.goal.classes)
    result = {
        "status": "success",
        "avg_score": evaluation.metrics[main_metric],
        "metric": main_metric,
        "metrics": evaluation.metrics,
        "task": data.goal.task,
        "target": options.target,
        "classes": data.goal.classes or None,
        "total_samples": len(data.held_out),
        **rows,
        "train_samples": int((~data.held_out).sum()),
        "test_samples": int(data.held_out.sum()),
        "num_features": len(data.plan.columns),
        "num_partitions": cpus,
        "model_path": str(folder),
        "manifest_path": str(folder / artefacts.MANIFEST),
        "warnings": [
            *told,
            *data.warnings,
            *_score_warnings(data, main_metric, evaluation.metrics[main_metric]),
            *warnings,
        ],
    }
    reporter.progress("saving", 0, 1, str(folder))
    preprocessing = {
        "plan": data.plan.as_json(),
        "target": {
            "name": options.target,
            "task": data.goal.task,
            "classes": data.goal.classes,
        },
        "scaling": data.scaling.as_json(),  # of the target
    }
    manifest = {
        **artefacts.identity(request, model_files.TASK),
        "inputs": [fingerprint.as_json() for fingerprint in taken],
        "split": (
            "ray_jobs.training.split.holdout_mask over the rows that have a target"
            if frozen is None
            else f"frozen: {frozen}"
        ),
        "columns": [dataclasses.asdict(column) for column in data.plan.columns],
        "signature": signature.describe(
            data.columns, data.plan.roles, preprocessing, scaled=data.scaled
        ),
        "result": result,
    }
    write = model_files.writer(model, preprocessing, evaluation.holdout)
    saved = artefacts.publish(request, folder, manifest, write)
    return {**saved, "reused": False}


def _account(
    rejected: Rejected,
    kept: NDArray[np.uint32],
    places: NDArray[np.uint32],
    held_out: NDArray[np.bool_] | None,
    data: Prepared,
) -> dict[str, Any]:
    """Return the account of the dataset's rows.

    Args:
        rejected: the rejected rows.
        kept: the numbers of the other rows.
        places: those of them that differ from every row held out by an earlier run.
        held_out: for each row of the training table whether it is held out, with rows of such a
            choice at its end; None if this run chooses the rows.
        data: the prepared dataset.
    """
    present = data.goal.present if held_out is None else data.goal.present[~held_out]
    lacking = places[~present]
    elsewhere = np.ones(rejected.read, dtype=bool)
    elsewhere[places] = False
    apart = kept[elsewhere[kept]]
    left_out: dict[str, NDArray[Any]] = {
        "it has no target": lacking,
        "it is equal to a row that is held out for comparisons": apart,
    }
    firsts = {why: (len(rows), int(rows[0]) if len(rows) else 0) for why, rows in left_out.items()}
    return account(rejected.read, int(present.sum()), firsts, rejected)


def prepare(
    frame: pl.DataFrame,
    options: ModelOptions,
    source: sources.Source,
    reporter: Reporter,
    held_out: NDArray[np.bool_] | None = None,
) -> Prepared:
    """Choose target and hold-out, and turn the columns into numbers.

    Args:
        frame: the whole table.
        options: the options of the training.
        source: the data's name in error messages.
        reporter: receives the progress of the phase.
        held_out: for each row of ``frame``, if the choice was made before.

    Raises:
        InputProblemError: the data cannot be used for training.
    """
    goal, table = _target(frame, options, source)
    reporter.progress("preparing", 0, 1, f"{table.height} rows, {table.width} columns")
    held_out = _held_out(goal, options) if held_out is None else held_out[goal.present]
    plan = features.learn(table, ~held_out)
    return Prepared(
        rows_read=frame.height,
        goal=goal,
        columns=table.columns,
        held_out=held_out,
        plan=plan,
        learnt=features.transform(table, plan, ~held_out),
        tested=features.transform(table, plan, held_out),
        warnings=_data_warnings(frame.height, goal, table, held_out, plan),
        scaling=AS_IT_IS if goal.classes else of_target(goal.values[~held_out]),
    )


def held_out_rows(
    frame: pl.DataFrame, options: ModelOptions, source: sources.Source
) -> pl.DataFrame:
    """Return the whole rows that :func:`prepare` would hold out.

    Raises:
        InputProblemError: the target cannot be learnt.
    """
    goal, _ = _target(frame, options, source)
    chosen = _held_out(goal, options)
    return frame.filter(pl.Series(goal.present)).filter(pl.Series(chosen))


def _held_out(goal: target.Target, options: ModelOptions) -> NDArray[np.bool_]:
    return split.holdout_mask(
        int(goal.present.sum()),
        options.seed,
        options.test_fraction,
        goal.values.astype("int64") if goal.classes else None,
    )


def _train(
    data: Prepared, options: ModelOptions, reporter: Reporter
) -> tuple[bytes, int, list[str]]:
    """Return the model, the number of CPUs that trained it, and warnings for the caller."""
    matrix = data.training_rows()
    settings = xgboost_parameters(options, data.goal, data.scaling)
    rounds = options.n_estimators

    def grow_here(threads: int) -> bytes:
        reporter.progress("training", 0, rounds, "boosting rounds")
        return boosting.grow(matrix, {**settings, "nthread": threads}, rounds, tell=True)

    if cluster.engine() == "plain":
        threads = min(options.num_partitions, cluster.cpus())
        return grow_here(threads), threads, []
    # Importing Ray takes seconds, which an already trained request saves.
    from . import placement  # noqa: PLC0415

    reporter.progress("waiting", 0, 1, "asking the cluster for CPUs")
    cluster.connect()
    wanted, warnings = placement.partitions(options.num_partitions, len(matrix.y))
    with placement.found(wanted, reporter.progress) as (place, more):
        if place.here:
            model = grow_here(place.cpus)
        else:
            from . import ray_train  # noqa: PLC0415 - Ray Train takes as long again

            reporter.progress("training", 0, rounds, "boosting rounds")
            model = ray_train.train(matrix, settings, rounds, place, reporter.run_dir)
            shutil.rmtree(reporter.run_dir / "train", ignore_errors=True)
    return model, place.cpus, warnings + more


def _target(
    frame: pl.DataFrame, options: ModelOptions, source: sources.Source
) -> tuple[target.Target, pl.DataFrame]:
    """Return the target, and the other columns of the rows that have one."""
    name, excluded = options.target, options.exclude_columns
    where = str(source.files[0])
    sources.require_column(name, frame.columns, "model_config.target", where)
    for column in excluded:
        sources.require_column(column, frame.columns, "model_config.exclude_columns", where)
    goal = target.encode(frame[name], options.task)
    known = metrics.CLASSIFICATION if goal.classes else metrics.REGRESSION
    wanted = options.metric
    if wanted not in {None, *known} or (wanted == "roc_auc" and len(goal.classes) != 2):  # noqa: PLR2004
        raise InputProblemError(
            "metric_unfit",
            f"model_config.metric is {wanted!r}, which does not exist for {goal.task}"
            f" with {len(goal.classes) or 'no'} classes.",
            f"Choose one of {', '.join(known)}.",
        )
    table = frame.drop(name, *excluded)
    return goal, table if goal.present.all() else table.filter(pl.Series(goal.present))


def xgboost_parameters(
    options: ModelOptions, goal: target.Target, scaling: Scaling
) -> dict[str, Any]:
    """Return XGBoost's parameters for the caller's options."""
    passed_on = {
        "max_depth": options.max_depth,
        "learning_rate": options.learning_rate,
        "subsample": options.subsample,
        "colsample_bytree": options.colsample_bytree,
        "min_child_weight": options.min_child_weight,
        "reg_alpha": options.reg_alpha,
        "reg_lambda": options.reg_lambda,
    }
    classes = len(goal.classes)
    objective: dict[str, Any] = {"objective": "reg:squarederror"}
    if classes == 2:  # noqa: PLR2004
        objective = {"objective": "binary:logistic"}
    elif classes:
        objective = {"objective": "multi:softprob", "num_class": classes}
    return {
        **boosting.scaled(passed_on, scaling),
        **objective,
        "tree_method": "hist",
        "seed": options.seed % (1 << 31),
        "nthread": 1,
    }


def _evaluate(model: bytes, data: Prepared) -> Evaluation:
    goal, held_out = data.goal, data.held_out
    booster = xgboost.Booster(model_file=bytearray(model))
    truth = goal.values[held_out]
    answers = outputs(booster, data.tested, data.plan, len(goal.classes), data.scaling)
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
    rows_read: int,
    goal: target.Target,
    table: pl.DataFrame,
    held_out: NDArray[np.bool_],
    plan: features.Plan,
) -> list[str]:
    """Return warnings about the data."""
    found = [f"column {name!r} was left out: {why}" for name, why in plan.dropped.items()]
    found += plan.notes
    without = rows_read - table.height
    if without:
        found.append(f"{without} of {rows_read} rows were left out: they have no target")
    if goal.classes:
        codes, counts = pl.Series(goal.values).value_counts().sort("count")
        single = [goal.classes[int(c)] for c, n in zip(codes, counts, strict=True) if n == 1]
        if single:
            found.append(f"classes with one row cannot be tested: {single[:10]}")
    # Compared by digests of 64 bits per row: the rows themselves would be sorted and copied.
    rows = table.select(list({c.name for c in plan.columns})).hash_rows()
    seen = rows.filter(pl.Series(~held_out)).unique()
    tested = rows.filter(pl.Series(held_out))
    repeated = int(tested.is_in(seen.implode()).sum())
    if repeated:
        found.append(
            f"{repeated} of {len(tested)} held-out rows have the same features as a training"
            " row: the score flatters the model if new data do not repeat old ones"
        )
    return found


def _score_warnings(data: Prepared, metric: str, score: float | None) -> list[str]:
    """Return a warning if a model is no better than a constant answer."""
    goal, held_out = data.goal, data.held_out
    learnt = goal.values[~held_out]
    constant = metrics.of_constant(learnt, goal.values[held_out], len(goal.classes))
    floor = metrics.six_digits(constant[metric])
    less = metric in metrics.LOWER_IS_BETTER
    perfect = 0.0 if less else 1.0
    if score is None or floor is None or score == perfect:
        return []
    if (score < floor) if less else (score > floor):
        return []
    if goal.classes:
        label = goal.classes[int(np.bincount(learnt.astype("int64")).argmax())]
        answer = f"the most frequent class {label!r}"
    else:
        answer = f"the mean {learnt.mean():.6g}"
    verdict = "no better" if score == floor else "worse"
    said = (
        f"the model is {verdict} than to answer {answer} for every row: {metric} {score:g} on the"
        f" held-out rows, against {floor:g}; do not rely on it"
    )
    return [said]
