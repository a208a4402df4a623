"""The runner of a task's job: a Ray cluster through its Jobs API, or this machine."""

from typing import Protocol

from tasks.settings import Settings
from tasks.submission.jobs import JobResult, MakeRequest, OnProgress
from tasks.submission.local import LocalJobs
from tasks.submission.ray import RayJobs


class JobRunner(Protocol):
    """Runs one task's job at a time."""

    def run(
        self, task_id: str, entrypoint: str, request: MakeRequest, on_progress: OnProgress
    ) -> JobResult:
        """Run the job to its end; see :meth:`tasks.submission.ray.RayJobs.run`."""

    def stop(self, task_id: str) -> list[str]:
        """Stop what the task has running, and return the names of what was stopped."""


def runner(settings: Settings) -> JobRunner:
    """Return the runner that ``settings.job_runner`` names."""
    if settings.job_runner == "jobs-api":
        return RayJobs(settings.ray_address, runtime_env=settings.ray_runtime_env)
    return LocalJobs("ray" if settings.job_runner == "local-ray" else "plain")
