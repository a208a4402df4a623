"""Run foreign code for a worker's main process: in threads beside its loop, and bounded.

A thread cannot be ended from outside, so one that runs such code is left alone, however long it
takes. The number of concurrent calls is limited, and calls beyond it are not made.
"""

import os
import threading
from collections.abc import Callable
from typing import Final

from celery.utils.log import get_logger

logger = get_logger(__name__)

#: The most concurrent calls.
MOST: Final = 32

_main_process = threading.Event()
_places = threading.BoundedSemaphore(MOST)
# A child process works on one task at a time, within its time limits: nothing else waits for it.
os.register_at_fork(after_in_child=_main_process.clear)


def begin() -> None:
    """Mark this process as a worker's main process."""
    _main_process.set()


def wanted() -> bool:
    """Return whether this process must not run foreign code in place."""
    return _main_process.is_set()


def call(what: str, function: Callable[[], object]) -> bool:
    """Call ``function`` in its own thread, and return at once; False: it is not called.

    Args:
        what: a name for the log.
        function: the function; its exceptions are logged.
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
