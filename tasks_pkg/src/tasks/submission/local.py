"""Run a task's job on this machine, without a broker or a service."""

import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.util import find_spec
from typing import Literal

from tasks.contracts import InvalidArgumentsError
from tasks.credentials import ConfigurationError
from tasks.ray_jobs import protocol
from tasks.ray_jobs.protocol import Record
from tasks.submission.archive import PACKAGE, package
from tasks.submission.errors import JobFailedError
from tasks.submission.jobs import JobResult, MakeRequest, OnProgress, submission_id

#: Environment variables that name a cluster or grant access to one.
_OF_A_CLUSTER = frozenset({"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"})
#: How long a job may take to exit after its last record, in seconds.
_LEAVES_SECONDS = 60


class LocalJobs:
    """Runs a job as a child process of this one, with the same code and the same records.

    Args:
        engine: ``ray`` starts a Ray of the job's own; ``plain`` does without Ray.
    """

    def __init__(self, engine: Literal["ray", "plain"]) -> None:
        self.engine = engine
        self._child: subprocess.Popen[str] | None = None

    def run(
        self, task_id: str, entrypoint: str, request: MakeRequest, on_progress: OnProgress
    ) -> JobResult:
        """Run the job to its end.

        Raises:
            InvalidArgumentsError: the job rejected its arguments or data.
            JobFailedError: the job failed; its output is on this process's standard error.
            ConfigurationError: a library that the job needs is not installed.
        """
        self._require_libraries(entrypoint)
        name = submission_id(task_id)
        try:
            encoded = request(name).encode()
        except protocol.InputProblemError as error:
            raise InvalidArgumentsError(str(error)) from None
        last: dict[str, Record] = {}
        submitted = time.time()
        with tempfile.TemporaryDirectory(prefix="celray-") as folder:
            # The files that a cluster would receive, and nothing else of this package.
            with zipfile.ZipFile(io.BytesIO(package(entrypoint))) as code:
                code.extractall(folder)
            with subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", PACKAGE, entrypoint],
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment(folder, encoded),
                # Ctrl-C must reach only the caller, which then ends the job.
                start_new_session=True,
            ) as child:
                self._child = child
                try:
                    for line in child.stdout or ():
                        for record in self._read(line):
                            last[record["type"]] = record
                            if record["type"] == "progress":
                                on_progress(name, record["progress"])
                    child.wait(timeout=_LEAVES_SECONDS)
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

    def _require_libraries(self, entrypoint: str) -> None:
        """Refuse one of celray's jobs if its libraries are missing, as in a client's environment.

        Raises:
            ConfigurationError: the text names the libraries and what to do.
        """
        if "." in entrypoint:  # a job of another package, which brings its own libraries
            return
        wanted = ("polars", "ray") if self.engine == "ray" else ("polars",)
        if lacking := [name for name in wanted if find_spec(name) is None]:
            message = (
                f"a job cannot run in this environment, which has no {' and no '.join(lacking)}:"
                " pip install './tasks_pkg[local]' (docs/submit.md), or submit it to a service"
            )
            raise ConfigurationError(message)

    def _environment(self, folder: str, encoded: str) -> dict[str, str]:
        """Return the child's environment: a Ray of its own, not a cluster that ours may name."""
        ours = {name: value for name, value in os.environ.items() if name not in _OF_A_CLUSTER}
        path = [folder, ours.get("PYTHONPATH", "")]
        return {
            **ours,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            **protocol.ENVIRONMENT,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            protocol.ENGINE_VARIABLE: self.engine,
            protocol.REQUEST_VARIABLE: encoded,
        }

    @staticmethod
    def _read(line: str) -> list[Record]:
        """Return the records in a line; pass any other line on to this process's standard error."""
        records = list(protocol.decode(line))
        if not records:
            sys.stderr.write(line)
        return records

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
