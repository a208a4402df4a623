"""Without a broker: the same tasks in the caller's process, with a Ray of their own or without."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celray_testing import PACKAGE, free_port, wait_for

from tasks.client import UnknownTaskError
from tasks.contracts import InvalidArgumentsError
from tasks.credentials import ConfigurationError
from tasks.local import Local
from tasks.submission import local as local_submission
from tasks.submission.errors import RayUnavailableError

pytestmark = pytest.mark.timeout(600)

WINE = "examples/winequality.csv"
CONFIG: dict[str, Any] = {"target": "quality", "n_estimators": 20, "max_depth": 4}


@pytest.mark.slow
def test_both_engines_learn_the_same_and_leave_the_manifest_of_a_service(
    datasets: Path, tmp_path: Path
) -> None:
    """The same model to its last digit: on one node both grow it in one process."""
    grown = []
    for ray in (True, False):
        models = tmp_path / f"models-{ray}"
        here = Local(datasets, models, ray=ray)
        steps: list[dict[str, Any]] = []
        train: dict[str, Any] = {"dataset_path": WINE, "model_config": CONFIG}
        result = here.run("distributed_training", on_progress=steps.append, **train)
        assert result["status"] == "success"
        assert 0.55 < result["avg_score"] < 0.75
        assert result["engine_seconds"] > 0
        assert result["num_partitions"] == min(2, len(os.sched_getaffinity(0)))
        assert {"reading", "training", "saving"} <= {step["phase"] for step in steps}
        manifest = json.loads(Path(result["manifest_path"]).read_text())
        assert Path(result["manifest_path"]).is_relative_to(models)
        assert manifest["parameters"]["n_estimators"] == 20
        assert manifest["result"]["avg_score"] == result["avg_score"]
        assert set(manifest["files"]) == {"model.ubj", "preprocessing.json", "holdout.parquet"}
        grown.append(Path(result["model_path"], "model.ubj").read_bytes())

        # What one engine has trained, the other finds.
        again = Local(datasets, models, ray=False).run("distributed_training", **train)
        assert again["reused"]
        assert again["model_path"] == result["model_path"]
    assert grown[0] == grown[1]


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"n_estimator": 5}, WINE, "did you mean 'n_estimators'"),
        (CONFIG, "../../etc/passwd", "outside"),
        ({**CONFIG, "metric": "r2"}, WINE, "does not exist for classification"),
    ],
)
def test_what_a_task_raises_reaches_the_caller(
    datasets: Path, tmp_path: Path, config: dict[str, Any], path: str, words: str
) -> None:
    local = Local(datasets, tmp_path / "models", ray=False)
    with pytest.raises(InvalidArgumentsError, match=words):
        local.run("distributed_training", dataset_path=path, model_config=config)


def test_nothing_is_tried_again_later_where_nobody_would_bring_it(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELRAY_MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    local = Local(datasets, tmp_path / "models", ray=False)
    with pytest.raises(RayUnavailableError, match=r"MLflow at .* does not answer"):
        local.run("retrain_models")


@pytest.mark.parametrize("engine", [True, False])
def test_a_library_that_is_missing_is_named_with_the_way_out(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, engine: bool
) -> None:
    monkeypatch.setattr(
        local_submission, "find_spec", lambda name: None if name == "polars" else name
    )
    local = Local(datasets, tmp_path / "models", ray=engine)
    with pytest.raises(ConfigurationError, match=r"has no polars: pip install .*\[local\]"):
        local.run("distributed_training", dataset_path=WINE, model_config=CONFIG)


@pytest.mark.slow
def test_light_tasks_need_no_service_either(datasets: Path, tmp_path: Path) -> None:
    local = Local(datasets, tmp_path / "models", ray=False)
    assert local.run("ping")["status"] == "pong"
    assert local.run("send_notification", message="hello")["status"] == "not_configured"
    assert local.run("cleanup_old_results", dry_run=True)["status"] == "completed"
    assert local.run("check_cluster_health")["status"] == "unhealthy"
    with pytest.raises(UnknownTaskError, match="did you mean 'ping'"):
        local.run("pong")


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process(datasets: Path, tmp_path: Path) -> None:
    arguments = ["run", "distributed_training", f"dataset_path={WINE}", "--no-ray"]
    arguments += ["--datasets", str(datasets), "--models", str(tmp_path / "models")]
    arguments += ["model_config.target=quality", "model_config.n_estimators=10000"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE / "src")}
    with subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", *arguments],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("training 1/"):
                break
        (job,) = _children(run.pid)
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
        assert run.wait(timeout=60) == 130
    wait_for(lambda: not Path(f"/proc/{job}").exists())
    assert "Traceback" not in said
    assert not list((tmp_path / "models").glob("distributed_training/*"))


@pytest.mark.slow
def test_the_example_runs(datasets: Path, tmp_path: Path) -> None:
    example = PACKAGE / "examples" / "without_a_service.py"
    done = subprocess.run(
        [sys.executable, str(example), str(datasets), str(tmp_path / "models")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "training 20 of 20" in done.stdout
    assert "manifest.json" in done.stdout
