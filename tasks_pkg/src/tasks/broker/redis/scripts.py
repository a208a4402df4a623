"""The Lua scripts that run inside Redis, each an atomic step; all times are of Redis's own clock.

The scripts are the files of ``lua/``. Each begins with what it does, its KEYS, its ARGV and what it
returns.

Two keys of the broker's database hold what workers work on:

``celray:held``
    A hash from delivery tag to ``[message, "", queue]``, in kombu's own form; the message in it is
    what stood in the queue, byte for byte, and need not be JSON. A long message stands there
    alone, and its tag ends with ``@`` and the queue.
``celray:leases``
    A sorted set of the same tags, scored with the time of the last renewal (seconds).

They are not kombu's ``unacked`` and ``unacked_index``: a worker of an older release, or of another
program, renews nothing, and must not lose its messages after a few seconds.
"""

from pathlib import Path
from typing import Final

HELD: Final = "celray:held"
LEASES: Final = "celray:leases"
DEAD: Final = "celray:dead"
REFUSED: Final = "celray:refused"
COUNTS: Final = "celray:counts"

#: How a stored success begins: Celery writes the state first (``tests/broker/test_prefetch.py``).
SUCCEEDED: Final = '{"status": "SUCCESS",'


def _read(name: str) -> str:
    return Path(__file__).with_name("lua").joinpath(f"{name}.lua").read_text(encoding="utf-8")


def within_reserve(script: str) -> str:
    """Return a small third-party script that may write while Redis is full, without a limit."""
    return "#!lua flags=allow-oom\n" + script


# --- messages and their leases
FETCH: Final = _read("fetch")
RENEW: Final = _read("renew")
ACK: Final = _read("ack")
RESTORE: Final = _read("restore")
RESTORE_ALL: Final = _read("restore_all")
CLAIM: Final = _read("claim")
BURY: Final = _read("bury")
REFUSE: Final = _read("refuse")
REPLAY: Final = _read("replay")
BIND: Final = _read("bind")
_WITHIN_RESERVE: Final = _read("within_reserve")
PUBLISH: Final = _WITHIN_RESERVE + _read("publish")

# --- results
FORGET: Final = _read("forget")
CANCEL: Final = _read("cancel")
CHORD: Final = _read("chord")
STORE: Final = _WITHIN_RESERVE + _read("store")
STATE: Final = _read("state")
STATE_WITHIN_RESERVE: Final = _WITHIN_RESERVE + STATE
