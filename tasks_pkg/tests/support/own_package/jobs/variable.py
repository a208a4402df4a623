"""A job that says what its environment holds."""

import os
from typing import Any

from ray_jobs.job import Reporter
from ray_jobs.protocol import JobRequest


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    return {"value": os.environ.get(request.parameters["variable"])}
