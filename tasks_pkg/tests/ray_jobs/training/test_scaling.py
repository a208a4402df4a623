"""Numbers of any size and any distance from zero: a model is as good as without them."""

import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import log_loss

from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.model import features, metrics, scaling, signature
from tasks.ray_jobs.model.predictor import Predictor
from tasks.ray_jobs.prediction import job as prediction_job
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, InputProblemError, JobRequest
from tasks.ray_jobs.registry import retrain
from tasks.ray_jobs.search import job as search_job
from tasks.ray_jobs.training import job as training_job
from tasks.schemas.models import model_config_from
from tasks.schemas.search import search_from

Floats = np.ndarray[Any, np.dtype[np.float64]]
Main = Callable[[JobRequest, Reporter], dict[str, Any]]

#: Up to what XGBoost takes as a target.
SIZES = st.integers(-300, 30).map(lambda exponent: 10.0**exponent)
#: Far from zero, in units of the spread; float64 itself has 16 digits.
PLACES = st.one_of(st.just(0.0), st.floats(1.0, 1e9), st.floats(-1e9, -1.0))


@dataclass(frozen=True)
class Place:
    """Folders of one test, whose jobs run in this process, without Ray."""

    root: Path

    def run(self, main: Main, parameters: dict[str, Any]) -> dict[str, Any]:
        name = uuid.uuid4().hex
        runs, datasets, models = (str(self.root / each) for each in ("runs", "datasets", "models"))
        request = JobRequest(name, runs, datasets, models, "test", parameters)
        return main(request, Reporter(self.root / "runs" / name))

    def write(self, frame: pl.DataFrame) -> str:
        (self.root / "datasets").mkdir(exist_ok=True)
        (self.root / "models").mkdir(exist_ok=True)
        name = f"{uuid.uuid4().hex}.parquet"
        frame.write_parquet(self.root / "datasets" / name)
        return name

    def train(self, frame: pl.DataFrame, **config: object) -> dict[str, Any]:
        return self.run(
            training_job.main, model_config_from(config).training(self.write(frame)).as_json()
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    return Place(tmp_path)


def two_columns(rows: int = 500) -> tuple[Floats, Floats]:
    drawn = np.random.default_rng(1)
    x = drawn.normal(size=(rows, 2))
    return x, x[:, 0] + np.abs(x[:, 1]) + drawn.normal(scale=0.3, size=rows)


@pytest.mark.parametrize(
    ("offset", "scale"),
    [(1.7e12, 1000.0), (0.0, 1e-30), (-5e5, 1e-3), (0.0, 1e30), (1e-200, 1e-205)],
)
def test_a_model_of_a_target_of_any_size_is_as_good_as_scikit_learns(
    place: Place, offset: float, scale: float
) -> None:
    x, y = two_columns()
    target = offset + scale * y
    frame = pl.DataFrame(x, ["a", "b"]).with_columns(target=pl.Series(target))
    result = place.train(frame, n_estimators=40, max_depth=3, learning_rate=0.2)
    assert result["warnings"] == []

    rows = pl.read_parquet(Path(result["model_path"]) / "holdout.parquet")
    held_out = np.isin(np.arange(len(y)), rows["row"].to_numpy())
    alone = HistGradientBoostingRegressor(max_iter=40, max_depth=3, learning_rate=0.2)
    expected = alone.fit(x[~held_out], y[~held_out]).score(x[held_out], y[held_out])
    assert result["metrics"]["r2"] == pytest.approx(expected, abs=0.05)
    # In the target's unit, in result and file alike.
    assert result["metrics"]["rmse"] == pytest.approx(
        scale * math.sqrt((1 - result["metrics"]["r2"]) * np.var(y[held_out])), rel=1e-2
    )
    found = metrics.regression(target[held_out], rows["prediction"].to_numpy())
    assert found["r2"] == pytest.approx(result["metrics"]["r2"], rel=1e-4)

    # Predictions are scaled back by what is stored, and so are a search's scores.
    batch = [{"a": a, "b": b} for a, b in x[held_out].tolist()]
    parameters = {"model_path": result["model_path"], "data_batches": [batch], "id_column": None}
    predicted = place.run(prediction_job.main, parameters)["predictions"]
    assert predicted == pytest.approx(rows["prediction"].to_list(), rel=1e-12)
    config, tried = search_from([{"n_estimators": 40}], {"max_depth": 3, "learning_rate": 0.2})
    searched = place.run(search_job.main, config.search(place.write(frame), tried).as_json())
    assert searched["best_score"] == pytest.approx(expected, abs=0.1)


def test_the_penalty_is_in_the_targets_unit(place: Place) -> None:
    x, y = two_columns()
    scores = []
    for scale in (1.0, 1e6):
        frame = pl.DataFrame(x, ["a", "b"]).with_columns(target=pl.Series(scale * y))
        result = place.train(frame, n_estimators=10, reg_alpha=20.0 * scale)
        scores.append(result["metrics"]["r2"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    frame = pl.DataFrame(x, ["a", "b"]).with_columns(target=pl.Series(1e6 * y))
    assert place.train(frame, n_estimators=10, reg_alpha=20.0)["metrics"]["r2"] != scores[1]


def test_moments_within_a_second_and_ids_of_nineteen_digits_are_told_apart(place: Place) -> None:
    drawn = np.random.default_rng(2)
    begin = datetime(2026, 1, 31, tzinfo=UTC)
    milliseconds = drawn.integers(0, 1000, 500)
    late = milliseconds > 500
    moments = [begin + timedelta(milliseconds=int(each)) for each in milliseconds]
    columns = {
        "seconds": 1.7e9 + milliseconds / 10,
        "moment": moments,
        "id": [(1 << 62) + int(each) for each in milliseconds],
        "huge": 1e200 * (1 + milliseconds / 1e4),
        "tiny": 1e-200 * (1 + milliseconds / 1e4),
    }
    for name, values in columns.items():
        frame = pl.DataFrame({name: values, "target": late})
        result = place.train(frame, n_estimators=20)
        assert result["avg_score"] > 0.97, name
        assert not [text for text in result["warnings"] if "float32" in text]


def test_what_float32_cannot_hold_either_way_is_said(place: Place) -> None:
    # Two clusters far from each other, each much narrower: no offset serves both.
    drawn = np.random.default_rng(3)
    near = drawn.integers(0, 100, 400) + np.where(np.arange(400) % 2, 1.7e12, 0.9e12)
    frame = pl.DataFrame({"a": near, "b": drawn.normal(size=400), "target": near % 100 > 50})
    said = " ".join(place.train(frame, n_estimators=5)["warnings"])
    assert "column 'a': XGBoost computes in float32, which tells apart only" in said
    assert "column 'b'" not in said


@settings(max_examples=200, deadline=None)
@given(size=SIZES, place=PLACES, seed=st.integers(0, 1000), whole=st.booleans())
def test_values_that_differ_stay_different_in_their_order(
    size: float, place: float, seed: int, whole: bool
) -> None:
    drawn = np.random.default_rng(seed)
    if whole:
        values = drawn.integers(0, 5000, 300) + int(place * min(1.0, size) * 1e9)
        series = pl.Series("a", values.tolist(), dtype=pl.Int64)
    else:
        series = pl.Series("a", (drawn.uniform(0, 1, 300).round(4) + place) * size)
    plan = features.learn(series.to_frame())
    stored = features.Plan.from_json(json.loads(json.dumps(plan.as_json())))
    numbers = features.transform(series.to_frame(), stored)[:, 0]
    assert np.isfinite(numbers).all()
    order = series.arg_sort().to_numpy()
    assert (np.diff(numbers[order]) >= 0).all()
    assert len(np.unique(numbers)) >= scaling.FINE * series.n_unique()


@settings(max_examples=200, deadline=None)
@given(size=SIZES, place=PLACES, seed=st.integers(0, 1000))
def test_a_target_is_scaled_and_scaled_back(size: float, place: float, seed: int) -> None:
    drawn = np.random.default_rng(seed).normal(size=50)
    values = (drawn + place) * size
    learnt = scaling.of_target(values)
    numbers = learnt.apply(values).astype(np.float32)
    assert abs(float(numbers.mean())) < 1e-3
    assert float(numbers.std()) == pytest.approx(1.0, rel=1e-3)
    back = learnt.undo(numbers.astype(np.float64))
    assert np.abs(back - values).max() <= 1e-6 * np.ptp(values) + 1e-15 * abs(values).max()


def test_a_column_that_float32_holds_is_left_as_it_is() -> None:
    drawn = np.random.default_rng(4)
    frame = pl.DataFrame(
        {
            "gauss": drawn.normal(size=20_000),
            "price": drawn.lognormal(sigma=3, size=20_000),
            "wide": 10.0 ** drawn.uniform(-30, 30, 20_000),
            "whole": drawn.integers(0, 1 << 23, 20_000),
        }
    )
    assert all(each.scaling == scaling.Scaling() for each in features.learn(frame).columns)


def test_whole_numbers_mean_the_same_to_a_column_that_was_learnt_with_fractions() -> None:
    seconds = 1.7e9 + np.arange(200) / 8
    plan = features.learn(pl.DataFrame({"a": seconds}))
    moved = pl.DataFrame({"a": [1_700_000_003, 1_700_000_024]})
    expected = features.transform(moved.cast(pl.Float64), plan)
    assert features.transform(moved, plan).tolist() == expected.tolist()


def test_models_of_earlier_releases_are_loaded() -> None:
    old = {"columns": [{"name": "a", "role": "number", "categories": []}], "dropped": {}}
    plan = features.Plan.from_json(old)
    assert features.transform(pl.DataFrame({"a": [1.5, 2.0]}), plan)[:, 0].tolist() == [1.5, 2.0]
    assert scaling.Scaling.from_json(None).undo(np.array([2.5])).tolist() == [2.5]


def by_releases_before_scaling(manifest: dict[str, Any]) -> dict[str, str]:
    """Read the columns as commit 7e78cb4 does, which refuses a model where this is an error."""
    kind = manifest["signature"]["columns"]
    return {str(column["name"]): str(column["type"]) for column in kind}


def seconds(x: Floats) -> Floats:
    return np.round(1.7e9 + 10 * x)


@pytest.mark.parametrize(
    ("target", "column", "scaled"),
    [
        (lambda y: y, lambda x: x, True),  # of a regression, the target always is
        (lambda y: y > 0, lambda x: x, False),
        (lambda y: y > 0, seconds, True),
    ],
    ids=["target", "nothing", "column"],
)
def test_older_releases_refuse_a_model_whose_numbers_they_would_not_scale(
    place: Place,
    target: Callable[[Floats], Floats],
    column: Callable[[Floats], Floats],
    *,
    scaled: bool,
) -> None:
    x, y = two_columns()
    frame = pl.DataFrame({"a": column(x[:, 0]), "b": x[:, 1], "target": target(y)})
    result = place.train(frame, n_estimators=5)
    manifest = json.loads(Path(result["manifest_path"]).read_text())
    if scaled:
        with pytest.raises(KeyError):
            by_releases_before_scaling(manifest)
    else:
        assert list(by_releases_before_scaling(manifest)) == ["a", "b"]
    model = signature.find(result["model_path"], str(place.root / "models"))
    assert list(model.types) == ["a", "b"]  # this release reads both
    assert len(Predictor(model).predict(frame.head(3))) == 3


@pytest.mark.parametrize("version", [0, 3, "2", None, [2]])
def test_a_model_of_a_later_release_is_refused_by_name(place: Place, version: object) -> None:
    x, y = two_columns()
    frame = pl.DataFrame(x, ["a", "b"]).with_columns(target=pl.Series(y))
    file = Path(place.train(frame, n_estimators=5)["manifest_path"])
    manifest = json.loads(file.read_text())
    manifest["signature"]["version"] = version
    file.write_text(json.dumps(manifest))
    with pytest.raises(InputProblemError, match="a later release of celray trained it") as caught:
        signature.find(str(file.parent), str(place.root / "models"))
    assert (caught.value.kind, file.parent.name in str(caught.value)) == ("model_newer", True)
    assert repr(version) in str(caught.value)


# -- worth less than a constant --------------------------------------------------------------------


@pytest.mark.parametrize("metric", [*metrics.CLASSIFICATION, *metrics.REGRESSION])
def test_a_model_that_is_no_better_than_a_constant_says_so_and_one_that_is_does_not(
    place: Place, metric: str
) -> None:
    drawn = np.random.default_rng(5)
    x = drawn.normal(size=(400, 3))
    noise: Any
    signal: Any
    if metric in metrics.REGRESSION:
        noise, signal = drawn.normal(size=400), x[:, 0] + 3
        words = "than to answer the mean"
    else:
        noise, signal = drawn.uniform(size=400) < 0.3, x[:, 0] > 1
        words = "than to answer the most frequent class False"
    frame = pl.DataFrame(x, ["a", "b", "c"])
    # Coins have no pattern to learn; a metric that even so came out ahead would not be one.
    bad = place.train(frame.with_columns(target=pl.Series(noise)), metric=metric, n_estimators=50)
    if metric in {"f1", "roc_auc"}:  # which a guess can win by chance against "never"
        constant = {"f1": 0.0, "roc_auc": 0.5}[metric]
        assert any(words in text for text in bad["warnings"]) == (bad["avg_score"] <= constant)
    else:
        (said,) = bad["warnings"]
        assert f"the model is worse {words}" in said
        assert f"{metric} {bad['avg_score']:g}" in said
    good = place.train(frame.with_columns(target=pl.Series(signal)), metric=metric)
    assert good["warnings"] == []


def test_a_search_and_a_retraining_say_it_too(place: Place) -> None:
    drawn = np.random.default_rng(6)
    frame = pl.DataFrame(drawn.normal(size=(200, 3)), ["a", "b", "target"])
    config, tried = search_from([{"n_estimators": 30}, {"n_estimators": 60}], {})
    name = place.write(frame)
    searched = place.run(search_job.main, config.search(name, tried).as_json())
    assert any("worse than to answer the mean" in text for text in searched["warnings"])

    model = {"name": "noise", "parameters": model_config_from({}).training(name).as_json()}
    gate = {"min_score": None, "min_improvement": 0.0}
    parameters = {"models": [{**model, "gate": gate}], "force": False, "mlflow_uri": None}
    retrained = place.run(retrain.main, parameters)
    assert any("noise: the model is worse than" in text for text in retrained["warnings"])


def test_a_constant_is_scored_as_scikit_learn_scores_one() -> None:
    drawn = np.random.default_rng(7)
    learnt, truth = drawn.normal(size=80), drawn.normal(size=40)
    mean = DummyRegressor().fit(np.zeros((80, 1)), learnt).score(np.zeros((40, 1)), truth)
    assert metrics.of_constant(learnt, truth, 0)["r2"] == pytest.approx(mean)
    labels, tested = drawn.integers(0, 3, 80).astype(float), drawn.integers(0, 3, 40).astype(float)
    usual = DummyClassifier(strategy="prior").fit(np.zeros((80, 1)), labels)
    ours = metrics.of_constant(labels, tested, 3)
    assert ours["accuracy"] == pytest.approx(usual.score(np.zeros((40, 1)), tested))
    expected = log_loss(tested, usual.predict_proba(np.zeros((40, 1))))
    assert ours["log_loss"] == pytest.approx(expected)
