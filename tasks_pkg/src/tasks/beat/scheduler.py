"""Beat's scheduler: RedBeat, which keeps its schedule in Redis, with a heartbeat.

A run that was due while Beat or Redis was unavailable is sent once or skipped, as its entry says.
Either way it is logged and recorded under ``MISSED_KEY``.
"""

import json
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from celery.schedules import crontab
from celery.utils.log import get_logger
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedulers import ensure_conf, get_redis
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks import code_version, plugins
from tasks.beat.cron_schedule import CronSchedule
from tasks.beat.records import LAST_TICK_KEY, MISSED_KEY, REFUSED_KEY
from tasks.broker.redis.leases import disk_full
from tasks.contracts import Untyped
from tasks.heartbeat_file import touch
from tasks.settings import get_settings

logger = get_logger("celery.beat")

#: Field of an entry's Redis hash: its cron expression. The definition beside it stays readable by
#: every version of celray, so that an earlier version can be restored (make rollback).
CRON_FIELD = "cron"

#: A run counts as missed when it is later than this, in seconds, and than three ticks.
LATE_SECONDS = 30.0


#: How far ahead of the clock the last run of a cron entry may be, in seconds. When the clock is set
#: back it shows some times twice; a run within this limit is not sent a second time.
AHEAD_SECONDS = 86_400.0


def missed_run(
    late: float, every: float | None, action: Literal["run", "skip"]
) -> dict[str, object]:
    """Describe runs that were missed.

    Args:
        late: how long ago the first of them was due, in seconds.
        every: the entry's interval in seconds, None for a cron entry.
        action: how they are handled.

    Returns:
        ``due_at`` and ``noticed_at`` (ISO 8601, UTC), ``late_seconds``, ``runs`` (how many were
        missed; None for a cron entry, where nobody counts), ``action``.
    """
    now = datetime.now(UTC)
    return {
        "due_at": (now - timedelta(seconds=late)).isoformat(timespec="seconds"),
        "noticed_at": now.isoformat(timespec="seconds"),
        "late_seconds": round(late, 1),
        "runs": None if every is None else math.floor(late / every) + 1,
        "action": action,
    }


class Entry(RedBeatSchedulerEntry):  # type: ignore[misc]  # redbeat has no types
    """RedBeat's entry in Redis, with cron expressions as :mod:`tasks.schedules` reads them."""

    @classmethod
    def from_key(cls, key: str, app: Untyped = None) -> Self:
        """Read an entry.

        Raises:
            KeyError: there is no such entry, or its content cannot be read.
        """
        try:
            entry: Self = super().from_key(key, app=app)
            text = get_redis(app).hget(key, CRON_FIELD)
            if text and isinstance(entry.schedule, crontab):
                entry.schedule = CronSchedule(text, app=app)
        except RedisError:
            raise
        except Exception as error:  # whatever stands there, the other entries go on
            raise KeyError(key) from error
        return entry

    def save(self) -> Self:
        """Write the entry: its definition, its last run if it has none yet, its next run."""
        ours = self.schedule
        cron = ours.cron.text if isinstance(ours, CronSchedule) else None
        definition = {
            "name": self.name,
            "task": self.task,
            "args": self.args,
            "kwargs": self.kwargs,
            "options": self.options,
            "schedule": ours.as_crontab() if isinstance(ours, CronSchedule) else ours,
            "enabled": self.enabled,
        }
        meta = json.dumps({"last_run_at": self.last_run_at}, cls=RedBeatJSONEncoder)
        with get_redis(self.app).pipeline() as pipe:
            pipe.hset(self.key, "definition", json.dumps(definition, cls=RedBeatJSONEncoder))
            if cron is None:
                pipe.hdel(self.key, CRON_FIELD)
            else:
                pipe.hset(self.key, CRON_FIELD, cron)
            pipe.hsetnx(self.key, "meta", meta)
            pipe.zadd(ensure_conf(self.app).schedule_key, {self.key: self.score})
            pipe.execute()
        return self


def _is_full(error: ResponseError) -> bool:
    return isinstance(error, OutOfMemoryError) or disk_full(error)


class Scheduler(RedBeatScheduler):  # type: ignore[misc]  # redbeat has no types
    """RedBeat with a heartbeat; it survives a Redis that is unavailable or full for a while.

    An entry that cannot run is named in the log and under ``REFUSED_KEY``, and the others go on.
    Losing the lock still ends the process, by RedBeat's design: another Beat has it.
    """

    Entry = Entry
    _refused: dict[str, str]
    #: Whether this process has logged which code it runs.
    _announced = False
    #: The difference between the wall clock and a monotonic clock, at the last tick.
    _distance = math.inf

    def _announce(self) -> None:
        if not self._announced:
            settings = get_settings()
            with Redis.from_url(
                settings.broker_url.get_secret_value(), decode_responses=True, socket_timeout=10
            ) as broker:
                code_version.announce(broker, settings.code_version)
            self._announced = True

    def setup_schedule(self) -> None:
        """Load the schedule as soon as Redis has room for it."""
        while True:
            try:
                return self._load_schedule()
            except ResponseError as error:
                if not _is_full(error):
                    raise
                logger.warning("beat: Redis is full (%s); Beat starts when it is not", error)
                time.sleep(self.max_interval or 1)

    def _load_schedule(self) -> None:
        """Load the schedule without the entries that cannot run, and report those."""
        settings = get_settings()
        unknown = plugins.unregistered(self.app, settings)
        self._refused = {**settings.schedule.refused, **unknown}
        redis = get_redis(self.app)
        redis.delete(REFUSED_KEY)
        for name, why in self._refused.items():
            logger.error("beat: schedule entry %s does not run: %s", name, why)
            redis.hset(REFUSED_KEY, name, why)
        conf = ensure_conf(self.app)
        conf.schedule = {
            name: entry for name, entry in conf.schedule.items() if name not in unknown
        }
        super().setup_schedule()

    def _refuse(self, name: str, why: str) -> None:
        if self._refused.get(name) != why:
            self._refused[name] = why
            logger.error("beat: schedule entry %s does not run: %s", name, why)
            get_redis(self.app).hset(REFUSED_KEY, name, why)

    def maybe_due(self, entry: Untyped, **kwargs: Untyped) -> float | None:
        """Send an entry that is due; an entry with an error does not stop the others."""
        try:
            return self._maybe_due(entry, **kwargs)
        except RedisError:
            raise
        except Exception as error:
            logger.exception("beat: schedule entry %s", entry.name)
            self._refuse(entry.name, f"{type(error).__name__}: {error}")
            return float(self.max_interval)

    def _maybe_due(self, entry: Untyped, **kwargs: Untyped) -> float | None:
        due, pause = entry.is_due()
        if due and entry.last_run_at is not None:
            late = -entry.schedule.remaining_estimate(entry.last_run_at).total_seconds()
            if late > max(LATE_SECONDS, 3 * self.max_interval) and self._skips(entry, late):
                entry.reschedule()
                return float(entry.is_due()[1])
        if due:
            return super().maybe_due(entry, **kwargs)  # type: ignore[no-any-return]
        return float(pause)

    def _skips(self, entry: Untyped, late: float) -> bool:
        """Report a missed run; return whether it is left out."""
        wanted = {spec.name: spec for spec in get_settings().schedule.entries}.get(entry.name)
        action = wanted.missed if wanted else "run"
        told = missed_run(late, wanted.every_seconds if wanted else None, action)
        logger.warning(
            "beat: %s was due at %s and was missed (%.0f s ago); %s",
            entry.name,
            told["due_at"],
            late,
            "skipped, as its entry says" if action == "skip" else "sent once now",
        )
        get_redis(self.app).hset(MISSED_KEY, entry.name, json.dumps(told))
        return action == "skip"

    def _set_back(self) -> None:
        """After the clock was set back, correct entries whose last run is ahead of the clock.

        They would otherwise wait until the clock catches up. An entry with an interval runs next
        one interval from now. A cron entry keeps its last run unless that is days ahead.
        """
        before, self._distance = self._distance, time.time() - time.monotonic()
        if self._distance > before - 1:
            return
        now = datetime.now(UTC)
        for spec in get_settings().schedule.entries:
            try:
                entry = self.Entry.from_key(self.Entry.generate_key(self.app, spec.name), self.app)
            except KeyError:
                continue
            ahead = (entry.last_run_at - now).total_seconds() if entry.last_run_at else 0.0
            if ahead > (AHEAD_SECONDS if spec.every_seconds is None else LATE_SECONDS):
                logger.warning(
                    "beat: %s ran last %.0f s ahead of the clock, which was set back; its next "
                    "run is counted from now",
                    entry.name,
                    ahead,
                )
                entry.reschedule()

    def tick(self, *args: Untyped, **kwargs: Untyped) -> float:
        """Run what is due, then renew the heartbeat; return the seconds to sleep."""
        try:
            self._announce()
            self._set_back()
            pause: float = super().tick(*args, **kwargs)
            get_redis(self.app).set(LAST_TICK_KEY, f"{time.time():.3f}")
        except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
            if isinstance(error, ResponseError) and not _is_full(error):
                raise
            logger.warning("beat: Redis is away or full (%s); nothing is sent", error)
            return float(self.max_interval)
        touch(get_settings().heartbeat_file)
        return pause
