"""A job that uses what pip installs for it."""

from importlib import import_module
from typing import Any

from ray_jobs.job import Reporter
from ray_jobs.protocol import JobRequest


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Return the ``VALUE`` of the module that the request names."""
    return {"value": import_module(request.parameters["module"]).VALUE}
