"""Celery's settings for Beat and RedBeat, each with its reason beside it."""

from typing import Any

from celery.schedules import schedule

from tasks.beat.cron_schedule import CronSchedule
from tasks.settings import ScheduleSpec, Settings


def beat_configuration(settings: Settings) -> dict[str, Any]:
    """Return what Celery's configuration says of the schedule that ``settings`` holds."""
    return {
        "beat_schedule": {spec.name: _schedule_entry(spec) for spec in settings.schedule.entries},
        "beat_max_loop_interval": settings.beat_max_interval_seconds,
        # Its URL holds a password, and stays in the settings (tasks.beat.schedule_store).
        "redbeat_redis_options": {
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        "redbeat_key_prefix": "redbeat:",
        # Five ticks, so that one slow tick costs no restart.
        "redbeat_lock_timeout": 5 * settings.beat_max_interval_seconds,
    }


def _schedule_entry(spec: ScheduleSpec) -> dict[str, Any]:
    rhythm: Any = schedule(spec.every_seconds) if spec.cron is None else CronSchedule(spec.cron)
    return {
        "task": spec.task,
        "schedule": rhythm,
        "options": {"queue": spec.queue} if spec.queue else {},
    }
