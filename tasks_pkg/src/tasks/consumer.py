"""Celery's consumer, with its events out of the way of the work."""

import time

from celery.worker.consumer import Consumer as CeleryConsumer

from tasks.contracts import Untyped

#: How long events may gather before they are sent together, in seconds.
_GATHER = 0.1


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """Sends events in batches, a moment later.

    Celery publishes each event at the loop's next turn, before the task that caused it reaches
    a child process; measured in one run, that made a ping's round trip 0.9 ms (8 %) longer.
    Flower shows a task 0.1 s later instead.
    """

    def __init__(self, *args: Untyped, **kwargs: Untyped) -> None:
        self._flush_at = 0.0
        super().__init__(*args, **kwargs)

    def on_send_event_buffered(self) -> None:
        """Plan one flush for all that gathers until then.

        By the clock, not by a flag: a lost connection may take the planned call with it.
        """
        now = time.monotonic()
        if self.hub and now >= self._flush_at:
            self._flush_at = now + _GATHER
            self.timer.call_after(_GATHER, self._flush_events)

    def shutdown(self) -> None:
        """Send what has gathered, then stop."""
        self._flush_events()
        super().shutdown()
