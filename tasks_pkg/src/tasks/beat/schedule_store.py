"""RedBeat's storage for the schedule: its URL is in the settings, never in ``app.conf``.

Any client can read ``app.conf`` from a worker (``inspect conf``, ``inspect report``, Flower's
worker pages). Celery hides the passwords of URLs that it knows, not of RedBeat's.
"""

from celery import Celery
from redbeat.schedulers import RedBeatConfig

from tasks.contracts import Untyped
from tasks.settings import Settings

_URL = "redbeat_redis_url"


class ScheduleStore(RedBeatConfig):  # type: ignore[misc]  # redbeat has no types
    """RedBeat's configuration, with the URL from the settings."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._url = settings.redbeat_url
        super().__init__(app)

    def either_or(self, name: str, default: Untyped = None) -> Untyped:
        """Return a value of RedBeat's configuration."""
        if name == _URL:
            return self._url.get_secret_value()
        return super().either_or(name, default)

    def is_key_in_conf(self, name: str) -> bool:
        """Return whether a value was set, for RedBeat's warnings about its defaults."""
        return name == _URL or bool(super().is_key_in_conf(name))


def keep_schedule(app: Celery, settings: Settings) -> None:
    """Make RedBeat's ``ensure_conf`` use the schedule's URL from the settings."""
    app.redbeat_conf = ScheduleStore(app, settings)
