"""The deployed code version, and which workers run another one.

A worker runs the code with which it was started until it is restarted. There is one Beat, and every
deploy of new code replaces it, so Beat records its own version. A worker of another version that
started before Beat recorded it is out of date.
"""

import time
from typing import Literal, TypedDict, cast

from redis import Redis

#: A hash in the broker's database: ``version``, and ``at``, when Beat first recorded it (epoch
#: seconds).
KEY = "celray:deployed"

#: A worker's code compared with the deployed version; "unknown" if no Beat has recorded one.
State = Literal["current", "old", "newer", "unknown"]


class Deployed(TypedDict):
    """The version that Beat runs, and when it first recorded it (seconds since the epoch)."""

    version: str
    at: float


def announce(broker: Redis, version: str) -> None:
    """Record the deployed version; recording the same one again changes nothing.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    known = read(broker)
    if known is None or known["version"] != version:
        broker.hset(KEY, mapping={"version": version, "at": f"{time.time():.3f}"})


def read(broker: Redis) -> Deployed | None:
    """Return the last recorded version; None if there is none, or another program wrote it.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    found = cast("dict[str, str]", broker.hgetall(KEY))
    try:
        return {"version": found["version"], "at": float(found["at"])}
    except (KeyError, ValueError):
        return None


def judge(version: str, started_at: float, deployed: Deployed | None) -> State:
    """Compare a worker's code with the deployed version.

    Args:
        version: the worker's version.
        started_at: when its process started (seconds since the epoch).
        deployed: the version that Beat has recorded.
    """
    if deployed is None:
        return "unknown"
    if version == deployed["version"]:
        return "current"
    # A worker that started after Beat is part of an update that has not reached Beat yet.
    return "old" if started_at < deployed["at"] else "newer"


def describe(version: str, state: State, deployed: Deployed | None) -> str:
    """Describe a worker's version, and whether it is out of date."""
    if state == "old" and deployed is not None:
        return f"{version} OLD, deployed is {deployed['version']}: restart it"
    if state == "newer" and deployed is not None:
        return f"{version} (newer than Beat's {deployed['version']})"
    return version
