"""A job whose result is no JSON."""

from pathlib import Path
from typing import Any

from ray_jobs.job import Reporter
from ray_jobs.protocol import JobRequest


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    with Path(request.parameters["runs"]).open("a") as runs:
        runs.write("run\n")
    return {"lengths": {1, 3}}
