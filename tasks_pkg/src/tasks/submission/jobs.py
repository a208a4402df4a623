"""What all job runners share: the job's name and its result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.ray_jobs.protocol import JobRequest, Progress

#: Makes the request for a submission id.
MakeRequest = Callable[[str], JobRequest]
#: Told the submission id and how far the job is, whenever that changes.
OnProgress = Callable[[str, Progress], None]


@dataclass(frozen=True)
class JobResult:
    """The result of a job, and where its time went.

    Attributes:
        submission_id: Ray's id of the run that succeeded.
        attached: whether the run already existed.
        result: the job's own result.
        startup_seconds: submission to the first line of our code, by the head's clock; 0 if the
            head has restarted since.
        engine_seconds: from that line to the result, by the job's clock.
    """

    submission_id: str
    attached: bool
    result: dict[str, Any]
    startup_seconds: float
    engine_seconds: float


def submission_id(task_id: str, attempt: int = 0) -> str:
    """Return Ray's id for the run number ``attempt`` of a Celery task."""
    return f"celray-{task_id}" + (f"-retry{attempt}" if attempt else "")
