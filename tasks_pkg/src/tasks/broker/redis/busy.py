"""While Redis runs a script that does not end, it is away: BUSY is an error of the connection.

Redis answers everything with BUSY then, and redis-py makes of it the error of one command, which
ended workers ("Unrecoverable error"). As ``BusyLoadingError``, which stands for a server that still
loads, it is waited for as an absence is, everywhere; and nobody can take a lease meanwhile
(:func:`tasks.broker.redis.leases.refused`).

What this relies on in redis-py is held by ``tests/test_busy.py``.
"""

from redis._parsers.base import BaseParser
from redis.exceptions import BusyLoadingError

#: What to do about it, for people.
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
