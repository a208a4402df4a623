"""The protocol between a Ray job and its submitter. Standard library only: both import it.

From submitter to job: one JSON document in the environment variable :data:`REQUEST_VARIABLE` of the
job's runtime environment. From job to submitter: records, one per line of the driver's log, each
:data:`MARKER` followed by JSON. Both travel through the Jobs API only, so a worker host shares no
storage with Ray. Records are also stored as files in the job's run folder, for people.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

from . import MARKER

REQUEST_VARIABLE = "CELRAY_JOB_REQUEST"

#: ``plain`` in a job that must run without Ray; see :mod:`tasks.ray_jobs.cluster`.
ENGINE_VARIABLE = "CELRAY_JOB_ENGINE"

#: Environment variables of every job. Ray prints what its workers print, and by default merges
#: similar lines, including records. By default the C library returns freed memory at once and takes
#: it again for the next range of a file (tens of thousands of page faults, see ADR 0012), so it may
#: keep 128 MiB.
ENVIRONMENT = {
    "RAY_DEDUP_LOGS": "0",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}

#: The suffix of every submission id but the first of a task.
_RETRY = re.compile(r"-retry[0-9]+\Z")

# Linux limits one environment string to 128 KiB, and Ray repeats the runtime environment,
# escaped once more, in a second variable of the same process.
REQUEST_LIMIT_BYTES = 48 * 1024

# The driver's exit status after it reported bad input; any other status is not the caller's
# mistake.
EXIT_REJECTED = 65


class Progress(TypedDict):
    """The progress of a job; ``message`` names the units of ``done`` and ``total``."""

    phase: str
    done: int
    total: int
    message: str


class Record(TypedDict, total=False):
    """One record from the job; ``at`` is the job's clock, in seconds since the epoch.

    ``asked`` is the request's, in the run folder's ``started.json``.
    """

    type: Literal["started", "progress", "result", "error"]
    at: float
    asked: str
    progress: Progress
    result: dict[str, Any]
    kind: str
    message: str
    retry: bool


class InputProblemError(Exception):
    """A mistake in the request, which no repetition can cure.

    Args:
        kind: a stable identifier for programs, such as ``dataset_missing``.
        message: what is wrong, with the value and its origin.
        hint: what to do, in a full sentence.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Pickle kind, message and hint: by default an exception is rebuilt from its text alone."""
        return type(self), (self.kind, str(self))


class InfrastructureError(Exception):
    """The cluster failed this time; the same request may succeed later."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """See :meth:`InputProblemError.__reduce__`."""
        return type(self), (self.kind, str(self))


def run_of(submission_id: str) -> str:
    """Return the name that all attempts of one task share."""
    return _RETRY.sub("", submission_id)


@dataclass(frozen=True)
class JobRequest:
    """The request that a submitter sends to a job.

    Attributes:
        submission_id: Ray's id of this job, also the name of its run folder.
        runs_dir: the parent folder of all run folders, as the job sees it.
        datasets_dir: first allowed root; relative paths are taken under it.
        models_dir: second allowed root; results go there.
        code_version: the version of the submitting worker, for the record.
        parameters: the job's own request, validated by the submitter.
        asked: a digest of the caller's message; empty if there was no caller.
    """

    submission_id: str
    runs_dir: str
    datasets_dir: str
    models_dir: str
    code_version: str
    parameters: dict[str, Any] = field(default_factory=dict)
    asked: str = ""

    @property
    def run(self) -> str:
        """Return the name that all attempts of one task share."""
        return run_of(self.submission_id)

    def encode(self) -> str:
        """Return the JSON for :data:`REQUEST_VARIABLE`.

        Raises:
            InputProblemError: the request is longer than :data:`REQUEST_LIMIT_BYTES`.
        """
        text = json.dumps(self.__dict__, separators=(",", ":"))  # in the caller's order
        if len(text) > REQUEST_LIMIT_BYTES:
            raise InputProblemError(
                "request_too_large",
                f"The request is {len(text)} bytes long; a Ray job takes {REQUEST_LIMIT_BYTES}.",
                "Put large inputs into a file under the datasets folder and pass its path.",
            )
        return text

    @classmethod
    def from_environment(cls) -> "JobRequest":
        """Read the request of the job that this process belongs to."""
        return cls(**json.loads(os.environ[REQUEST_VARIABLE]))


def encode(record: Record) -> str:
    """Return the log line, without its newline, that carries ``record``."""
    return MARKER + json.dumps(record, separators=(",", ":"))


def decode(log: str) -> Iterator[Record]:
    """Yield the records in a driver's log, in order; skip all other lines.

    A record may follow a prefix: Ray puts ``(name pid=1)`` before the output of its workers. An
    incomplete last line is skipped too.
    """
    for line in log.splitlines():
        _, marker, text = line.partition(MARKER)
        if not marker:
            continue
        try:
            record = json.loads(text)
        except ValueError:
            continue
        if isinstance(record, dict) and "type" in record:
            yield cast("Record", record)


def telling_line(report: str) -> str:
    """Return the line of a traceback, or of one of Ray's reports, that tells what happened.

    It is the last line, with two exceptions: Ray's report about full memory ends in advice, and
    that about a worker killed by the kernel does not give the reason.
    """
    lines = report.strip().splitlines()
    telling = next((line for line in lines if "low on memory" in line), "".join(lines[-1:]))
    if "worker died unexpectedly" in telling:
        telling += " If the kernel ended it for want of memory, raise ray_memory_mb."
    return telling
