"""What each task asks of its job: earlier versions are compared with that JSON, so it stays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tasks
from tasks import orchestration
from tasks.local import Local
from tasks.ray_jobs.protocol import InputProblemError, JobRequest
from tasks.ray_jobs.requests import (
    AggregateRequest,
    InboxRequest,
    PredictRequest,
    ProcessCsvRequest,
    Request,
    RetrainRequest,
    RollbackRequest,
    SearchRequest,
    TrainRequest,
)
from tasks.submission.jobs import JobResult

RECORDED = Path(__file__).parent / "support" / "requests.jsonl"
SOURCE = Path(tasks.__file__).parent
KINDS: dict[str, type[Request]] = {
    kind.JOB: kind
    for kind in (
        TrainRequest,
        SearchRequest,
        PredictRequest,
        RetrainRequest,
        RollbackRequest,
        ProcessCsvRequest,
        AggregateRequest,
        InboxRequest,
    )
}
REGISTRY = """
dataset_path = "wine"
[model_config]
target = "quality"
max_depth = 4
missing = ["", "-"]
decimal = ","
[gate]
min_score = 0.5
"""


class Recorder:
    """Stands where jobs are submitted, and keeps what they were asked, as it travels."""

    def __init__(self) -> None:
        self.asked = ("", "")

    def run(
        self, task_id: str, entrypoint: str, request: Callable[[str], JobRequest], _: object
    ) -> JobResult:
        sent = json.loads(request(f"celray-{task_id}").encode())["parameters"]
        self.asked = entrypoint, json.dumps(sent)
        return JobResult("celray-x", attached=False, result={}, startup_seconds=0, engine_seconds=0)

    def stop(self, _: str) -> list[str]:
        return []


def ask(root: Path, task: str, arguments: dict[str, Any]) -> tuple[str, str]:
    """Call a task where its job is only recorded; give the job, and the JSON of what is asked.

    The folders hold no data, so the checks of them are left to the job.
    """
    recorder = Recorder()
    (root / "datasets").mkdir()
    (root / "models" / "registry").mkdir(parents=True)
    if task == "retrain_models":
        (root / "models" / "registry" / "wine.toml").write_text(REGISTRY)
        (root / "models" / "registry" / "broken.toml").write_text("dataset_path = 7\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orchestration, "runner", lambda _: recorder)
        Local(root / "datasets", root / "models", ray=False).call(task, arguments)
    job, sent = recorder.asked
    return job, sent.replace(str(root), "ROOT")


def cases() -> list[Any]:
    found = map(json.loads, RECORDED.read_text(encoding="utf-8").splitlines())
    return [pytest.param(*case, id=f"{case[0]}-{at}") for at, case in enumerate(found)]


@pytest.mark.parametrize(("task", "arguments", "job", "sent"), cases())
def test_a_request_is_what_it_was(
    tmp_path: Path, task: str, arguments: dict[str, Any], job: str, sent: str
) -> None:
    """To the byte, with the order of its keys: digests and retrainings compare it."""
    assert ask(tmp_path, task, arguments) == (job, sent)


@pytest.mark.parametrize(("task", "arguments", "job", "sent"), cases())
def test_a_job_reads_what_its_worker_wrote(
    task: str,  # noqa: ARG001 - of the case
    arguments: dict[str, Any],  # noqa: ARG001
    job: str,
    sent: str,
) -> None:
    parameters = json.loads(sent)
    assert KINDS[job].of(job_request(parameters)).as_json() == parameters


def job_request(parameters: dict[str, Any]) -> JobRequest:
    return JobRequest("t", "r", "d", "m", "c", parameters)


def test_every_job_is_recorded() -> None:
    jobs = {file.stem for file in (SOURCE / "ray_jobs" / "jobs").glob("[a-z]*.py")}
    assert set(KINDS) == {case.values[2] for case in cases()} == jobs


def first(job: str) -> dict[str, Any]:
    """Return what a job was asked first."""
    found: dict[str, Any] = next(
        json.loads(one.values[3]) for one in cases() if one.values[2] == job
    )
    return found


def refused(job: str, parameters: dict[str, Any]) -> InputProblemError:
    with pytest.raises(InputProblemError) as caught:
        KINDS[job].of(job_request(parameters))
    assert "deploy again" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("job", KINDS)
def test_a_key_that_a_job_does_not_know_is_named(job: str) -> None:
    parameters = first(job)
    old = next(iter(parameters))
    told = refused(job, {**parameters, f"{old}s": 1})
    assert told.kind == "request_unknown_key"
    assert f"'{old}s', which the job {job} does not know; did you mean {old!r}?" in str(told)


@pytest.mark.parametrize("job", KINDS)
def test_a_key_that_a_job_lacks_is_named(job: str) -> None:
    usual = {"schema", "missing"}
    for name in set(first(job)) - usual:
        parameters = first(job)
        del parameters[name]
        told = refused(job, parameters)
        assert told.kind == "request_missing_key"
        assert f"lacks {name!r}, which the job {job} needs" in str(told)


def test_so_are_keys_of_what_is_to_be_retrained() -> None:
    parameters = first("retrain")
    broken, wine = parameters["models"]
    for entry, told in (
        ({**broken, "problems": 1}, "'problems', which an entry of the job retrain does not know"),
        ({"name": "wine"}, "lacks 'parameters', which an entry of the job retrain needs"),
        ({**wine, "gate": {"min_score": None}}, "lacks 'min_improvement', which a gate of"),
    ):
        assert told in str(refused("retrain", {**parameters, "models": [entry]}))
