"""The chaos suite's tasks that stand for Ray jobs, for deployed stacks (``chaos.package``)."""

from typing import Any

from tasks.orchestration import ray_task, run_job


@ray_task("chaos.job")
def job(self: Any, key: str, seconds: float) -> dict[str, Any]:  # noqa: ANN401 - a Celery task
    """Begin on Ray, take ``seconds``, have one effect."""
    return run_job(self, "chaos_ray.jobs.work", {"key": key, "seconds": seconds})


@ray_task("chaos.greedy")
def greedy(self: Any, key: str, megabytes: int) -> dict[str, Any]:  # noqa: ANN401
    """Have a Ray task that wants ``megabytes`` of memory."""
    return run_job(self, "chaos_ray.jobs.memory", {"key": key, "megabytes": megabytes})
