"""A Ray task that takes more memory than there is."""

from typing import Any

from ray_jobs.cluster import connect, each
from ray_jobs.job import Reporter
from ray_jobs.protocol import JobRequest

from .ledger import write


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    write(request, "start", request.parameters["key"])
    connect()
    taken = [size for _, size in each(take, [request.parameters["megabytes"]], concurrency=1)]
    write(request, "effect", request.parameters["key"])
    return {"megabytes": taken[0]}


def take(megabytes: int) -> int:
    """Take so much, page by page, as a table does that grows."""
    return len([bytearray(b"x" * 1024**2) for _ in range(megabytes)])
