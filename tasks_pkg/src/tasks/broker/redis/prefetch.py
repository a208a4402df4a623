"""Messages that a worker has fetched before it has room for them (ADR 0019).

A child that has finished would otherwise wait for a round trip to Redis. How many may wait here
follows from the work: as many as this worker has finished in the last tenth of a second, less one
for each task that it takes at a time. So none waits longer than about that tenth, and where tasks
take longer than it, none is fetched ahead: every worker takes only what it works on. What waits
too long all the same, because a long task came between, is given back to the front of its queue.
"""

from collections import deque
from time import monotonic
from typing import Any, Final

from tasks.message_headers import LAPSES

#: Seconds of the past that decide how many may wait.
_PAST: Final = 0.1
#: Never more than these.
_MOST: Final = 16
#: Seconds after which a message that waits here is given back.
PATIENCE: Final = 0.5

#: Tag, queue, message, and when it came.
Waiting = tuple[str, str, dict[str, Any], float]


class Ahead:
    """What one channel has fetched ahead, first come, first delivered."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        #: Whether it may take any: a channel without an event loop delivers only on request.
        self.open = False
        self._finished: deque[float] = deque()
        self._pause_until = 0.0

    def finished(self) -> None:
        """Note that a task has ended; may be called from any thread."""
        self._finished.append(monotonic())

    def pause(self) -> None:
        """Fetch nothing ahead for a moment."""
        self._pause_until = monotonic() + PATIENCE

    def room(self, at_once: int) -> int:
        """How many more may be fetched now; none while there is room for a few only.

        A fetch also takes the acknowledgements along, which is why it does not wait for more room
        than the worker has processes: what a worker that dies has done and not acknowledged runs
        again where it leaves no result that would tell.

        Args:
            at_once: tasks that the worker takes at a time. So many may end together however long
                they were, and say nothing of how soon the next ends.
        """
        now = monotonic()
        finished = self._finished
        while finished and finished[0] < now - _PAST:
            finished.popleft()
        if not self.open or now < self._pause_until:
            return 0
        allowed = min(_MOST, len(finished) - at_once)
        free = allowed - len(self.waiting)
        return free if free >= max(1, min(at_once, allowed // 2)) else 0

    def put(self, tag: str, queue: str, message: dict[str, Any]) -> bool:
        """Keep a message; False: it must not wait here.

        That is one whose worker has died before: if a task kills its whole worker every time,
        those that merely waited beside it must not be counted as often (``max_deliveries``).
        """
        if not self.open or LAPSES in message.get("headers", ()):
            self.pause()
            return False
        self.waiting.append((tag, queue, message, monotonic()))
        return True

    def take(self) -> Waiting | None:
        """Return the next one."""
        return self.waiting.popleft() if self.waiting else None

    def overdue(self) -> bool:
        """Return whether the first has waited too long."""
        return bool(self.waiting) and monotonic() - self.waiting[0][3] >= PATIENCE
