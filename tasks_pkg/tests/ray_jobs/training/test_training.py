"""Training jobs on a real Ray: right models, told errors."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xgboost
from celray_jobs import run_here
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.model import metrics, signature
from tasks.ray_jobs.model.predictor import Predictor
from tasks.ray_jobs.protocol import InputProblemError, JobRequest
from tasks.ray_jobs.tables import memory as table_memory
from tasks.submission.jobs import JobResult
from tasks.submission.ray import RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

Train = Callable[..., JobResult]


@pytest.fixture
def train(jobs: RayJobs, request_for: Callable[..., Callable[[str], JobRequest]]) -> Train:
    def run(dataset_path: str, **config: object) -> JobResult:
        request = request_for(dataset_path, **config)
        return jobs.run(uuid.uuid4().hex, "train", request, lambda *_: None)

    return run


@pytest.fixture
def train_here(request_for: Callable[..., Callable[[str], JobRequest]]) -> Callable[..., Any]:
    """Train without Ray, which grows the same model to its last digit (test_local.py)."""

    def run(dataset_path: str, **config: object) -> dict[str, Any]:
        return run_here(uuid.uuid4().hex, "train", request_for(dataset_path, **config))

    return run


@pytest.fixture
def wine(datasets: Path) -> pl.DataFrame:
    file = datasets / "examples" / "winequality.csv"
    return pl.read_csv(file, infer_schema_length=None)


@pytest.mark.slow
def test_wine_is_as_good_as_xgboost_alone_and_is_trained_once(
    train: Train, train_here: Callable[..., Any], datasets: Path, folders: Path
) -> None:
    config = {"n_estimators": 120, "max_depth": 5, "num_partitions": 2, "target": "quality"}
    done = train("examples/winequality.csv", **config)
    result = done.result
    assert (result["status"], result["num_partitions"], result["reused"]) == ("success", 2, False)
    assert (result["task"], result["total_samples"]) == ("classification", 6497)
    assert result["train_samples"] + result["test_samples"] == 6497
    assert done.startup_seconds > 0
    assert done.engine_seconds > 0

    # The same rows, through xgboost alone.
    frame = pl.read_csv(datasets / "examples" / "winequality.csv", infer_schema_length=None)
    folder = Path(result["model_path"])
    rows = pl.read_parquet(folder / "holdout.parquet")
    held_out = np.isin(np.arange(frame.height), rows["row"].to_numpy())
    x = frame.drop("quality").with_columns(pl.col("color") == "red").cast(pl.Float32).to_numpy()
    y = frame["quality"].to_numpy() - 3
    alone = xgboost.train(
        {"objective": "multi:softmax", "num_class": 7, "max_depth": 5, "eta": 0.3},
        xgboost.DMatrix(x[~held_out], y[~held_out]),
        num_boost_round=120,
    )
    expected = float((alone.predict(xgboost.DMatrix(x[held_out])) == y[held_out]).mean())
    assert result["avg_score"] == pytest.approx(expected, abs=0.03)
    assert result["avg_score"] > 0.6

    # What was written: the model, by itself, gives the reported score.
    assert rows["truth"].to_list() == frame["quality"].cast(pl.String).to_numpy()[held_out].tolist()
    predicted = Predictor(signature.find(str(folder), str(folders / "models"))).predict(
        frame.filter(pl.Series(held_out)).drop("quality")
    )
    right = (predicted["prediction"] == frame["quality"].filter(pl.Series(held_out))).mean()
    assert right == pytest.approx(result["avg_score"], abs=1e-5)
    manifest = json.loads(Path(result["manifest_path"]).read_text())
    assert set(manifest["files"]) == {"model.ubj", "preprocessing.json", "holdout.parquet"}
    assert manifest["inputs"][0]["bytes"] == (datasets / "examples/winequality.csv").stat().st_size
    assert manifest["parameters"]["n_estimators"] == 120
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []
    run_dir = folders / "models" / ".runs" / done.submission_id
    found = sorted(p.name for p in run_dir.iterdir())
    assert found == ["progress.json", "result.json", "started.json"]

    # The same request again, also under another path, is answered from the manifest.
    shutil.copy(datasets / "examples" / "winequality.csv", datasets / "winequality.csv")
    again = train_here("winequality.csv", **config, name=None)
    assert again["reused"] is (again["model_path"] == result["model_path"])
    same = train(str(datasets / "examples" / "winequality.csv"), **config)
    assert same.result["reused"] is True
    assert same.result["model_path"] == result["model_path"]

    # A file that was tampered with is not used.
    (folder / "model.ubj").write_bytes(b"x")
    with pytest.raises(InputProblemError, match="not the file that the manifest describes"):
        Predictor(signature.find(str(folder), str(folders / "models")))


def held_out_by(result: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rows = pl.read_parquet(Path(result["model_path"]) / "holdout.parquet")["row"].to_numpy()
    return np.isin(np.arange(result["total_samples"]), rows)


def test_parts_with_text_and_gaps_train_one_classifier(
    train_here: Callable[..., Any], wine: pl.DataFrame, datasets: Path
) -> None:
    gaps = pl.when(pl.int_range(pl.len()) % 50 == 0).then(None).otherwise(pl.col("alcohol"))
    frame = wine.with_columns(
        gaps.alias("alcohol"),
        note=pl.format("bottle {} of many", pl.int_range(pl.len())),
    ).rename({"color": "target"})
    for part in range(3):
        rows = frame.slice(part * 2200, 2200)
        rows.write_csv(datasets / f"bottles_part_{part}.csv", null_value="NA")
    result = train_here("bottles", n_estimators=20, max_depth=3, metric="roc_auc")
    assert (result["classes"], result["total_samples"]) == (["red", "white"], 6497)
    assert result["avg_score"] == result["metrics"]["roc_auc"] > 0.99

    held_out = held_out_by(result)
    x = frame.drop("target", "note").cast(pl.Float32).to_numpy()
    y = (frame["target"] == "white").to_numpy().astype(float)
    data = xgboost.DMatrix(x[~held_out], y[~held_out])
    alone = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, data, 20)
    guess = alone.predict(xgboost.DMatrix(x[held_out])) > 0.5
    expected = float((guess == y[held_out]).mean())
    assert result["metrics"]["accuracy"] == pytest.approx(expected, abs=0.03)


@pytest.mark.slow
def test_more_partitions_than_cpus_are_capped_and_it_says_so(
    train: Train, wine: pl.DataFrame, datasets: Path
) -> None:
    (datasets / "strength").mkdir()
    frame = wine.drop("color").rename({"alcohol": "target"})
    frame.slice(0, 3000).write_parquet(datasets / "strength" / "a1.parquet")
    frame.slice(3000).write_parquet(datasets / "strength" / "a2.parquet")
    result = train("strength", n_estimators=50, max_depth=3, num_partitions=64).result
    assert (result["task"], result["num_partitions"]) == ("regression", 2)
    assert "num_partitions lowered from 64 to 2" in " ".join(result["warnings"])

    held_out = held_out_by(result)
    x, y = frame.drop("target").cast(pl.Float32).to_numpy(), frame["target"].to_numpy()
    data = xgboost.DMatrix(x[~held_out], y[~held_out])
    alone = xgboost.train({"max_depth": 3}, data, 50).predict(xgboost.DMatrix(x[held_out]))
    expected = metrics.regression(y[held_out], alone)["r2"]
    assert result["avg_score"] == pytest.approx(expected, abs=0.03)


def test_a_model_is_as_good_as_scikit_learns(
    train_here: Callable[..., Any], datasets: Path
) -> None:
    for name, load, alone in (
        (
            "breast_cancer",
            load_breast_cancer,
            HistGradientBoostingClassifier(max_iter=30, learning_rate=0.3),
        ),
        ("diabetes", load_diabetes, GradientBoostingRegressor(n_estimators=30, max_depth=2)),
    ):
        x, y = load(return_X_y=True)
        pl.DataFrame(x).with_columns(target=pl.Series(y)).write_csv(datasets / f"{name}.csv")
        rate = {"learning_rate": alone.learning_rate, "max_depth": alone.max_depth or 6}
        result = train_here(f"{name}.csv", n_estimators=30, **rate)
        held_out = held_out_by(result)
        expected = alone.fit(x[~held_out], y[~held_out]).score(x[held_out], y[held_out])
        assert result["avg_score"] == pytest.approx(expected, abs=0.03), name


def test_data_that_cannot_be_learnt_from_is_one_line_and_leaves_nothing(
    train: Train, datasets: Path, folders: Path, jobs: RayJobs
) -> None:
    (datasets / "one.csv").write_text("a,target\n" + "".join(f"{i},yes\n" for i in range(50)))
    with pytest.raises(InvalidArgumentsError, match="one value 'yes' in all 50 rows") as caught:
        train("one.csv")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    models = folders / "models" / "distributed_training"
    assert not list(models.glob("*one*"))
    known = jobs._patiently(lambda client: client.list_jobs())
    newest = max(known, key=lambda job: job.start_time or 0)
    assert newest.driver_exit_code == 65
    written = json.loads(
        (folders / "models/.runs" / str(newest.submission_id) / "error.json").read_text()
    )
    assert written["kind"] == "target_one_class"


@pytest.mark.slow
def test_a_table_of_twice_the_memory_is_refused_by_name(
    train: Train, datasets: Path, folders: Path
) -> None:
    """Of the job's process on Ray: a file of a few KB by its size, linked until it is too many."""
    rows, columns = 1_000_000, 100
    free = table_memory.available()
    assert free is not None
    folder = datasets / "twice"
    folder.mkdir()
    frame = pl.select(pl.repeat(0.5, rows).alias("target"))
    frame = frame.with_columns(pl.col("target").alias(f"c{i}") for i in range(columns - 1))
    frame.write_parquet(folder / "0.parquet", row_group_size=rows)
    for number in range(1, 2 * free // (rows * columns * 12) + 2):
        os.link(folder / "0.parquet", folder / f"{number}.parquet")
    with pytest.raises(InvalidArgumentsError, match=r"twice/0.parquet and its other parts take"):
        train("twice")
    shutil.rmtree(folder)
    assert not list((folders / "models" / "distributed_training").glob("*twice*"))
