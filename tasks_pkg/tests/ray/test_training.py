"""Training jobs on a real Ray: right models, told errors."""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xgboost

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.predictor import Predictor
from tasks.ray_jobs.protocol import InputProblemError, JobRequest, Progress
from tasks.submission import JobResult, RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

Train = Callable[..., JobResult]


@pytest.fixture
def train(jobs: RayJobs, request_for: Callable[..., Callable[[str], JobRequest]]) -> Train:
    def run(dataset_path: str, **config: object) -> JobResult:
        request = request_for(dataset_path, **config)
        return jobs.run(uuid.uuid4().hex, "train", request, lambda _name, _progress: None)

    return run


def test_wine_is_as_good_as_xgboost_alone_and_is_trained_once(
    train: Train, datasets: Path, folders: Path
) -> None:
    config = {"n_estimators": 40, "max_depth": 5, "num_partitions": 2, "target": "quality"}
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
        num_boost_round=40,
    )
    expected = float((alone.predict(xgboost.DMatrix(x[held_out])) == y[held_out]).mean())
    assert result["avg_score"] == pytest.approx(expected, abs=0.03)
    assert result["avg_score"] > 0.6

    # What was written: the model, by itself, gives the reported score.
    assert rows["truth"].to_list() == frame["quality"].cast(pl.String).to_numpy()[held_out].tolist()
    predicted = Predictor(folder).predict(frame.filter(pl.Series(held_out)).drop("quality"))
    right = (predicted["prediction"] == frame["quality"].filter(pl.Series(held_out))).mean()
    assert right == pytest.approx(result["avg_score"], abs=1e-5)
    manifest = json.loads(Path(result["manifest_path"]).read_text())
    assert set(manifest["files"]) == {"model.ubj", "preprocessing.json", "holdout.parquet"}
    assert manifest["inputs"][0]["bytes"] == (datasets / "examples/winequality.csv").stat().st_size
    assert manifest["parameters"]["n_estimators"] == 40
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []
    run_dir = folders / "models" / ".runs" / done.submission_id
    assert sorted(p.name for p in run_dir.iterdir()) == ["progress.json", "result.json"]

    # The same request again, also under another path, is answered from the manifest.
    shutil.copy(datasets / "examples" / "winequality.csv", datasets / "winequality.csv")
    again = train("winequality.csv", **config, name=None)
    assert again.result["reused"] is (again.result["model_path"] == result["model_path"])
    same = train(str(datasets / "examples" / "winequality.csv"), **config)
    assert same.result["reused"] is True
    assert same.result["model_path"] == result["model_path"]

    # A file that was tampered with is not used.
    (folder / "model.ubj").write_bytes(b"x")
    with pytest.raises(InputProblemError, match="not the file that the manifest describes"):
        Predictor(folder)


def test_parts_with_text_and_gaps_train_one_classifier(train: Train, datasets: Path) -> None:
    load = pytest.importorskip("sklearn.datasets", reason="scikit-learn is missing")
    ensemble = pytest.importorskip("sklearn.ensemble")

    bunch = load.load_breast_cancer()
    frame = pl.DataFrame(
        bunch.data, schema=[name.replace(" ", "_") for name in bunch.feature_names]
    )
    label = pl.Series("target", [bunch.target_names[t] for t in bunch.target])
    frame = frame.with_columns(label, note=pl.Series([f"case {i} of many" for i in range(569)]))
    gaps = pl.when(pl.int_range(569) % 50 == 0).then(None).otherwise(pl.col("mean_radius"))
    frame = frame.with_columns(gaps.alias("mean_radius"))
    for part in range(3):
        rows = frame.slice(part * 200, 200)
        rows.write_csv(datasets / f"cancer_part_{part}.csv", null_value="NA")
    result = train(
        "cancer", n_estimators=30, max_depth=3, num_partitions=2, metric="roc_auc"
    ).result
    assert result["classes"] == ["benign", "malignant"]
    assert result["metric"] == "roc_auc"
    assert result["avg_score"] == result["metrics"]["roc_auc"] > 0.97

    held = pl.read_parquet(Path(result["model_path"]) / "holdout.parquet")["row"]
    held_out = np.isin(np.arange(569), held.to_numpy())
    x, y = frame.drop("target", "note").to_numpy(), label.to_numpy()
    alone = ensemble.HistGradientBoostingClassifier(max_iter=30, max_depth=3, learning_rate=0.3)
    expected = alone.fit(x[~held_out], y[~held_out]).score(x[held_out], y[held_out])
    assert result["metrics"]["accuracy"] == pytest.approx(expected, abs=0.03)


def test_more_partitions_than_cpus_are_capped_and_it_says_so(train: Train, datasets: Path) -> None:
    load = pytest.importorskip("sklearn.datasets", reason="scikit-learn is missing")
    ensemble = pytest.importorskip("sklearn.ensemble")

    bunch = load.load_diabetes()
    folder = datasets / "diabetes"
    folder.mkdir()
    frame = pl.DataFrame(bunch.data, schema=bunch.feature_names).with_columns(target=bunch.target)
    frame.slice(0, 200).write_parquet(folder / "a1.parquet")
    frame.slice(200).write_parquet(folder / "a2.parquet")
    config: dict[str, Any] = {"n_estimators": 50, "max_depth": 2, "learning_rate": 0.1}
    result = train("diabetes", num_partitions=64, **config).result
    assert (result["task"], result["num_partitions"]) == ("regression", 2)
    assert "num_partitions lowered from 64 to 2" in " ".join(result["warnings"])

    rows = pl.read_parquet(Path(result["model_path"]) / "holdout.parquet")["row"].to_numpy()
    held_out = np.isin(np.arange(442), rows)
    alone = ensemble.GradientBoostingRegressor(**config, random_state=0)
    alone.fit(bunch.data[~held_out], bunch.target[~held_out])
    expected = alone.score(bunch.data[held_out], bunch.target[held_out])
    assert result["avg_score"] == pytest.approx(expected, abs=0.03)


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


def test_progress_is_told_on_the_way(
    jobs: RayJobs, request_for: Callable[..., Callable[[str], JobRequest]]
) -> None:
    told: list[Progress] = []
    request = request_for("examples/winequality.csv", n_estimators=150, target="alcohol")
    task_id = uuid.uuid4().hex
    result = jobs.run(
        task_id, "train", request, lambda _name, progress: told.append(progress)
    ).result
    assert result["task"] == "regression"
    rounds = [p for p in told if p["phase"] == "training"]
    assert any(0 < p["done"] < p["total"] for p in rounds)
    assert all(p["total"] == 150 for p in rounds)
