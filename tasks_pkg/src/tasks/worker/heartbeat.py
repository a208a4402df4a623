"""A heartbeat file that is fresh only while the consumer really consumes.

``celery inspect ping`` costs seconds of CPU and answers while nothing is consumed
(celery#4079), so the container's health check looks at this file's age instead.
"""

from celery import bootsteps
from celery.utils.log import get_logger

from tasks.contracts import Untyped
from tasks.heartbeat_file import touch
from tasks.settings import get_settings
from tasks.worker.draining import is_drained

logger = get_logger(__name__)

#: Seconds until the first beat: the loop first reads its queues just after the steps have started.
_FIRST_SECONDS = 1.0
#: Consecutive beats without a pending read, while there is room for a task, that count as stuck.
_MISSED_POLLS = 3


class ConsumerHeartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Touch the heartbeat file from the consumer's own loop.

    It starts after every (re)connection and stops with it. A blocked loop, a lost broker, a
    cancelled queue or a reader that no longer reads lets the file grow old.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Untyped, **kwargs: Untyped) -> None:
        super().__init__(consumer, **kwargs)
        settings = get_settings()
        self._file = settings.heartbeat_file
        self._every = settings.heartbeat_seconds
        self._settings = settings
        self._timer: Untyped = None
        self._missed = 0
        self._reason: str | None = None

    def start(self, consumer: Untyped) -> None:
        """Schedule the heartbeat on the consumer's timer."""
        self._missed = 0
        self._timer = consumer.timer.call_repeatedly(self._every, self._beat, (consumer,))
        consumer.timer.call_after(_FIRST_SECONDS, self._beat, (consumer,))

    def stop(self, consumer: Untyped) -> None:  # noqa: ARG002 - the bootstep's signature
        """Stop the heartbeat, so that the file grows old."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    shutdown = stop

    def _beat(self, consumer: Untyped) -> None:
        reason = self._not_working(consumer)
        if reason is None:
            touch(self._file)
        elif reason != self._reason:
            logger.warning("heartbeat: unhealthy: %s", reason)
        if reason is None and self._reason is not None:
            logger.warning("heartbeat: healthy again")
        self._reason = reason

    def _not_working(self, consumer: Untyped) -> str | None:
        """Return why this worker cannot work, or None if it can."""
        task_consumer = consumer.task_consumer
        if task_consumer is None:
            return "no consumer"
        own = self._settings.own_queues
        gone = [queue for queue in own if not task_consumer.consuming_from(queue)]
        drained = bool(gone) and is_drained(self._settings)  # on purpose: see worker/draining.py
        if gone and not drained:
            return f"does not consume {', '.join(gone)}"
        if consumer.pool.num_processes < 1:
            return "its pool has no process"
        channel = task_consumer.channel
        try:
            # Use the pool's connection, never `channel.client`, which blocks in BRPOP.
            with channel.conn_or_acquire() as client:
                client.ping()
        except Exception as error:  # noqa: BLE001 - any error means that the broker does not answer
            return f"broker does not answer: {type(error).__name__}"
        idle = channel.qos.can_consume() and not getattr(channel, "_in_poll", True) and not drained
        self._missed = self._missed + 1 if idle else 0
        if self._missed >= _MISSED_POLLS:
            return "has room for a task but does not read the queue"
        return None
