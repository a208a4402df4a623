"""A drained worker consumes nothing, on purpose, until it is told to consume again (ADR 0047).

A file on the worker's host says so, in the folder of results that Redis has not accepted. All
workers of a host share it. It outlives a worker's container and the host's next start, so that a
host under maintenance takes no task in between.
"""

from pathlib import Path
from typing import Final, TypedDict

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker.control import control_command

from tasks.contracts import Untyped
from tasks.settings import Settings, get_settings

logger = get_logger(__name__)

#: The file's name; the role celery_worker removes it at a deploy.
MARKER: Final = "drained"


class Consuming(TypedDict):
    """A worker's answer: the queues that it consumes from now on."""

    queues: list[str]


def marker(settings: Settings) -> Path | None:
    """Return the file that says that this host is drained; None where there is no folder for it."""
    return settings.outcomes_dir / MARKER if settings.outcomes_dir else None


def is_drained(settings: Settings) -> bool:
    """Return whether this host's workers are to consume nothing."""
    file = marker(settings)
    return file is not None and file.exists()


@control_command()  # type: ignore[untyped-decorator]  # celery has no types
def celray_drain(control: Untyped) -> Consuming:
    """Consume no queue any more; what was taken already is finished."""
    consumer = control.consumer
    for queue in get_settings().own_queues:
        consumer.call_soon(consumer.cancel_task_queue, queue)
    return {"queues": []}


@control_command()  # type: ignore[untyped-decorator]  # celery has no types
def celray_undrain(control: Untyped) -> Consuming:
    """Consume all queues of the catalogue's entry again."""
    consumer, own = control.consumer, list(get_settings().own_queues)
    for queue in own:
        consumer.call_soon(consumer.add_task_queue, queue)
    return {"queues": own}


class DrainedStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Lets a worker that starts on a drained host consume nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Untyped) -> None:
        """Leave every queue before the first message is fetched."""
        settings = get_settings()
        if not is_drained(settings):
            return
        logger.warning("this host is drained: no queue is consumed until make undrain or a deploy")
        for queue in settings.own_queues:
            consumer.cancel_task_queue(queue)
