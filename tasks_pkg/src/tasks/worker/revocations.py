"""Keep a worker from running cancelled tasks (ADR 0033): :mod:`tasks.broker.redis.revocations`."""

from celery import Task, bootsteps, signals
from celery.exceptions import Ignore
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError

from tasks.broker.redis.revocations import KEPT_SECONDS, KEY, MOST, is_noted
from tasks.contracts import Untyped

logger = get_logger(__name__)


def refuse(task: Task) -> None:
    """Do not run a cancelled task; notify its chord, its chain and its errbacks.

    Raises:
        celery.exceptions.Ignore: the message is dropped.
    """
    app, request = task.app, task.request
    revoked = is_noted(request)
    if request.is_eager:  # in its caller's process: nobody can have cancelled it
        return
    stored = task.track_started and not request.ignore_result
    if not revoked and not stored and task.looks_for_cancellation:
        # This waits while Redis is unavailable, as storing a start does: failing would lose the
        # task.
        ask = app.backend.client.zscore
        revoked = app.backend._ensure_retryable(ask, KEY, request.id) is not None
    if revoked:
        logger.info("%s[%s] was cancelled, and is not run", request.task, request.id)
        # As Celery's main process does for a task that it knows to be revoked: a Ray job ends with
        # it.
        worker_state.revoked.add(request.id)
        signals.task_revoked.send(
            sender=task,
            request=request,
            terminated=False,
            signum=None,
            expired=False,
        )
        app.backend.mark_as_revoked(
            request.id, "revoked", request=request, store_result=not request.ignore_result
        )
        raise Ignore


class Revocations(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Loads the ids that were cancelled while the worker was not connected."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Untyped) -> None:
        """Read the set."""
        worker_state.revoked.expires = KEPT_SECONDS
        worker_state.revoked.maxlen = MOST
        try:
            found = consumer.app.backend.client.zrange(KEY, 0, -1)
        except (RedisError, OSError) as error:
            logger.warning("cannot read what is cancelled; each start looks at it: %s", error)
            return
        worker_state.revoked.update(bytes_to_str(one) for one in found)
