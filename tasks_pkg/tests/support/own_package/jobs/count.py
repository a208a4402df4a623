"""A job of another package: parallel calls, a refusal, and a module beside it."""

from typing import Any

from ray_jobs.cluster import connect, each
from ray_jobs.job import Reporter
from ray_jobs.protocol import InputProblemError, JobRequest

from .words import length


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    texts = request.parameters["texts"]
    if not texts:
        raise InputProblemError("nothing", "There is no text.")
    connect()
    lengths = [0] * len(texts)
    for done, (index, number) in enumerate(each(length, texts), 1):
        lengths[index] = number
        reporter.progress("counting", done, len(texts), "texts")
    return {"lengths": lengths}
