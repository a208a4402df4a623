"""Begin, take a while, have one effect."""

import time
from typing import Any

from ray_jobs.job import Reporter
from ray_jobs.protocol import JobRequest

from .ledger import write


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    key, seconds = request.parameters["key"], request.parameters["seconds"]
    write(request, "start", key)
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        reporter.progress("working", round(seconds - left), round(seconds), "seconds")
        time.sleep(min(0.5, left))
    write(request, "effect", key)
    return {"key": key}
