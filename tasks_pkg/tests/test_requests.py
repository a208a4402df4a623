"""What each task asks of its job: earlier versions are compared with that JSON, so it stays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks import orchestration
from tasks.local import Local
from tasks.ray_jobs.protocol import JobRequest
from tasks.submission.jobs import JobResult

RECORDED = Path(__file__).parent / "support" / "requests.jsonl"
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
