"""Treat BUSY as an error of the connection: while a script runs without end, Redis is unavailable.

During such a script Redis answers every command with BUSY. redis-py raises that as an error of the
single command, which ended workers ("Unrecoverable error"). As a subclass of ``BusyLoadingError``
(the server still loads its data), callers wait for it everywhere as for a lost connection. Nobody
can take a lease meanwhile (:func:`tasks.broker.redis.leases.refused`).

``tests/broker/test_busy.py`` checks what this relies on in redis-py.
"""

from redis._parsers.base import BaseParser
from redis.exceptions import BusyLoadingError

#: What the operator can do about it.
WAY_OUT = (
    "Redis runs a script that does not end, and answers nobody (BUSY): make restart WHAT=redis "
    "ends it, and loses at most the last second"
)


class BusyScriptError(BusyLoadingError):
    """Redis runs a script that does not end."""

    def __str__(self) -> str:
        return WAY_OUT


def count_busy_as_away() -> None:
    """Have redis-py raise :class:`BusyScriptError` for BUSY, in this process and its children."""
    BaseParser.EXCEPTION_CLASSES["BUSY"] = BusyScriptError
