"""A pool process that was paused (SIGSTOP) may continue only if its worker still holds its leases.

A worker that was paused for longer than its lease has lost its messages to another worker (ADR
0018). Its lease keeper ends it once it detects that. But the pool's processes resume at the same
moment, and a task could have its effect first. A process handles SIGCONT before it runs any other
code. The handler waits until the lease keeper confirms the leases, or ends the process.
"""

import logging
import mmap
import os
import signal
import time

from tasks.broker.redis.leases import clock
from tasks.contracts import Untyped

#: From sysexits.h: a temporary failure; try again.
EX_TEMPFAIL = 75

#: The time until which the leases certainly hold, by `clock`: one page shared with the pool.
_until: list["memoryview[float]"] = []


def share(**_: object) -> None:
    """Create the shared page in the worker's main process, before the pool starts."""
    if not _until:
        _until.append(memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d"))


def holds_until(moment: float) -> None:
    """Publish to the pool until when the leases hold; called by the lease keeper."""
    if _until:
        _until[0][0] = moment


def guard(**_: object) -> None:
    """Install the SIGCONT handler in a new pool process; it waits for confirmed leases."""
    parent = os.getppid()

    def goes_on(*_: object) -> None:
        while 0.0 < _until[0][0] < clock():
            if os.getppid() != parent:
                os._exit(EX_TEMPFAIL)
            time.sleep(0.02)

    if _until:
        signal.signal(signal.SIGCONT, goes_on)


def kill(pool: Untyped) -> None:
    """Kill the processes of a pool at once."""
    try:
        processes = pool.info.get("processes") or ()
    except AttributeError:  # the pool has stopped and has no processes
        return
    for pid in set(processes) - {os.getpid()}:  # a solo pool's process is this process
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end() -> None:
    """End this process at once; its container's restart policy starts it again."""
    logging.shutdown()
    os._exit(EX_TEMPFAIL)
