"""What runs a task's job: a Ray cluster through its Jobs API, or this machine, without a broker."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs import protocol
from tasks.ray_jobs.protocol import JobRequest, Progress, Record
from tasks.settings import Settings
from tasks.submission import JobFailedError, JobResult, RayJobs, submission_id


class JobRunner(Protocol):
    """Runs one task's job at a time."""

    def run(
        self,
        task_id: str,
        entrypoint: str,
        request: Callable[[str], JobRequest],
        on_progress: Callable[[str, Progress], None],
    ) -> JobResult:
        """Run the job to its end; see :meth:`tasks.submission.RayJobs.run`."""

    def stop(self, task_id: str) -> list[str]:
        """Stop what the task has running, and give the names of what was stopped."""


def runner(settings: Settings) -> JobRunner:
    """Give the runner that ``settings.job_runner`` names."""
    if settings.job_runner == "jobs-api":
        return RayJobs(settings.ray_address, runtime_env=settings.ray_runtime_env)
    return LocalJobs("ray" if settings.job_runner == "local-ray" else "plain")


class LocalJobs:
    """Runs a job as a child process of this one, with the same code and the same records.

    Args:
        engine: ``ray`` starts a Ray of the job's own; ``plain`` does without Ray.
    """

    def __init__(self, engine: Literal["ray", "plain"]) -> None:
        self.engine = engine
        self._child: subprocess.Popen[str] | None = None

    def run(
        self,
        task_id: str,
        entrypoint: str,
        request: Callable[[str], JobRequest],
        on_progress: Callable[[str, Progress], None],
    ) -> JobResult:
        """Run the job to its end.

        Raises:
            InvalidArgumentsError: the job found fault with what was asked for.
            JobFailedError: it failed; what it printed is on this process's standard error.
        """
        name = submission_id(task_id)
        package = str(Path(protocol.__file__).parents[1])
        try:
            encoded = request(name).encode()
        except protocol.InputProblemError as error:
            raise InvalidArgumentsError(str(error)) from None
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
            "RAY_DEDUP_LOGS": "0",
            protocol.ENGINE_VARIABLE: self.engine,
            protocol.REQUEST_VARIABLE: encoded,
        }
        # A Ray of the job's own: not the cluster that the environment may name.
        environment.pop("RAY_ADDRESS", None)
        last: dict[str, Record] = {}
        submitted = time.time()
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "ray_jobs", entrypoint],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as child:
            self._child = child
            try:
                for line in child.stdout or ():
                    records = list(protocol.decode(line))
                    if not records:
                        sys.stderr.write(line)
                    for record in records:
                        last[record["type"]] = record
                        if record["type"] == "progress":
                            on_progress(name, record["progress"])
            finally:
                self.stop(task_id)
        if "error" in last:
            error_record = last["error"]
            if error_record["kind"] == "internal" or error_record["retry"]:
                raise JobFailedError(error_record["message"])
            raise InvalidArgumentsError(error_record["message"])
        if "result" not in last or "started" not in last:
            message = f"the job ended with status {child.returncode} and no result"
            raise JobFailedError(message)
        begun = last["started"]["at"]
        return JobResult(
            submission_id=name,
            attached=False,
            result=last["result"]["result"],
            startup_seconds=round(max(0.0, begun - submitted), 3),
            engine_seconds=round(last["result"]["at"] - begun, 3),
        )

    def stop(self, task_id: str) -> list[str]:
        """End the child process, if it runs."""
        child = self._child
        if child is None or child.poll() is not None:
            return []
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return [submission_id(task_id)]
