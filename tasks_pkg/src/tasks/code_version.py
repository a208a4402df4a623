"""Which code is deployed, and which workers still run another.

A worker runs the code that it was started with until it is restarted. Beat, of which there is one,
and which every deploy of new code replaces, writes its own version down; a worker of another
version that began before that is out of date.
"""

import time
from typing import Literal, TypedDict, cast

from redis import Redis

#: A hash in the broker's database: ``version``, and ``at``, when Beat first had it (epoch seconds).
KEY = "celray:deployed"

#: How the code of a worker stands to what is deployed; "unknown" where no Beat has said.
State = Literal["current", "old", "newer", "unknown"]


class Deployed(TypedDict):
    """The version that Beat runs, and since when (seconds since the epoch)."""

    version: str
    at: float


def announce(broker: Redis, version: str) -> None:
    """Write down the version that is deployed; the same one again changes nothing.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    known = read(broker)
    if known is None or known["version"] != version:
        broker.hset(KEY, mapping={"version": version, "at": f"{time.time():.3f}"})


def read(broker: Redis) -> Deployed | None:
    """Return what was written down last; None where nothing was, or what nobody of us wrote.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    found = cast("dict[str, str]", broker.hgetall(KEY))
    try:
        return {"version": found["version"], "at": float(found["at"])}
    except (KeyError, ValueError):
        return None


def judge(version: str, started_at: float, deployed: Deployed | None) -> State:
    """Say how a worker's code stands to what is deployed.

    Args:
        version: the worker's.
        started_at: when its process began (seconds since the epoch).
        deployed: what Beat has written down.
    """
    if deployed is None:
        return "unknown"
    if version == deployed["version"]:
        return "current"
    # One that began after Beat is part of an update that has not reached Beat yet.
    return "old" if started_at < deployed["at"] else "newer"


def describe(version: str, state: State, deployed: Deployed | None) -> str:
    """Show a worker's version, and what is wrong with it."""
    if state == "old" and deployed is not None:
        return f"{version} OLD, deployed is {deployed['version']}: restart it"
    if state == "newer" and deployed is not None:
        return f"{version} (newer than Beat's {deployed['version']})"
    return version
