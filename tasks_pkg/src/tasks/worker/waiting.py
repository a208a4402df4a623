"""A limit on the tasks that wait in a worker's memory for their ETA.

Celery holds each until it is due, besides its prefetch count. 75 messages of 15 MB with an ETA in
the year 2099 had the kernel end a worker of 2 GB, and again after each restart.
"""

from collections.abc import Container
from typing import Final

from tasks.broker.envelope import Refused
from tasks.broker.sizes import mib

#: The most that one worker holds, in bytes of messages: 200,000 of an ordinary task.
MOST_WAITING_BYTES: Final = 256 * 2**20
#: Tasks counted since those that are gone were last left out, after which they are left out again.
_LOOK_AFTER_TASKS: Final = 1000


class WaitingTasks:
    """The sizes of the messages that a worker holds until they are due."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._look_at_tasks = _LOOK_AFTER_TASKS

    def add(self, tag: str, size_bytes: int, held: Container[str]) -> None:
        """Count a message; ``held`` are the tags of all messages that the worker holds.

        Raises:
            Refused: with this message the worker would hold more than the limit.
        """
        full = self._bytes + size_bytes > MOST_WAITING_BYTES
        if full or len(self._sizes) >= self._look_at_tasks:
            self._sizes = {tag: size for tag, size in self._sizes.items() if tag in held}
            self._bytes = sum(self._sizes.values())
            self._look_at_tasks = 2 * len(self._sizes) + _LOOK_AFTER_TASKS
        if self._bytes + size_bytes > MOST_WAITING_BYTES:
            reason = (
                f"it has an ETA, and its worker already holds {mib(self._bytes)} of messages that "
                f"wait for theirs; with its {mib(size_bytes)} that would be more than "
                f"{mib(MOST_WAITING_BYTES)}: send it when it is due, or put its data into a file "
                "under the datasets folder and send the path"
            )
            raise Refused(reason)
        self._sizes[tag] = size_bytes
        self._bytes += size_bytes
