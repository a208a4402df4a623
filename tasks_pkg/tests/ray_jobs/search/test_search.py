"""Searches: the right combination, on the right rows, and none of the work twice."""

import dataclasses
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from celray_jobs import run_here
from celray_testing import wait_for
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

from tasks.contracts import InvalidArgumentsError
from tasks.orchestration import job_request
from tasks.ray_jobs import protocol
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, InputProblemError, JobRequest, Progress
from tasks.ray_jobs.requests import SearchRequest
from tasks.ray_jobs.training import boosting, split
from tasks.schemas.search import search_from
from tasks.settings import Settings
from tasks.submission.archive import package
from tasks.submission.ray import RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

Request = Callable[[str], JobRequest]
Grid = list[dict[str, Any]] | dict[str, Any]


@pytest.fixture
def cancer(datasets: Path) -> str:
    x, y = load_breast_cancer(return_X_y=True)
    file = datasets / "cancer.csv"
    if not file.exists():
        pl.DataFrame(x).with_columns(target=pl.Series(y)).write_csv(file)
    return file.name


def request_of(settings: Settings, dataset: str, grid: Grid, **config: object) -> Request:
    checked, tried = search_from(grid, config)
    asked = checked.search(dataset, tried)
    return lambda name: job_request(name, asked, settings)


def plain(request: Request, told: list[Progress] | None = None) -> dict[str, Any]:
    heard = told if told is not None else []
    return run_here(uuid.uuid4().hex, "search", request, heard.append)


def test_the_best_of_a_list_is_found_by_cross_validation_and_trained(
    settings: Settings, cancer: str
) -> None:
    grid = [{"max_depth": 1, "n_estimators": 2}, {"max_depth": 4, "n_estimators": 60}]
    told: list[Progress] = []
    request = request_of(settings, cancer, grid, folds=5, learning_rate=0.2)
    result = plain(request, told)
    assert result["best_params"] == grid[1]
    assert [each["params"] for each in result["all_results"]] == [grid[1], grid[0]]
    assert result["best_score"] == result["all_results"][0]["score"]
    assert [p["done"] for p in told if p["phase"] == "searching"] == [1, 2]

    # The same rows, by scikit-learn: validated by five folds, the hold-out never seen.
    x, y = load_breast_cancer(return_X_y=True)
    held_out = split.holdout_mask(len(y), 42, 0.2, y)
    alone = HistGradientBoostingClassifier(max_iter=60, max_depth=4, learning_rate=0.2)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    validated = cross_val_score(alone, x[~held_out], y[~held_out], cv=folds).mean()
    assert result["best_score"] == pytest.approx(validated, abs=0.03)
    tested = alone.fit(x[~held_out], y[~held_out]).score(x[held_out], y[held_out])
    assert result["holdout_score"] == pytest.approx(tested, abs=0.03)

    model = json.loads((Path(result["model_path"]) / "manifest.json").read_text())
    assert model["task"] == "tasks.ml_tasks.distributed_training"
    assert model["parameters"]["max_depth"] == 4
    assert not set(model["parameters"]) & {"folds", "combinations", "space", "max_trials"}
    table = pl.read_parquet(result["trials_path"])
    assert table["param_max_depth"].to_list() == [1, 4]
    assert table["status"].to_list() == ["complete", "complete"]
    assert Image.open(result["plot_png"]).size[0] > 400
    page = Path(result["plot_html"]).read_text()
    assert page.count("<title>trial 1: ") == 3  # in the panels of time, depth and rounds
    assert not re.search(r"<script|<link|(src|href|url)[=(]\"?https?:", page)  # needs no network
    assert not list(settings.runs_dir.glob("celray-search-*/trials.jsonl"))

    again = plain(request)
    assert (again["reused"], again["best_params"]) == (True, grid[1])


def test_a_space_is_searched_within_its_bounds_and_its_budget(
    settings: Settings, datasets: Path
) -> None:
    x, y = load_diabetes(return_X_y=True)
    pl.DataFrame(x).with_columns(target=pl.Series(y)).write_csv(datasets / "diabetes_search.csv")
    space = {
        "learning_rate": {"low": 0.01, "high": 0.5, "log": True},
        "max_depth": {"low": 1, "high": 6},
        "subsample": {"choice": [0.5, 1.0]},
    }
    config = {"metric": "rmse", "max_trials": 12, "folds": 0, "n_estimators": 40}
    result = plain(request_of(settings, "diabetes_search.csv", space, **config))
    assert (result["num_trials"], result["direction"]) == (12, "min")
    for each in result["all_results"]:
        assert 0.01 <= each["params"]["learning_rate"] <= 0.5
        assert each["params"]["max_depth"] in range(1, 7)
        assert each["params"]["subsample"] in {0.5, 1.0}
        assert each["rounds"] == 40 or each["status"] == "stopped early"
    whole = [each["score"] for each in result["all_results"] if each["status"] == "complete"]
    assert result["best_score"] == min(whole)
    assert any(each["status"] == "stopped early" for each in result["all_results"])


def test_a_search_that_was_killed_goes_on_where_it_was(
    settings: Settings, cancer: str, tmp_path: Path
) -> None:
    grid = [{"max_depth": depth, "n_estimators": 600, "reg_lambda": 2.5} for depth in range(2, 7)]
    request = request_of(settings, cancer, grid, folds=3)
    with zipfile.ZipFile(io.BytesIO(package("search"))) as code:
        code.extractall(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs", "search"],
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            ENGINE_VARIABLE: "plain",
            protocol.REQUEST_VARIABLE: request("killed").encode(),
        },
        stdout=subprocess.DEVNULL,
    )
    found: list[Path] = []
    try:

        def two_have_ended() -> bool:
            found[:] = settings.runs_dir.glob("celray-search-*/trials.jsonl")
            return any(len(file.read_text().splitlines()) >= 2 for file in found)

        wait_for(two_have_ended, 120)
    finally:
        child.kill()
        child.wait()
    done = len(found[0].read_text().splitlines())
    assert done < len(grid)
    told: list[Progress] = []
    result = plain(request, told)
    assert (result["resumed"], result["num_trials"]) == (True, len(grid))
    assert next(p["done"] for p in told if p["phase"] == "searching") == done + 1


@pytest.mark.parametrize("torn", ['{"number": 2, "par', "whole but for its newline"])
def test_a_search_that_goes_on_draws_other_trials_and_keeps_every_one(
    settings: Settings, cancer: str, tmp_path: Path, torn: str
) -> None:
    from tasks.ray_jobs.search import local as local_search  # noqa: PLC0415 - Optuna takes a second
    from tasks.ray_jobs.search import trials  # noqa: PLC0415

    x, y = load_breast_cancer(return_X_y=True)
    names, types = [str(number) for number in range(x.shape[1])], ["q"] * x.shape[1]
    problem = trials.Problem(
        rows=boosting.Matrix(x.astype("float32"), y.astype("float32"), names, types),
        folds=trials.divide(len(y), 1, 0, None),
        classes=0,
        settings={},
        metric="r2",
        rounds=2,
    )
    asked = SearchRequest.of(request_of(settings, cancer, SPACE, early_stopping=False)("x"))
    reporter = Reporter(tmp_path / "run")
    journal = tmp_path / local_search.JOURNAL

    def go_on(trials: int) -> list[dict[str, Any]]:
        wanted = dataclasses.replace(asked, max_trials=trials)
        found, _ = local_search.search(problem, wanted, tmp_path, reporter)
        assert [trial.number for trial in found] == list(range(trials))
        return [trial.params for trial in found]

    first = go_on(3)
    lines = journal.read_text().splitlines(keepends=True)
    half = torn if torn.startswith("{") else lines[2].rstrip("\n")
    journal.write_text("".join([*lines[:2], half]))
    second = go_on(5)
    assert second[:2] == first[:2]
    assert go_on(6)[:5] == second
    assert len({json.dumps(params) for params in second}) == 5


def test_ray_tune_finds_what_a_loop_finds(jobs: RayJobs, settings: Settings, cancer: str) -> None:
    grid = {"max_depth": [1, 3], "n_estimators": [3, 30.0]}
    request = request_of(settings, cancer, grid, folds=4)
    told: list[Progress] = []
    name = uuid.uuid4().hex
    on_ray = jobs.run(name, "search", request, lambda _, p: told.append(p)).result
    assert any(p["phase"] == "searching" for p in told)
    assert not on_ray["resumed"]
    Path(on_ray["manifest_path"]).unlink()
    in_a_loop = plain(request)

    def scores(result: dict[str, Any]) -> dict[str, float]:
        return {json.dumps(each["params"]): each["score"] for each in result["all_results"]}

    assert scores(on_ray) == scores(in_a_loop)
    assert on_ray["best_params"] == in_a_loop["best_params"]


SPACE = {"max_depth": {"low": 2, "high": 9}, "reg_lambda": {"low": 0.5, "high": 3.0}}
LONG = {"folds": 5, "max_trials": 7, "n_estimators": 900, "early_stopping": False}


def ended(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what Ray Tune has on disk of ended trials, by params; a search that ends clears it."""
    states = settings.runs_dir.glob("celray-search-*/tune/experiment_state-*.json")
    newest = max(states, key=lambda file: file.stat().st_mtime_ns, default=None)
    try:
        state = json.loads(newest.read_text()) if newest else {"trial_data": []}
    except ValueError:  # it is being written
        return {}
    kept = [(json.loads(trial), json.loads(run)) for trial, run in state["trial_data"]]
    return {
        json.dumps(trial["config"], sort_keys=True): run["last_result"]
        for trial, run in kept
        if trial["status"] == "TERMINATED"
    }


def require_resumed(result: dict[str, Any], done: dict[str, dict[str, Any]]) -> None:
    assert (result["resumed"], result["num_trials"]) == (True, LONG["max_trials"])
    found = {json.dumps(row["params"], sort_keys=True): row for row in result["all_results"]}
    # A trial that had run again would have taken another time.
    for params, last in done.items():
        assert found[params]["seconds"] == round(last["time_total_s"], 3)
        assert found[params]["score"] == round(last["score"], 6)
        assert found[params]["status"] == "complete"
    assert all(row["seconds"] > 0 for row in found.values())


def test_a_search_on_ray_whose_driver_was_killed_goes_on_where_it_was(
    jobs: RayJobs, settings: Settings, cancer: str
) -> None:
    request = request_of(settings, cancer, SPACE, **LONG)
    first, name = f"celray-{uuid.uuid4().hex}", uuid.uuid4().hex
    jobs.submit_or_attach(first, "search", request(first))

    def pid() -> int | None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                owner = (folder / "environ").read_bytes()
            except OSError:
                continue
            if words[1:4] == [b"-m", b"ray_jobs", b"search"] and first.encode() in owner:
                return int(folder.name)
        return None

    wait_for(lambda: len(ended(settings)) >= 2, 240)
    driver = pid()
    assert driver is not None
    os.kill(driver, signal.SIGKILL)
    done = ended(settings)
    assert 2 <= len(done) < LONG["max_trials"]
    require_resumed(jobs.run(name, "search", request, lambda *_: None).result, done)


def test_a_search_goes_on_where_it_was_after_rays_head_was_killed(
    mortal_ray: Any,  # noqa: ANN401 - a class of conftest.py
    settings: Settings,
    cancer: str,
) -> None:
    # What one worker sees: it follows the job, Ray is gone, and comes back without knowing of it.
    jobs: RayJobs = mortal_ray.jobs
    request = request_of(settings, cancer, SPACE, **LONG, seed=5)
    with ThreadPoolExecutor(1) as worker:
        task = uuid.uuid4().hex
        followed = worker.submit(jobs.run, task, "search", request, lambda *_: None)

        def two_have_ended() -> bool:
            assert not followed.done(), followed.result()
            return len(ended(settings)) >= 2

        wait_for(two_have_ended, 240)
        mortal_ray.kill()
        done = ended(settings)
        assert 2 <= len(done) < LONG["max_trials"]
        mortal_ray.start()
        found = followed.result(timeout=300)
    assert found.submission_id.endswith("-retry1")
    require_resumed(found.result, done)


def test_folds_are_even_and_the_same_every_time() -> None:
    classes = np.array([0] * 31 + [1] * 14)
    fold = split.folds(45, 7, 4, classes)
    assert (fold == split.folds(45, 7, 4, classes)).all()
    for label, least in ((0, 7), (1, 3)):
        assert all((fold[classes == label] == number).sum() >= least for number in range(4))
    assert max(np.bincount(fold)) - min(np.bincount(fold)) <= 1


@pytest.mark.parametrize(
    ("grid", "config", "words"),
    [
        ([], {}, "holds no combination"),
        ({}, {}, "holds no combination"),
        (
            [{"max_dept": 3}],
            {},
            r"param_grid\[0\]: unknown key 'max_dept'; did you mean 'max_depth'",
        ),
        ([{"max_depth": 3}, {"max_depth": 0}], {}, r"param_grid\[1\].max_depth"),
        ([{"target": "x"}], {}, "belongs into search_config"),
        ({"max_depth": {"low": 5, "high": 2}}, {}, "param_grid.max_depth: low 5 is above high 2"),
        ({"max_depth": {"low": 0, "high": 2}}, {}, "param_grid.max_depth"),
        ({"max_depth": {"low": 1.5, "high": 2}}, {}, "param_grid.max_depth"),
        ({"max_depth": {"lo": 1, "high": 2}}, {}, "did you mean 'low'"),
        (
            {"max_depth": {"low": 1, "high": 2, "step": 0.5}},
            {},
            "param_grid.max_depth.step: must be a whole number, as max_depth is, got 0.5",
        ),
        ({"reg_alpha": {"low": 0, "high": math.inf}}, {}, "param_grid.reg_alpha.high.*finite"),
        ({"reg_alpha": {"choice": [0, math.inf]}}, {}, "reg_alpha.*finite"),
        ([{"reg_alpha": math.inf}], {}, r"param_grid\[0\].reg_alpha.*finite"),
        ({"subsample": {"choice": []}}, {}, "at least one value"),
        ({"reg_alpha": {"low": 0, "high": 2, "log": True}}, {}, "log needs low above 0"),
        (
            {"n_estimators": list(range(1, 60)), "max_depth": list(range(1, 30))},
            {},
            "more than 1000",
        ),
        ([{"max_depth": 3}], {"folds": 1}, "search_config.folds: must be 0"),
        ([{"max_depth": 3}], {"fold": 3}, "did you mean 'folds'"),
        ([{"max_depth": 3}], {"max_trials": 0}, "search_config.max_trials"),
    ],
)
def test_what_cannot_be_searched_is_refused(grid: Any, config: dict[str, Any], words: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidArgumentsError, match=words) as caught:
        search_from(grid, config)
    assert "\n" not in str(caught.value)


def test_a_search_without_the_time_for_one_trial_says_so(settings: Settings, cancer: str) -> None:
    request = request_of(settings, cancer, [{"max_depth": 3}], max_seconds=1e-9)
    with pytest.raises(InvalidArgumentsError, match=r"in search_config\.max_seconds, 1e-09"):
        plain(request)


def test_trials_that_cannot_be_are_one_error_and_leave_nothing(
    settings: Settings, datasets: Path
) -> None:
    rows = [f"{i},{'abc'[i % 3]}" for i in range(30)] + ["31,d"]
    (datasets / "rare.csv").write_text("a,target\n" + "\n".join(rows) + "\n")
    with pytest.raises(InvalidArgumentsError, match="metric is 'roc_auc'"):
        plain(request_of(settings, "rare.csv", [{"max_depth": 2}], metric="roc_auc"))
    assert not list((settings.models_dir / "hyperparameter_search").glob("rare*"))


def prepared(tmp_path: Path, labels: Sequence[object], **config: object) -> tuple[Any, list[str]]:
    """Return what a search of such targets would try, and what it would say."""
    from tasks.ray_jobs.inputs import sources  # noqa: PLC0415
    from tasks.ray_jobs.search import job as search_job  # noqa: PLC0415 - Optuna takes a second
    from tasks.ray_jobs.training import job as training_job  # noqa: PLC0415

    checked, tried = search_from([{"max_depth": 2}], config)
    asked = checked.search("x", tried)
    frame = pl.DataFrame({"a": range(len(labels)), "target": labels})
    source = sources.Source((tmp_path / "x",), "parquet")
    data = training_job.prepare(frame, asked.model, source, Reporter(tmp_path / "run"))
    return search_job._problem(data, asked)


def test_rare_classes_are_learnt_from_in_every_fold_and_validated_in_none(tmp_path: Path) -> None:
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 3 + ["d"]
    for folds in (0, 2, 3, 5, 20):
        problem, (said,) = prepared(tmp_path, labels, folds=folds)
        tested = [set(problem.rows.y[fold].tolist()) for fold in problem.folds]
        # Of c two rows are left to learn from, of d one.
        frequent = {0.0, 1.0, 2.0} if folds in {0, 2} else {0.0, 1.0}
        assert tested == [frequent] * max(1, folds), folds
        rare = "'d' (1)" if folds in {0, 2} else "'c' (2), 'd' (1)"
        assert said.endswith(f"learnt from, and not validated on: {rare}")
        assert "fewer than" in said


@settings_of_hypothesis(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=8),
    folds=st.integers(0, 20).filter(lambda folds: folds != 1),
    metric=st.sampled_from([None, "f1", "log_loss"]),
)
def test_any_folds_work_that_a_training_allows(
    tmp_path: Path, counts: list[int], folds: int, metric: str | None
) -> None:
    from tasks.ray_jobs.search import trials  # noqa: PLC0415 - with Optuna

    labels = [f"c{number}" for number, count in enumerate(counts) for _ in range(count)]
    refused: InputProblemError | None = None
    try:
        problem, said = prepared(tmp_path, labels, folds=folds, metric=metric)
    except InputProblemError as error:
        refused = error
    if refused is not None:  # one row held out, one to learn from; or no training takes it either
        of_search = "No trial can be validated" in str(refused)
        assert min(counts) <= 2 if of_search else "class" in str(refused) or "rows" in str(refused)
        return
    assert len(problem.folds) == (folds or 1) or "folds lowered" in said[0]
    assert all(fold.any() and not fold.all() for fold in problem.folds)
    problem = dataclasses.replace(problem, rounds=1)
    assert trials.run(problem, 0, {}).status == "complete"


def test_few_rows_are_divided_into_as_many_folds_as_can_be_scored(tmp_path: Path) -> None:
    numbers = [float(number) + 0.5 for number in range(15)]
    problem, (said,) = prepared(tmp_path, numbers, folds=20)
    assert len(problem.folds) == 6
    assert said == "folds lowered from 20 to 6: there are 12 training rows"
    assert len(prepared(tmp_path, numbers, folds=20, metric="mae")[0].folds) == 12

    two = ["yes"] * 5 + ["no"] * 40
    problem, (said,) = prepared(tmp_path, two, folds=10, metric="roc_auc")
    assert len(problem.folds) == 4
    assert said == "folds lowered from 10 to 4: 'yes', the rarest class, has 4 training rows"
    with pytest.raises(InputProblemError, match="by roc_auc: 'yes', the rarest class, has 1"):
        prepared(tmp_path, ["yes", *["no"] * 40], metric="roc_auc")
