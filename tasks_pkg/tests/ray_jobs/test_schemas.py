import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs import MARKER, protocol
from tasks.schemas.models import ModelConfig, model_config_from


def test_what_callers_have_always_sent_is_accepted() -> None:
    config = model_config_from({"n_estimators": 50, "max_depth": None, "num_partitions": 4})
    parameters = config.training("x.csv").as_json()
    assert (parameters["n_estimators"], parameters["max_depth"]) == (50, 6)
    assert parameters["target"] == "target"


def test_whole_numbers_may_arrive_as_floats() -> None:
    assert model_config_from({"n_estimators": 10.0}).n_estimators == 10


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"n_estimator": 5}, "did you mean 'n_estimators'"),
        ({"colour": 5}, "it accepts: n_estimators"),
        ({"n_estimators": 0}, "model_config.n_estimators"),
        ({"n_estimators": "5"}, "got '5'"),
        ({"test_fraction": 1.5}, "model_config.test_fraction"),
        ({"task": "clustering"}, "model_config.task"),
        ({"name": "../x"}, "model_config.name"),
    ],
)
def test_a_wrong_key_or_value_is_named(config: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        model_config_from(config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentsError, match=r"max_depth.*seed"):
        model_config_from({"max_depth": 0, "seed": -1})


def test_every_parameter_survives_the_way_to_the_job() -> None:
    request = protocol.JobRequest("id", "r", "d", "m", "c", ModelConfig().training("x").as_json())
    assert protocol.JobRequest(**json.loads(request.encode())) == request


def test_a_request_that_no_environment_can_carry_is_refused() -> None:
    with pytest.raises(protocol.InputProblemError, match="bytes long"):
        protocol.JobRequest("id", "r", "d", "m", "c", {"list": ["x"] * 50_000}).encode()


def test_records_are_found_among_other_output() -> None:
    line = protocol.encode({"type": "started", "at": 1.0})
    log = f"noise\n\x1b[36m(Worker pid=1)\x1b[0m {line}\n{MARKER}half a rec\n{line[:20]}"
    assert [record["type"] for record in protocol.decode(log)] == ["started"]


def test_a_worker_loads_neither_ray_nor_the_heavy_libraries(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "src"
    heavy = ("ray", "polars", "xgboost", "numpy", "pandas", "pyarrow")
    program = f"import sys, tasks.ml_tasks; print([m for m in {heavy!r} if m in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(source)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "[]"
