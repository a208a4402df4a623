"""What holds for every task that runs a job: it attaches, stops, and does nothing twice."""

import json
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celray_jobs import ALL, GOOD, HEADER, ROWS, Place, Task, place_in
from celray_testing import wait_for

from tasks import orchestration
from tasks.local import Local
from tasks.ray_jobs.prediction.job import PIECE_ROWS
from tasks.settings import using
from tasks.submission.errors import JobStoppedError
from tasks.submission.jobs import submission_id
from tasks.submission.ray import RayJobs
from tasks.submission.runner import runner

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("every") / "place") as made:
        yield made


@pytest.mark.parametrize("task", ALL)
def test_what_was_done_is_not_done_again(place: Place, task: str) -> None:
    first = place.call(task, "good.csv")
    manifest = Path(first["manifest_path"])
    written = manifest.read_bytes()
    # The same task once more, as after Ray has lost the job with its head.
    again = place.here.again("-retry1")
    assert again.pop("reused")
    assert again == {name: first[name] for name in again}
    assert manifest.read_bytes() == written
    # The same request in another task.
    other = place.call(task, "good.csv")
    if task == Task.RETRAIN:
        assert [model["outcome"] for model in other["models"]] == ["unchanged"]
    elif task == Task.INBOX:
        assert (other["done"], other["duplicate"]) == (0, 1)
    else:
        assert other["reused"]
        assert other["manifest_path"] == first["manifest_path"]


def test_going_back_is_not_done_again(place: Place) -> None:
    (place.datasets / "more.csv").write_text(GOOD + "\n".join(ROWS) + "\n")
    for path in ("good.csv", "more.csv"):
        arguments = place.arguments(Task.RETRAIN, path)
        entry = place.root / "models" / "registry" / "m.toml"
        entry.write_text(f"{entry.read_text()}[gate]\nmin_improvement = -1.0\n")
        place.local.run(Task.RETRAIN, **arguments)
    first = place.local.run("rollback_model", name="m")
    again = place.here.again("-retry1")
    assert (again["reused"], again["version"]) == (True, first["version"])
    versions = json.loads((place.root / "models" / "registry" / "m" / "versions.json").read_text())
    assert versions["champion"] == first["version"]


def test_every_job_is_attached_to_and_ends_with_its_task(
    place: Place, jobs: RayJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at a time, on a cluster whose CPUs are taken: they begin, and wait."""
    monkeypatch.setattr(orchestration, "runner", runner)
    # More rows than the job predicts by itself.
    rows = (f"{i},{i % 7},2024-01-01,{'xy'[i % 2]}\n" for i in range(PIECE_ROWS + 1))
    (place.datasets / "many.csv").write_text(HEADER + "".join(rows))
    shutil.rmtree(place.datasets / "new", ignore_errors=True)
    local = Local(place.datasets, place.root / "models")
    settings = local._settings.model_copy(
        update={"job_runner": "jobs-api", "ray_address": jobs.address}
    )

    def at_work(name: str) -> bool:
        """Whether a job has got beyond its first look at the input; as its run folder has it."""
        try:
            text = (settings.runs_dir / name / "progress.json").read_text()
        except FileNotFoundError:
            return False
        return bool(json.loads(text)["progress"]["phase"] != "reading")

    ids = {task: uuid.uuid4().hex for task in ALL}
    arguments = {task: place.arguments(task, "many.csv") for task in ALL}

    tasks = {name.rpartition(".")[2]: task for name, task in local._tasks.items()}

    def deliver(task: str) -> None:
        tasks[task].apply(kwargs=arguments[task], task_id=ids[task], throw=True)

    def stop(task: str) -> list[str]:
        return RayJobs(jobs.address, jobs.patience).stop(ids[task])

    before = place.files()
    taken = f"taken-{uuid.uuid4().hex}"
    jobs._patiently(
        lambda client: client.submit_job(
            entrypoint="exec sleep 3600", submission_id=taken, entrypoint_num_cpus=2
        )
    )
    try:
        wait_for(lambda: str(jobs._status(taken)) == "RUNNING", 120)
        with using(settings), ThreadPoolExecutor(3 * len(ALL)) as pool:
            deliveries = [pool.submit(deliver, task) for task in ALL]
            names = {submission_id(task_id) for task_id in ids.values()}
            wait_for(lambda: all(map(at_work, names)), 300)
            deliveries += [pool.submit(deliver, task) for task in ALL]
            stopped = dict(zip(ALL, pool.map(stop, ALL), strict=True))
            errors = [delivery.exception(timeout=120) for delivery in deliveries]
    finally:
        jobs._patiently(lambda client: client.stop_job(taken))
    assert stopped == {task: [submission_id(ids[task])] for task in ALL}
    assert {type(error) for error in errors} == {JobStoppedError}, errors
    known = jobs._patiently(lambda client: client.list_jobs())
    ours = [job.submission_id for job in known if job.submission_id in names]
    assert sorted(ours) == sorted(names)
    # A worker stops the jobs of the tasks that are registered so, when they are revoked.
    assert {tasks[task].name for task in ALL} <= orchestration._ray_tasks
    # Nothing half done, nothing kept from the next: what was delivered is there again.
    assert place.files() - before <= {"datasets/new/many.csv"}
    assert (place.datasets / "new" / "many.csv").is_file()
