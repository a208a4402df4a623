"""What a Ray job and its submitter say to each other. Standard library only: both import it.

Submitter to job: one JSON document in the environment variable :data:`REQUEST_VARIABLE` of the
job's runtime environment. Job to submitter: records, one per line of the driver's log, each
:data:`MARKER` followed by JSON. Both travel through the Jobs API alone, so a worker host needs
no storage in common with Ray. Records are also kept as files in the job's run folder, for people.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

from . import MARKER

REQUEST_VARIABLE = "CELRAY_JOB_REQUEST"

#: ``plain`` in a job that must do without Ray; see :mod:`tasks.ray_jobs.cluster`.
ENGINE_VARIABLE = "CELRAY_JOB_ENGINE"

#: Variables of every job. Ray prints what its workers print, and by default folds what looks
#: alike: records too. The C library gives freed memory back at once and takes it again for the
#: next range of a file (page faults by the ten thousand, see ADR 0012); so it may keep 128 MiB.
ENVIRONMENT = {
    "RAY_DEDUP_LOGS": "0",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}

#: What the submission id of every attempt but the first ends in.
_RETRY = re.compile(r"-retry[0-9]+\Z")

# Linux limits one environment string to 128 KiB, and Ray repeats the runtime environment,
# escaped once more, in a second variable of the same process.
REQUEST_LIMIT_BYTES = 48 * 1024

# The driver's exit status after a report of bad input; anything else is not the caller's mistake.
EXIT_REJECTED = 65


class Progress(TypedDict):
    """How far a job is. ``done`` of ``total`` are in the units that ``message`` names."""

    phase: str
    done: int
    total: int
    message: str


class Record(TypedDict, total=False):
    """One line from the job. ``at`` is the job's clock, seconds since the epoch.

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
    """A mistake in what was asked for, which no repetition can cure.

    Args:
        kind: a stable word for programs, such as ``dataset_missing``.
        message: what is wrong, with the value and where it came from.
        hint: the way out, a full sentence.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Travel between processes: by default an exception is rebuilt from its text alone."""
        return type(self), (self.kind, str(self))


class InfrastructureError(Exception):
    """The cluster could not do it this time; the same request may well succeed later."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """See :meth:`InputProblemError.__reduce__`."""
        return type(self), (self.kind, str(self))


def run_of(submission_id: str) -> str:
    """Return the name that all attempts of one task have in common."""
    return _RETRY.sub("", submission_id)


@dataclass(frozen=True)
class JobRequest:
    """What the submitter hands to a job.

    Attributes:
        submission_id: Ray's id of this job, also the name of its run folder.
        runs_dir: folder of all run folders, as the job sees it.
        datasets_dir: first allowed root; relative paths are taken under it.
        models_dir: second allowed root; results go there.
        code_version: of the worker that submitted, for the record.
        parameters: the task's own part, validated by the submitter.
        asked: a digest of what the caller sent; empty where there was no caller.
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
        """The name that all attempts of one task have in common."""
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
    """Find the records in a driver's log, in order; everything else is passed over.

    A record may follow a prefix: Ray puts ``(name pid=1)`` before what its workers print. A last
    line that is only half written yet is passed over too.
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
    """Return the one line of a traceback, or of a report of Ray's, that says what happened.

    It is the last one; but Ray's report of full memory ends in advice, and that of a worker which
    the kernel ended does not say why.
    """
    lines = report.strip().splitlines()
    telling = next((line for line in lines if "low on memory" in line), "".join(lines[-1:]))
    if "worker died unexpectedly" in telling:
        telling += " If the kernel ended it for want of memory, raise ray_memory_mb."
    return telling
