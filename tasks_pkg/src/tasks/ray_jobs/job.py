"""The frame of every job: run it, report its progress, and finally one result or one error.

The exit status tells Ray whether the job failed; the record before it tells the submitter why.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from .files import write_json
from .protocol import (
    EXIT_REJECTED,
    InfrastructureError,
    InputProblemError,
    JobRequest,
    Progress,
    Record,
    encode,
    telling_line,
)

PROGRESS_INTERVAL_SECONDS = 0.5


class Reporter:
    """Sends records to the submitter, and stores the last of each kind in the run folder.

    Args:
        run_dir: the job's run folder, created here. If it cannot be created, the job continues
            without it, since the records themselves travel in the log.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._last_sent = 0.0
        self._last_phase = ""

    def send(self, record: Record) -> None:
        """Write one record to the log and to ``<type>.json``."""
        record["at"] = time.time()
        emit(record)
        self.keep(record)

    def keep(self, record: Record) -> None:
        """Write one record to ``<type>.json``: Ray's head forgets a job when it restarts."""
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            write_json(self.run_dir / f"{record['type']}.json", record)
        except OSError as error:
            sys.stderr.write(f"{self.run_dir}: {error.strerror}; records are in the log only\n")

    def progress(self, phase: str, done: int, total: int, message: str) -> None:
        """Report the job's progress; skip reports that follow too fast to be read."""
        now = time.monotonic()
        last = done >= total or phase != self._last_phase
        if last or now - self._last_sent >= PROGRESS_INTERVAL_SECONDS:
            self._last_sent, self._last_phase = now, phase
            progress: Progress = {"phase": phase, "done": done, "total": total, "message": message}
            self.send({"type": "progress", "progress": progress})


#: A job's main function. It gets the request, with the parameters of the job's class in
#: :mod:`requests`, and a reporter for the progress of every phase. It returns the task's result as
#: JSON types; the submitter adds the keys that only it knows.
Main = Callable[[JobRequest, Reporter], dict[str, Any]]


def emit(record: Record) -> None:
    """Write a record to this process's standard output, in one piece.

    This does not use :func:`print`, because Ray Train replaces it inside its workers.
    """
    os.write(1, (encode(record) + "\n").encode())


def run(main: Main, begun: float) -> None:
    """Run a job's main function, and exit with the status that tells how it went.

    Args:
        main: the job's main function.
        begun: when this process's first line ran, in seconds since the epoch.
    """
    # Ray sends SIGTERM to stop a job and SIGKILL 3 s later: time for `finally` clauses.
    signal.signal(signal.SIGTERM, _leave)
    request = JobRequest.from_environment()
    reporter = Reporter(Path(request.runs_dir) / request.submission_id)
    reporter.keep({"type": "started", "at": begun, "asked": request.asked})
    try:
        result = main(request, reporter)
        encode({"type": "result", "result": result})  # not JSON: another run would return the same
    except InputProblemError as error:
        _report(reporter, error.kind, str(error), retry=False)
        sys.exit(EXIT_REJECTED)
    except InfrastructureError as error:
        _report(reporter, error.kind, str(error), retry=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the submitter needs to know of any error
        # The operator gets one line; the rest is in the log.
        traceback.print_exc()
        retry = type(error).__module__.startswith("ray.")
        message = f"{type(error).__name__}: {telling_line(str(error))}"
        _report(reporter, "infrastructure" if retry else "internal", message, retry=retry)
        sys.exit(1)
    reporter.send({"type": "result", "result": result})


def _report(reporter: Reporter, kind: str, message: str, *, retry: bool) -> None:
    reporter.send({"type": "error", "kind": kind, "message": message, "retry": retry})


def _leave(signum: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signum)
