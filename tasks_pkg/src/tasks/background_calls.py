"""Other people's code that a worker's main process is to run: beside its loop, and bounded.

A thread cannot be ended from outside, so one that runs such code is left alone, however long it
takes; only so many may be under way at a time, and what comes beyond that is not run.
"""

import os
import threading
from collections.abc import Callable
from typing import Final

from celery.utils.log import get_logger

logger = get_logger(__name__)

#: So many calls may be under way at a time.
MOST: Final = 32

_main_process = threading.Event()
_places = threading.BoundedSemaphore(MOST)
# A child works on one task at a time, within the task's time limits: nothing else waits for it.
os.register_at_fork(after_in_child=_main_process.clear)


def begin() -> None:
    """Say that this is a worker's main process."""
    _main_process.set()


def wanted() -> bool:
    """Return whether this process must not run other people's code in place."""
    return _main_process.is_set()


def call(what: str, function: Callable[[], object]) -> bool:
    """Call ``function`` in a thread of its own, and return at once; False: it is not called.

    Args:
        what: it is, for the log.
        function: what it raises is logged.
    """
    if not _places.acquire(blocking=False):
        logger.error("%s is not called: %d others have not ended in this worker", what, MOST)
        return False

    def run() -> None:
        try:
            function()
        except Exception:
            logger.exception("%s failed", what)
        finally:
            _places.release()

    threading.Thread(target=run, name="beside", daemon=True).start()
    return True
