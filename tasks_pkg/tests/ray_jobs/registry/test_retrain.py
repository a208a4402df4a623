"""The registry: retrained where data are new, put to use past a gate, and taken back."""

import json
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import requests
from celray_jobs import run_here
from celray_testing import free_port, wait_for
from sklearn.ensemble import HistGradientBoostingClassifier

from tasks.contracts import InvalidArgumentsError
from tasks.orchestration import job_request
from tasks.preconditions import retraining
from tasks.ray_jobs.inputs import sources
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, InputProblemError
from tasks.ray_jobs.registry import retrain as retrain_job
from tasks.ray_jobs.registry.mlflow import MlflowRegistry
from tasks.ray_jobs.registry.retrain import judged
from tasks.ray_jobs.registry.versions import Version
from tasks.ray_jobs.requests import (
    BrokenEntry,
    Gate,
    RegisteredModel,
    Request,
    RetrainRequest,
    RollbackRequest,
)
from tasks.ray_jobs.tables import reading
from tasks.ray_jobs.training import holdout
from tasks.ray_jobs.training import job as training_job
from tasks.settings import Settings
from tasks.submission.errors import RayUnavailableError
from tasks.submission.ray import RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

SAMPLE = Path(__file__).parents[3] / "samples" / "winequality.csv"
TOML = """
dataset_path = "wine"
[model_config]
target = "color"
n_estimators = {rounds}
max_depth = {depth}
[gate]
min_score = {least}
min_improvement = {gain}
"""

Enter = Callable[..., None]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Folders of this test's own: a registry begins empty."""
    for name in ("datasets/wine", "models/registry", "models/.runs"):
        (tmp_path / name).mkdir(parents=True)
    return Settings.model_construct(
        datasets_dir=tmp_path / "datasets",
        models_dir=tmp_path / "models",
        runs_dir=tmp_path / "models" / ".runs",
        code_version="test",
        mlflow_tracking_uri=None,
    )


@pytest.fixture
def wine(settings: Settings) -> pl.DataFrame:
    """The first 2,000 wines of a shuffled table are there; more are added later."""
    frame = pl.read_csv(SAMPLE, infer_schema_length=None).sample(fraction=1.0, shuffle=True, seed=1)
    frame.head(2000).write_csv(settings.datasets_dir / "wine" / "first.csv")
    return frame


@pytest.fixture
def enter(settings: Settings) -> Enter:
    def write(
        name: str, rounds: int = 20, depth: int = 3, least: float = 0.5, gain: float = 0.0
    ) -> None:
        text = TOML.format(rounds=rounds, depth=depth, least=least, gain=gain)
        (settings.models_dir / "registry" / f"{name}.toml").write_text(text)

    return write


def job(asked: Request, settings: Settings, task_id: str | None = None) -> dict[str, Any]:
    name = task_id or uuid.uuid4().hex
    return run_here(name, asked.JOB, lambda run: job_request(run, asked, settings))


def retrain(
    settings: Settings, task_id: str | None = None, *, force: bool = False
) -> dict[str, Any]:
    models = retraining.models(settings, None)
    uri = settings.mlflow_tracking_uri
    return job(RetrainRequest(models=models, force=force, mlflow_uri=uri), settings, task_id)


def rollback(
    settings: Settings, name: str, version: int | None = None, task_id: str | None = None
) -> dict[str, Any]:
    uri = settings.mlflow_tracking_uri
    return job(RollbackRequest(name=name, version=version, mlflow_uri=uri), settings, task_id)


def the_whole_life_of_a_model(settings: Settings, wine: pl.DataFrame) -> None:
    first = retrain(settings)
    (one,) = first["models"]
    assert (first["status"], first["promoted"], one["outcome"]) == ("success", 1, "promoted")
    assert (one["name"], one["version"], one["score_in_use"]) == ("red", 1, None)

    # Nothing is new: nothing is done.
    (again,) = retrain(settings)["models"]
    assert (again["outcome"], again["champion"]["version"]) == ("unchanged", 1)

    # More rows: old and new are compared on the rows that were held out in the beginning.
    wine.slice(2000).write_csv(settings.datasets_dir / "wine" / "second.csv")
    (two,) = retrain(settings)["models"]
    assert two["version"] == 2
    assert two["holdout_path"] == one["holdout_path"]
    assert two["score_in_use"] == one["score"]
    better = two["score"] >= one["score"]
    assert two["outcome"] == ("promoted" if better else "rejected")
    assert two["champion"]["version"] == (2 if better else 1)

    # The same, by scikit-learn: trained on all rows that are not held out.
    held_out = pl.read_parquet(one["holdout_path"])
    assert held_out.height == 400
    rest = wine.join(held_out.unique(), on=wine.columns, how="anti")
    assert rest.height + held_out.height <= wine.height
    alone = HistGradientBoostingClassifier(max_iter=20, max_depth=3, learning_rate=0.3)
    alone.fit(rest.drop("color").to_numpy(), rest["color"].to_numpy())
    expected = alone.score(held_out.drop("color").to_numpy(), held_out["color"].to_numpy())
    assert two["score"] == pytest.approx(expected, abs=0.03)
    manifest = json.loads((Path(two["model_path"]) / "manifest.json").read_text())
    assert manifest["result"]["train_samples"] == rest.height
    assert manifest["result"]["test_samples"] == held_out.height


def test_a_model_is_retrained_where_its_data_are_new_and_compared_on_frozen_rows(
    settings: Settings, wine: pl.DataFrame, enter: Enter
) -> None:
    enter("red")
    the_whole_life_of_a_model(settings, wine)


def test_a_worse_model_is_not_put_to_use_and_a_better_one_can_be_taken_back(
    settings: Settings,
    wine: pl.DataFrame,  # noqa: ARG001 - is there
    enter: Enter,
) -> None:
    enter("red", rounds=30)
    (one,) = retrain(settings)["models"]
    enter("red", rounds=1, depth=1)
    (worse,) = retrain(settings)["models"]
    assert (worse["outcome"], worse["champion"]["version"]) == ("rejected", 1)
    assert "does not reach min_improvement" in worse["reason"]
    with pytest.raises(InvalidArgumentsError, match="no version before version 1"):
        rollback(settings, "red")

    enter("red", rounds=1, depth=1, gain=-1.0)
    (forced,) = retrain(settings, force=True)["models"]
    assert (forced["outcome"], forced["version"]) == ("promoted", 3)
    back = rollback(settings, "red")
    assert (back["version"], back["previous_version"]) == (1, 3)
    assert back["model_path"] == one["model_path"]
    kept = json.loads((settings.models_dir / "registry/red/versions.json").read_text())
    assert (kept["champion"], kept["previous"]) == (1, 3)
    assert [version["promoted"] for version in kept["versions"]] == [True, False, True]
    assert rollback(settings, "red")["version"] == 3
    assert rollback(settings, "red", 2)["version"] == 2
    for version, words in ((2, "in use already"), (9, "no version 9.*It has: 1, 2, 3")):
        with pytest.raises(InvalidArgumentsError, match=words):
            rollback(settings, "red", version)
    (Path(one["model_path"]) / "model.ubj").write_bytes(b"x")
    with pytest.raises(InvalidArgumentsError, match="not the file that the manifest describes"):
        rollback(settings, "red", 1)


def test_a_rollback_that_is_done_again_does_not_undo_what_came_later(
    settings: Settings,
    wine: pl.DataFrame,  # noqa: ARG001 - is there
    enter: Enter,
) -> None:
    def promoted(rounds: int) -> None:
        enter("red", rounds=rounds, gain=-1.0)
        assert retrain(settings)["promoted"] == 1

    def in_use() -> int:
        file = settings.models_dir / "registry/red/versions.json"
        return int(json.loads(file.read_text())["champion"])

    def lost(task: str) -> None:
        """Leave what a job leaves that is killed before its report."""
        shutil.rmtree(settings.models_dir / "rollbacks" / f"celray-{task}")

    promoted(1)
    promoted(2)
    done = rollback(settings, "red", task_id="back")
    lost("back")
    promoted(3)
    again = rollback(settings, "red", task_id="back-retry1")
    assert (again["version"], again["previous_version"]) == (done["version"], 2)
    assert in_use() == 3

    # Killed after it had said what it means to do: nothing tells whether it did.
    lost("back")
    intent = settings.runs_dir / "celray-back" / "rollback.json"
    intent.write_text(json.dumps({**json.loads(intent.read_text()), "done": False}))
    with pytest.raises(InvalidArgumentsError, match="version 3 in use, which was put to use since"):
        rollback(settings, "red", task_id="back-retry2")
    assert in_use() == 3


def test_who_goes_back_does_not_wait_for_a_training_which_is_then_compared_with_that(
    settings: Settings, wine: pl.DataFrame, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("red", rounds=30)
    (one,) = retrain(settings)["models"]
    enter("red", rounds=1, depth=1, gain=-1.0)
    (two,) = retrain(settings)["models"]
    assert two["score"] < one["score"]
    wine.slice(2000).write_csv(settings.datasets_dir / "wine" / "second.csv")
    fit = training_job.fit

    def fit_meanwhile(*arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        trained = fit(*arguments)
        assert rollback(settings, "red")["version"] == 1
        return trained

    monkeypatch.setattr(training_job, "fit", fit_meanwhile)
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    enter("red", rounds=2, depth=1, gain=-1.0)
    asked = RetrainRequest(models=retraining.models(settings, None), force=False, mlflow_uri=None)
    request = job_request("celray-later", asked, settings)
    (three,) = retrain_job.main(request, Reporter(settings.runs_dir / "later"))["models"]
    assert (three["version"], three["score_in_use"]) == (3, one["score"])
    kept = json.loads((settings.models_dir / "registry/red/versions.json").read_text())
    assert (kept["champion"], kept["previous"]) == (3, 1)


NOISY = """
dataset_path = "noisy"
[model_config]
target = "y"
task = "{task}"
n_estimators = 60
seed = {seed}
test_fraction = {fraction}
"""


@pytest.fixture
def noisy(settings: Settings) -> Callable[..., None]:
    """Delivers rows of which a model can learn the noise by heart, and nothing else of use."""
    (settings.datasets_dir / "noisy").mkdir()

    def deliver(part: int, rows: int = 200, **more: float | None) -> None:
        chance = np.random.default_rng(part)
        x, noise = chance.normal(size=rows), chance.normal(size=rows)
        frame = pl.DataFrame({"x": x, "y": x + 1.5 * noise})
        frame = frame.with_columns(pl.lit(v).alias(k) for k, v in more.items())
        frame.write_csv(settings.datasets_dir / "noisy" / f"{part}.csv")

    return deliver


def test_a_changed_seed_does_not_compare_on_rows_that_the_model_in_use_was_trained_on(
    settings: Settings, noisy: Callable[..., None]
) -> None:
    def entered(seed: int, fraction: float, task: str) -> None:
        text = NOISY.format(seed=seed, fraction=fraction, task=task)
        (settings.models_dir / "registry" / "noisy.toml").write_text(text)

    entered(42, 0.2, "auto")
    noisy(1)
    (one,) = retrain(settings)["models"]
    for part, changed in enumerate([(7, 0.2, "auto"), (7, 0.5, "auto"), (7, 0.5, "regression")], 2):
        entered(*changed)
        noisy(part)
        (later,) = retrain(settings)["models"]
        assert later["holdout_path"] == one["holdout_path"]
        # What has learnt its rows by heart has an R2 near 1 on them, and near 0 on others.
        assert later["score_in_use"] < 0.6


def test_a_column_that_came_later_is_missing_in_the_held_out_rows(
    settings: Settings, noisy: Callable[..., None]
) -> None:
    text = NOISY.format(seed=1, fraction=0.2, task="regression") + "[gate]\nmin_improvement = -9\n"
    (settings.models_dir / "registry" / "noisy.toml").write_text(text)
    noisy(1)
    retrain(settings)
    (settings.datasets_dir / "noisy" / "1.csv").unlink()
    for part, number in ((2, 0.5), (3, 0.7)):
        noisy(part, later=number)
        (wider,) = retrain(settings)["models"]
        assert (wider["outcome"], wider["version"]) == ("promoted", part)
    assert "later" in (Path(wider["model_path"]) / "preprocessing.json").read_text()
    # Both have the column now, and are compared all the same.
    assert wider["score_in_use"] is not None


def test_what_is_in_use_already_is_not_recorded_again_and_the_way_back_stays(
    settings: Settings, wine: pl.DataFrame, enter: Enter
) -> None:
    enter("red", gain=-1.0)
    retrain(settings)
    wine.slice(2000).write_csv(settings.datasets_dir / "wine" / "second.csv")
    retrain(settings)
    forced = retrain(settings, force=True)
    (same,) = forced["models"]
    assert (same["outcome"], same["champion"]["version"]) == ("unchanged", 2)
    assert "version 2 in use is the very model" in same["reason"]
    assert (forced["retrained"], forced["promoted"]) == (0, 0)
    assert rollback(settings, "red")["version"] == 1


def test_a_job_in_place_of_one_that_was_lost_reports_what_that_did(
    settings: Settings,
    wine: pl.DataFrame,  # noqa: ARG001 - is there
    enter: Enter,
) -> None:
    enter("red")
    for task, force in (("first", False), ("second", True)):
        done = retrain(settings, task, force=force)
        if force:
            assert done["models"][0]["outcome"] == "promoted"
        # All that a job which is killed before its report leaves.
        shutil.rmtree(settings.models_dir / "retraining" / f"celray-{task}")
        again = retrain(settings, f"{task}-retry1", force=force)
        assert again["models"] == done["models"]
        assert (again["retrained"], again["promoted"], again["reused"]) == (1, 1, False)
        enter("red", rounds=1, gain=-1.0)
    kept = json.loads((settings.models_dir / "registry/red/versions.json").read_text())
    assert (kept["champion"], kept["previous"], len(kept["versions"])) == (2, 1, 2)


def test_held_out_rows_that_were_chosen_anew_are_no_ground_to_reject_a_model(
    settings: Settings, noisy: Callable[..., None]
) -> None:
    text = NOISY.format(seed=1, fraction=0.2, task="regression")
    entry = settings.models_dir / "registry" / "noisy.toml"
    entry.write_text(text)
    noisy(1)
    (one,) = retrain(settings)["models"]
    Path(one["holdout_path"]).unlink()
    noisy(2)
    (two,) = retrain(settings)["models"]
    assert (two["outcome"], two["score_in_use"]) == ("promoted", None)
    assert "version 1 in use was not compared with: it may have learnt" in two["reason"]
    assert two["holdout_path"] != one["holdout_path"]
    noisy(3)
    (three,) = retrain(settings)["models"]
    assert three["holdout_path"] == two["holdout_path"]
    assert three["score_in_use"] == two["score"]

    Path(two["holdout_path"]).unlink()
    entry.write_text(text + "[gate]\nmin_score = 0.99\n")
    (four,) = retrain(settings, force=True)["models"]
    assert four["outcome"] == "rejected"
    assert "does not reach min_score" in four["reason"]


def test_held_out_rows_from_before_their_files_were_named_after_their_content_stay(
    settings: Settings,
    wine: pl.DataFrame,
    enter: Enter,
) -> None:
    enter("red")
    (one,) = retrain(settings)["models"]
    before = Path(one["holdout_path"]).with_name("holdout-26c00221.parquet")
    Path(one["holdout_path"]).rename(before)
    versions = settings.models_dir / "registry/red/versions.json"
    kept = json.loads(versions.read_text())
    del kept["versions"][0]["holdout"]
    versions.write_text(json.dumps(kept))
    wine.slice(2000).write_csv(settings.datasets_dir / "wine" / "second.csv")
    (two,) = retrain(settings)["models"]
    assert (two["holdout_path"], two["score_in_use"]) == (str(before), one["score"])


def test_one_entry_with_a_mistake_does_not_stop_the_others(
    settings: Settings,
    wine: pl.DataFrame,  # noqa: ARG001 - is there
    enter: Enter,
) -> None:
    enter("good")
    folder = settings.models_dir / "registry"
    (folder / "broken.toml").write_text("dataset_path = ")
    (folder / "misspelt.toml").write_text(
        'dataset_path = "wine"\n[model_config]\ntarge = "color"\n'
    )
    (folder / "gone.toml").write_text('dataset_path = "no-such"\n')
    (folder / "off.toml").write_text('dataset_path = "wine"\nenabled = false\n')
    (folder / "out.toml").write_text('dataset_path = "../../etc"\n')
    result = retrain(settings)
    assert (result["status"], result["failed"], result["promoted"]) == ("partial", 4, 1)
    reasons = {each["name"]: each["reason"] for each in result["models"]}
    assert set(reasons) == {"good", "broken", "misspelt", "gone", "out"}
    assert re.search(r"broken\.toml cannot be read", reasons["broken"])
    assert "did you mean 'target'" in reasons["misspelt"]
    assert "does not exist" in reasons["gone"]
    assert "outside" in reasons["out"]
    assert all("\n" not in reason for reason in reasons.values())


def test_an_entry_that_is_off_or_an_editors_own_is_none_and_a_gate_of_nan_is_a_mistake(
    settings: Settings,
) -> None:
    folder = settings.models_dir / "registry"
    (folder / "off.toml").write_text(
        'dataset_path = "gone"\nenabled = false\n[model_config]\ntarge = "color"\n'
    )
    (folder / ".#wine.toml").symlink_to("ada@host.1234:1")
    (folder / ".wine.toml").write_text('dataset_path = "wine"\n')
    (folder / "open.toml").write_text('dataset_path = "wine"\n[gate]\nmin_score = nan\n')
    (found,) = retraining.models(settings, None)
    assert isinstance(found, BrokenEntry)
    assert found.name == "open"
    assert re.search(r"open\.toml: gate\.min_score: .*finite number, got nan", found.problem)
    (asked,) = retraining.models(settings, ["off"])
    assert isinstance(asked, BrokenEntry)
    assert "did you mean 'target'" in asked.problem


def test_an_empty_registry_is_no_error_and_says_so(settings: Settings) -> None:
    result = retrain(settings)
    assert (result["status"], result["models"]) == ("success", [])
    assert "names no model" in result["warnings"][0]
    with pytest.raises(InvalidArgumentsError, match="'x' is not registered; there are: none"):
        retraining.models(settings, ["x"])


def test_on_ray_it_is_the_same(
    settings: Settings, wine: pl.DataFrame, enter: Enter, jobs: RayJobs
) -> None:
    assert wine.height > 0
    enter("red")
    models = retraining.models(settings, ["red"])
    asked = RetrainRequest(models=models, force=False, mlflow_uri=None)
    name = uuid.uuid4().hex
    result = jobs.run(
        name, "retrain", lambda run: job_request(run, asked, settings), lambda *_: None
    ).result
    (on_ray,) = result["models"]
    shutil.rmtree(settings.models_dir / "registry" / "red")
    shutil.rmtree(on_ray["model_path"])
    (in_process,) = retrain(settings)["models"]
    assert on_ray["score"] == pytest.approx(in_process["score"], abs=0.01)


@pytest.mark.parametrize(
    ("score", "old", "metric", "gate", "promoted"),
    [
        (0.8, None, "accuracy", (None, 0.0), True),
        (0.8, 0.8, "accuracy", (None, 0.0), True),
        (0.8, 0.81, "accuracy", (None, 0.0), False),
        (0.8, 0.81, "accuracy", (None, -0.02), True),
        (0.9, 0.5, "accuracy", (0.95, 0.0), False),
        (1.0, 1.2, "rmse", (None, 0.1), True),
        (1.2, 1.0, "rmse", (None, 0.0), False),
        (1.2, None, "rmse", (1.1, 0.0), False),
        (None, 0.5, "roc_auc", (None, 0.0), False),
    ],
)
def test_the_gate_knows_which_way_is_better(
    score: float | None,
    old: float | None,
    metric: str,
    gate: tuple[float | None, float],
    *,
    promoted: bool,
) -> None:
    least, gain = gate
    gates = Gate(min_score=least, min_improvement=gain)
    assert judged(score, old, metric, gates, "none in use")[0] is promoted


def test_held_out_rows_are_found_again_where_a_whole_number_became_one_with_decimals() -> None:
    frozen = pl.DataFrame({"a": [1, 2], "b": ["x", None], "n": [None, None]})
    frame = pl.DataFrame(
        {
            "a": [2.0, 1.0, 1.5, 1.0],
            "b": pl.Series([None, "x", "x", "y"], dtype=pl.Categorical),
            "c": [1, 2, 3, 4],
            "n": pl.Series([None, None, 3, 4], dtype=pl.Int8),
        }
    )
    table, mask = holdout.apart(frame, frozen)
    assert table["a"].to_list() == [1.5, 1.0, 1.0, 2.0]
    assert table["b"].to_list() == ["x", "y", "x", None]
    assert table["c"].to_list() == [3, 4, None, None]
    assert table["n"].to_list() == [3, 4, None, None]
    assert mask.tolist() == [False, False, True, True]


@pytest.mark.parametrize("kinds", [(pl.Int32, pl.Int64), (pl.UInt64, pl.Int64)])
def test_held_out_whole_numbers_are_told_apart_to_their_last_digit(kinds: tuple[Any, Any]) -> None:
    then, now = kinds
    frozen = pl.DataFrame({"a": pl.Series([1, 2], dtype=then)})
    frame = pl.DataFrame({"a": pl.Series([1, 2, 2**53, 2**53 + 1], dtype=now)})
    assert holdout.apart(frame, frozen)[1].sum() == 2
    frozen = pl.DataFrame({"a": [2**53]})
    assert holdout.apart(frame, frozen)[0].height == 4


def test_a_date_of_a_held_out_row_stays_one() -> None:
    frozen = pl.DataFrame({"a": pl.Series(["2026-01-01"]).str.to_date()})
    frame = pl.DataFrame({"a": pl.Series(["2026-01-02", "2026-01-01"]).str.to_date()})
    table, mask = holdout.apart(frame, frozen)
    assert str(table.schema["a"]) == "Date"
    assert mask.tolist() == [False, True]


def test_held_out_rows_of_an_earlier_release_are_found_among_codes() -> None:
    """``01234`` was the number 1234 when they were chosen, and times in UTC said so."""
    moments = pl.Series(["2026-01-05T10:00:00Z", "2026-01-06T10:00:00Z"]).str.to_datetime()
    frozen = pl.DataFrame({"a": [1234], "d": moments[:1]})
    frame = pl.DataFrame(
        {"a": ["01234", "00777"], "d": moments.dt.replace_time_zone(None)},
    )
    table, mask = holdout.apart(frame, frozen)
    assert table["a"].to_list() == [777, 1234]
    assert mask.tolist() == [False, True]
    with pytest.raises(InputProblemError, match="'a' is String in the dataset, but Int64 in"):
        holdout.apart(frame.with_columns(a=pl.lit("A12")), frozen)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["1234", "777"], ["1234", "777", "A12"]),
        (["1234", "A12"], ["1234", "777"]),
        (["0.50", "1.50"], ["0.50", "1.50", "n.a."]),
        (["True", "False"], ["True", "False", "unknown"]),
        (["2026-01-05", "2026-01-06"], ["2026-01-05", "2026-01-06", "soon"]),
        (["2026-01-05 10:00", "2026-01-06 10:00"], ["2026-01-05 10:00", "today"]),
    ],
)
def test_a_column_that_changed_its_type_cannot_bring_held_out_rows_into_the_training(
    settings: Settings, before: list[str], after: list[str]
) -> None:
    def delivered(values: list[str]) -> pl.DataFrame:
        rows = "".join(f"{value},1\n" for value in values)
        (settings.datasets_dir / "k.csv").write_text("k,y\n" + rows)
        return reading.read(sources.resolve("k.csv", (str(settings.datasets_dir),)))

    then, now = delivered(before), delivered(after)
    assert then.schema["k"] != now.schema["k"]
    told = f"'k' is {now.schema['k']} in the dataset, but {then.schema['k']} in the frozen"
    with pytest.raises(InputProblemError, match=re.escape(told)):
        holdout.apart(now, then)


# -- MLflow ---------------------------------------------------------------------------------

#: A real server, of an environment of its own (`make test-long` makes it): its libraries do not go
#: with ours.
MLFLOW = Path(__file__).parents[4] / ".venv-mlflow/bin/mlflow"


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[str]:
    if not MLFLOW.exists():
        pytest.skip("no MLflow server here: make test-long")
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    with (tmp_path / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            [str(MLFLOW), "server", *options],
            env={"PATH": f"{MLFLOW.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, (tmp_path / "mlflow.log").read_text()
        try:
            return requests.get(f"{url}/health", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        wait_for(answers, 120)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=60)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_an_mlflow_server_can_be_the_registry(
    settings: Settings, wine: pl.DataFrame, mlflow: str
) -> None:
    with_server = settings.model_copy(update={"mlflow_tracking_uri": mlflow})
    tags = {
        "celray.dataset_path": "wine",
        "celray.model_config": json.dumps({"target": "color", "n_estimators": 20, "max_depth": 3}),
        "celray.gate": json.dumps({"min_improvement": -1.0}),
    }
    made = requests.post(
        f"{mlflow}/api/2.0/mlflow/registered-models/create",
        json={"name": "red", "tags": [{"key": k, "value": v} for k, v in tags.items()]},
        timeout=30,
    )
    assert made.ok, made.text
    (entered,) = retraining.models(with_server, None)
    assert isinstance(entered, RegisteredModel)
    assert entered.gate == Gate(min_score=None, min_improvement=-1.0)
    the_whole_life_of_a_model(with_server, wine)
    back = rollback(with_server, "red")
    assert (back["version"], back["previous_version"], back["registry"]) == (1, 2, mlflow)
    alias = requests.get(
        f"{mlflow}/api/2.0/mlflow/registered-models/alias",
        params={"name": "red", "alias": "champion"},
        timeout=30,
    ).json()
    assert alias["model_version"]["version"] == "1"
    with pytest.raises(InvalidArgumentsError, match=r"refuses registered-models/get.*404"):
        rollback(with_server, "white")


class Cut(MlflowRegistry):
    """Is killed before one of its writes to the server."""

    def __init__(self, uri: str, writes: int) -> None:
        super().__init__(uri)
        self.left = writes

    def _ask(self, method: str, what: str, **values: Any) -> dict[str, Any]:  # noqa: ANN401
        if method == "POST":
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
        return super()._ask(method, what, **values)


@pytest.mark.slow
def test_a_promotion_on_mlflow_is_whole_or_finished_wherever_the_job_was_killed(
    mlflow: str,
) -> None:
    made = requests.post(
        f"{mlflow}/api/2.0/mlflow/registered-models/create", json={"name": "red"}, timeout=30
    )
    assert made.ok, made.text
    kept = MlflowRegistry(mlflow)
    whole = Version(0, "/m", [], {}, "r2", 0.5, None, promoted=True, reason="", created_at=0.0)
    kept.record("red", whole)
    before = kept.state("red")
    assert (before.champion, before.previous) == (1, None)
    writes = 0
    while True:
        try:
            Cut(mlflow, writes).record("red", whole)
        except KeyboardInterrupt:
            writes += 1
        else:
            break
        now = kept.state("red")
        recorded = now.versions[-1].number
        assert now.champion == recorded
        assert now.previous == (
            before.champion if len(now.versions) > len(before.versions) else before.previous
        )
        before = now
    assert writes == 6
    first = before.versions[0].number
    kept.use("red", first)
    assert kept.state("red").champion == first


def test_an_mlflow_server_that_is_away_says_so(settings: Settings) -> None:
    away = settings.model_copy(update={"mlflow_tracking_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(RayUnavailableError, match=r"MLflow at .* does not answer"):
        retraining.models(away, None)
