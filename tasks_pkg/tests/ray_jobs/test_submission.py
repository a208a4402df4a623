"""The seam to Ray, against a real one: one job per task, whatever happens around it."""

import dataclasses
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celray_testing import free_port, wait_for

from tasks.contracts import InvalidArgumentsError
from tasks.credentials import ConfigurationError
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.protocol import JobRequest, Progress
from tasks.submission.errors import JobFailedError, JobStoppedError, RayUnavailableError
from tasks.submission.jobs import submission_id
from tasks.submission.ray import Patience, RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

RequestFor = Callable[..., Callable[[str], JobRequest]]

#: Refused inside the job, which is then over in a few seconds.
MISSING = "no-such-file.csv"


def nothing(_name: str, _progress: Progress) -> None:
    pass


def ids_of(jobs: RayJobs, task_id: str) -> list[str]:
    known = jobs._patiently(lambda client: client.list_jobs())
    return sorted(name for job in known if task_id in (name := job.submission_id or ""))


def submit_other(jobs: RayJobs, name: str, entrypoint: str) -> None:
    """Put a job of another kind under an id of ours, as an earlier run would have left it."""
    jobs._patiently(lambda client: client.submit_job(entrypoint=entrypoint, submission_id=name))


def test_of_many_submits_at_once_one_job_runs_and_all_follow_it(
    ray_address: str, jobs: RayJobs, request_for: RequestFor
) -> None:
    task_id, request = uuid.uuid4().hex, request_for(MISSING)

    def run(_: int) -> str:
        with pytest.raises(InvalidArgumentsError) as caught:
            RayJobs(ray_address).run(task_id, "train", request, nothing)
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        said = set(pool.map(run, range(8)))
    assert len(said) == 1
    assert "'no-such-file.csv' does not exist" in said.pop()
    assert ids_of(jobs, task_id) == [submission_id(task_id)]


def test_a_run_that_died_is_replaced_by_one_more(jobs: RayJobs, request_for: RequestFor) -> None:
    task_id = uuid.uuid4().hex
    submit_other(jobs, submission_id(task_id), "exit 137")
    with pytest.raises(InvalidArgumentsError, match="does not exist"):
        jobs.run(task_id, "train", request_for(MISSING), nothing)
    assert ids_of(jobs, task_id) == [submission_id(task_id), submission_id(task_id, 1)]


def test_a_job_that_had_ended_when_the_head_was_restarted_is_not_run_again(
    jobs: RayJobs, request_for: RequestFor
) -> None:
    """Ray knows nothing of it, as after a restart; its run folder has how it ended."""
    task_id = uuid.uuid4().hex
    request = request_for(MISSING)(submission_id(task_id))
    reporter = Reporter(Path(request.runs_dir) / request.submission_id)
    reporter.keep({"type": "started", "at": 100.0})
    reporter.keep({"type": "result", "at": 102.5, "result": {"rows": 3}})
    done = jobs.run(task_id, "train", request_for(MISSING), nothing)
    assert (done.result, done.engine_seconds) == ({"rows": 3}, 2.5)
    assert ids_of(jobs, task_id) == []


def test_so_is_one_whose_second_attempt_had_ended(jobs: RayJobs, request_for: RequestFor) -> None:
    task_id = uuid.uuid4().hex
    name = submission_id(task_id, 1)
    kept = Reporter(Path(request_for(MISSING)(name).runs_dir) / name)
    kept.keep({"type": "started", "at": 100.0})
    kept.keep({"type": "result", "at": 102.5, "result": {"rows": 3}})
    assert jobs.run(task_id, "train", request_for(MISSING), nothing).submission_id == name
    assert ids_of(jobs, task_id) == []


def test_an_id_that_was_used_for_something_else_is_refused(
    jobs: RayJobs, request_for: RequestFor
) -> None:
    """By what Ray knows of the job, and by its run folder when Ray has forgotten it."""
    task_id = f"night:{uuid.uuid4().hex}.1-retry-a"
    name = submission_id(task_id)

    def asking(asked: str) -> Callable[[str], JobRequest]:
        return lambda name: dataclasses.replace(request_for(MISSING)(name), asked=asked)

    with pytest.raises(InvalidArgumentsError, match="does not exist"):
        jobs.run(task_id, "train", asking("monday"), nothing)
    for asked in ("monday", ""):  # the same message again, and a worker of an older release
        with pytest.raises(InvalidArgumentsError, match="does not exist"):
            jobs.run(task_id, "train", asking(asked), nothing)
    with pytest.raises(InvalidArgumentsError, match=f"task id '{task_id}' was used before"):
        jobs.run(task_id, "train", asking("tuesday"), nothing)
    assert ids_of(jobs, task_id) == [name]

    folder = Path(request_for(MISSING)(name).runs_dir) / name
    assert json.loads((folder / "started.json").read_text())["asked"] == "monday"
    Reporter(folder).keep({"type": "result", "at": 102.5, "result": {"rows": 3}})
    jobs._patiently(lambda client: client.delete_job(name))
    with pytest.raises(InvalidArgumentsError, match=f"task id '{task_id}' was used before"):
        jobs.run(task_id, "train", asking("tuesday"), nothing)
    assert jobs.run(task_id, "train", asking("monday"), nothing).result == {"rows": 3}


def test_runs_that_die_are_replaced_so_often_and_no_more(
    jobs: RayJobs, request_for: RequestFor
) -> None:
    task_id = uuid.uuid4().hex
    for attempt in range(jobs.patience.attempts):
        submit_other(jobs, submission_id(task_id, attempt), "echo Killed; exit 137")
    with pytest.raises(JobFailedError, match=r"failed 3 times.*Killed"):
        jobs.run(task_id, "train", request_for(MISSING), nothing)


def test_stop_ends_a_job_and_its_follower_is_told(jobs: RayJobs, ray_address: str) -> None:
    task_id = uuid.uuid4().hex
    submit_other(jobs, submission_id(task_id), "exec sleep 600")
    other = RayJobs(ray_address)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(other.follow, submission_id(task_id), nothing)
        assert jobs.stop(task_id) == [submission_id(task_id)]
        with pytest.raises(JobStoppedError):
            following.result(timeout=200)
    assert jobs.stop(task_id, appear_seconds=0) == []


class Door:
    """A TCP relay in front of the dashboard, which can be shut as if that were restarting."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.target = (parts.hostname or "", parts.port or 0)
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.open = True
        self.turned_away = 0
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                self.turned_away += 1
                caller.close()
                continue
            there = socket.create_connection(self.target)
            for a, b in ((caller, there), (there, caller)):
                threading.Thread(target=self._relay, args=(a, b), daemon=True).start()

    @staticmethod
    def _relay(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def door(ray_address: str) -> Iterator[Door]:
    relay = Door(ray_address)
    yield relay
    relay.listener.close()


def test_a_dashboard_that_is_away_for_a_while_is_waited_for(
    jobs: RayJobs,  # also sets the token
    door: Door,
) -> None:
    name = f"celray-{uuid.uuid4().hex}"
    submit_other(jobs, name, "sleep 5; echo done; exit 3")
    behind = RayJobs(door.address, Patience(poll_seconds=0.2, away_seconds=30))
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(behind.follow, name, nothing)
        wait_for(lambda: behind._client is not None)
        door.open = False
        wait_for(lambda: door.turned_away >= 2)
        door.open = True
        error = following.exception(timeout=200)
    assert "without a record" in str(error)  # the job's own end was seen, not the absence


def test_a_dashboard_that_stays_away_is_given_up(request_for: RequestFor) -> None:
    gone = RayJobs(f"http://127.0.0.1:{free_port()}", Patience(away_seconds=0.5))
    with pytest.raises(RayUnavailableError, match="does not answer"):
        gone.run("x", "train", request_for(MISSING), nothing)


def test_a_wrong_token_is_the_operators_mistake(
    jobs: RayJobs,  # noqa: ARG001 - starts Ray
    ray_address: str,
    request_for: RequestFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("0" * 64)
    from ray._private.authentication import http_token_authentication  # noqa: PLC0415

    def wrong(*_: Any) -> dict[str, str]:  # noqa: ANN401 - Ray keeps the first token it has read
        return {"Authorization": "Bearer " + "0" * 64}

    monkeypatch.setattr(http_token_authentication, "get_auth_headers_if_auth_enabled", wrong)
    from ray.dashboard.modules import dashboard_sdk  # noqa: PLC0415

    monkeypatch.setattr(dashboard_sdk, "get_auth_headers_if_auth_enabled", wrong)
    with pytest.raises(ConfigurationError, match="does not accept the token"):
        RayJobs(ray_address).run("x", "train", request_for(MISSING), nothing)
