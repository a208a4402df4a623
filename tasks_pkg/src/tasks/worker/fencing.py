"""A process of the pool that stood still goes on only while its worker's leases hold (ADR 0018).

A worker that was stopped (SIGSTOP) for longer than its lease has lost its messages to another one,
and its keeper ends it as soon as it learns of it; but its pool goes on in the same moment, and what
it works on may have its effect first. SIGCONT is delivered before any of its code: there it waits
for the keeper's word, or for its end.
"""

import logging
import mmap
import os
import signal
import time

from tasks.broker.redis.leases import clock
from tasks.contracts import Untyped

#: sysexits.h: try again.
EX_TEMPFAIL = 75

#: The moment until which the leases certainly hold, by `clock`: one page that the pool shares.
_until: list["memoryview[float]"] = []


def share(**_: object) -> None:
    """Make the page, in the worker's main process before it has a pool."""
    if not _until:
        _until.append(memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d"))


def holds_until(moment: float) -> None:
    """Tell the pool: the keeper's word."""
    if _until:
        _until[0][0] = moment


def guard(**_: object) -> None:
    """Wait for that word whenever this process goes on after a stop; called in each new one."""
    parent = os.getppid()

    def goes_on(*_: object) -> None:
        while 0.0 < _until[0][0] < clock():
            if os.getppid() != parent:
                os._exit(EX_TEMPFAIL)
            time.sleep(0.02)

    if _until:
        signal.signal(signal.SIGCONT, goes_on)


def kill(pool: Untyped) -> None:
    """End the processes of a pool at once."""
    try:
        processes = pool.info.get("processes") or ()
    except AttributeError:  # it has been stopped, and has none
        return
    for pid in set(processes) - {os.getpid()}:  # a solo pool's process is this one
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end() -> None:
    """End this process at once; its container's restart policy starts it again."""
    logging.shutdown()
    os._exit(EX_TEMPFAIL)
