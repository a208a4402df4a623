"""Beat's scheduler: RedBeat, which keeps its schedule in Redis, with a sign of life."""

import time

from celery.utils.log import get_logger
from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks.contracts import Untyped
from tasks.heartbeat import touch
from tasks.settings import get_settings

logger = get_logger("celery.beat")

#: Redis key with the time of the last tick (seconds since the epoch), read by `tasks.ops`.
LAST_TICK_KEY = "celray:beat:last_tick"


class Scheduler(RedBeatScheduler):  # type: ignore[misc]  # redbeat has no types
    """RedBeat that says when it last ticked, and outlives a short absence of Redis.

    Losing the lock still ends the process, by RedBeat's design: another Beat has it.
    """

    def tick(self, *args: Untyped, **kwargs: Untyped) -> float:
        """Run what is due, then renew the sign of life; returns the seconds to sleep."""
        try:
            pause: float = super().tick(*args, **kwargs)
            get_redis(self.app).set(LAST_TICK_KEY, f"{time.time():.3f}")
        except (RedisConnectionError, RedisTimeoutError) as error:
            logger.warning("beat: Redis does not answer (%s); nothing is sent", error)
            return float(self.max_interval)
        touch(get_settings().heartbeat_file)
        return pause
