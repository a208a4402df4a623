"""Messages that a worker has fetched before it has room for them (ADR 0019).

Without prefetch, a child process that has finished would wait for a round trip to Redis.
limit = tasks finished in the last 100 ms minus the worker's concurrency. So a message waits for
about 100 ms at most. Where tasks take longer than that, nothing is prefetched: every worker takes
only what it works on. If a long task makes a message wait too long all the same, it is given back
to the front of its queue.
"""

from collections import deque
from time import monotonic
from typing import Any, Final

from tasks.message_headers import LAPSES

#: The window of finished tasks that decides how many messages may wait, in seconds.
_WINDOW_SECONDS: Final = 0.1
#: The most messages that may wait.
_MOST_WAITING: Final = 16
#: How long a message waits here before it is given back, in seconds.
PATIENCE_SECONDS: Final = 0.5

#: Tag, queue, message, and the time of its arrival.
Waiting = tuple[str, str, dict[str, Any], float]


class Prefetch:
    """The prefetched messages of one channel, delivered first in, first out."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        #: Whether it may hold any: a channel without an event loop delivers only on request.
        self.open = False
        self._finished: deque[float] = deque()
        self._pause_until = 0.0

    def finished(self) -> None:
        """Record that a task has ended; may be called from any thread."""
        self._finished.append(monotonic())

    def pause(self) -> None:
        """Stop the prefetch for a moment."""
        self._pause_until = monotonic() + PATIENCE_SECONDS

    def room(self, at_once: int) -> int:
        """Return how many more messages may be fetched now; 0 while there is room for only a few.

        A fetch also sends the acknowledgements. So it waits for no more room than the worker has
        processes. If the worker dies, the tasks that are finished and not acknowledged run again,
        unless a stored result shows that they are done.

        Args:
            at_once: the worker's concurrency. That many tasks may end together however long each
                took, so they do not show how soon the next one ends.
        """
        now = monotonic()
        finished = self._finished
        while finished and finished[0] < now - _WINDOW_SECONDS:
            finished.popleft()
        if not self.open or now < self._pause_until:
            return 0
        allowed = min(_MOST_WAITING, len(finished) - at_once)
        free = allowed - len(self.waiting)
        return free if free >= max(1, min(at_once, allowed // 2)) else 0

    def put(self, tag: str, queue: str, message: dict[str, Any]) -> bool:
        """Hold a message. Return False if it must not wait here.

        A message whose worker has died before must not wait. A task that kills its worker every
        time would otherwise raise the counts of the messages that merely wait beside it
        (``max_deliveries``).
        """
        if not self.open or LAPSES in message.get("headers", ()):
            self.pause()
            return False
        self.waiting.append((tag, queue, message, monotonic()))
        return True

    def take(self) -> Waiting | None:
        """Remove and return the next message."""
        return self.waiting.popleft() if self.waiting else None

    def overdue(self) -> bool:
        """Return whether the first message has waited too long."""
        return bool(self.waiting) and monotonic() - self.waiting[0][3] >= PATIENCE_SECONDS
