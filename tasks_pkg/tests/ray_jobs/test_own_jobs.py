"""A job of another package: its code travels with it, and it runs wherever ours do."""

import dataclasses
import io
import os
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from tasks.contracts import InvalidArgumentsError
from tasks.credentials import ConfigurationError
from tasks.local import Local
from tasks.orchestration import run_job
from tasks.ray_jobs.protocol import JobRequest, Progress
from tasks.settings import using
from tasks.submission.archive import package
from tasks.submission.errors import JobFailedError
from tasks.submission.local import LocalJobs
from tasks.submission.ray import RayJobs

pytestmark = pytest.mark.timeout(600)

JOB = "own_package.jobs.count"


@pytest.fixture
def texts(folders: Path) -> Callable[..., Callable[[str], JobRequest]]:
    def make(*texts: str) -> Callable[[str], JobRequest]:
        places: dict[str, Any] = {
            "runs_dir": str(folders / "models" / ".runs"),
            "datasets_dir": str(folders / "datasets"),
            "models_dir": str(folders / "models"),
        }
        parameters = {"texts": list(texts)}
        return lambda name: JobRequest(name, **places, code_version="t", parameters=parameters)

    return make


Texts = Callable[..., Callable[[str], JobRequest]]


def test_it_runs_on_ray_with_the_modules_beside_it(jobs: RayJobs, texts: Texts) -> None:
    told: list[Progress] = []
    task_id = uuid.uuid4().hex
    done = jobs.run(task_id, JOB, texts("a", "bcd"), lambda _, progress: told.append(progress))
    assert done.result == {"lengths": [1, 3]}
    assert told[-1] == {"phase": "counting", "done": 2, "total": 2, "message": "texts"}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one CPU has one thread")
def test_a_job_has_the_threads_that_it_asks_for(
    jobs: RayJobs, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray gives one to a process that asked it for no CPU; without Ray, the user's word holds."""
    request = texts()

    def asking(name: str) -> JobRequest:
        return dataclasses.replace(request(name), parameters={"threads": 2})

    job = "own_package.jobs.threads"
    done = jobs.run(uuid.uuid4().hex, job, asking, lambda *_: None)
    assert done.result["begun"] > 0
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert LocalJobs("plain").run("t", job, asking, lambda *_: None).result == {"begun": 0}


def test_its_refusal_is_the_callers_mistake(jobs: RayJobs, texts: Texts) -> None:
    with pytest.raises(InvalidArgumentsError, match="There is no text"):
        jobs.run(uuid.uuid4().hex, JOB, texts(), lambda *_: None)


def test_a_result_that_is_no_json_is_the_jobs_error_and_it_is_run_once(
    jobs: RayJobs, texts: Texts, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    request = texts()

    def asking(name: str) -> JobRequest:
        return dataclasses.replace(request(name), parameters={"runs": str(runs)})

    with pytest.raises(JobFailedError, match="TypeError: Object of type set is not JSON"):
        jobs.run(uuid.uuid4().hex, "own_package.jobs.unsendable", asking, lambda *_: None)
    assert runs.read_text() == "run\n"


@pytest.mark.parametrize("engine", ["plain"])
def test_it_runs_without_a_cluster(
    engine: Literal["plain"], texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = Path(__file__).parents[1] / "support"
    monkeypatch.setenv("PYTHONPATH", str(support))
    done = LocalJobs(engine).run("t", JOB, texts("a", "bcd"), lambda *_: None)
    assert done.result == {"lengths": [1, 3]}


def test_a_task_has_one_job(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second would find the first, whose id is the task's, and give its result."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    local = Local(datasets, tmp_path / "models", ray=False)
    first: dict[str, Any] = {}

    @local._app.task(bind=True)  # type: ignore[untyped-decorator]
    def both(self: Any) -> None:  # noqa: ANN401
        first.update(run_job(self, JOB, {"texts": ["a"]}))
        run_job(self, JOB, {"texts": ["bcd"]})

    with using(local._settings), pytest.raises(RuntimeError, match="has had its Ray job"):
        both.apply(throw=True)
    assert first["lengths"] == [1]


def test_nothing_but_the_package_of_jobs_travels() -> None:
    with zipfile.ZipFile(io.BytesIO(package(JOB))) as archive:
        names = [name for name in archive.namelist() if not name.startswith("ray_jobs/")]
    files = ("__init__", "brought", "count", "threads", "unsendable", "variable", "words")
    assert names == [f"own_package/jobs/{file}.py" for file in files]


@pytest.mark.parametrize(
    "entrypoint", ["own_package.jobs", "own_package.jobs.no", "nobody.jobs.count", "os.path.join"]
)
def test_a_name_that_is_no_job_is_refused(entrypoint: str) -> None:
    with pytest.raises(ConfigurationError, match="name a module in a package of jobs"):
        package(entrypoint)
