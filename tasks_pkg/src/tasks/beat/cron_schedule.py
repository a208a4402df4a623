"""A Celery schedule whose times are those of :mod:`tasks.schedules`."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Self

from celery.schedules import BaseSchedule, crontab, schedstate

from tasks.contracts import Untyped
from tasks.schedules import parse_cron

#: The time remaining of a schedule that never runs again.
_NEVER = timedelta(days=36_500)


class CronSchedule(BaseSchedule):  # type: ignore[misc]  # celery has no types
    """When a cron expression is due."""

    def __init__(self, text: str, **kwargs: Untyped) -> None:
        """Read ``text``.

        Raises:
            tasks.schedules.CronError: the expression is invalid, or never matches.
        """
        super().__init__(**kwargs)
        self.cron = parse_cron(text)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time from now to the first run after ``last_run_at``; negative: overdue."""
        due = self.cron.next_after(self.maybe_make_aware(last_run_at))
        return _NEVER if due is None else due - self.maybe_make_aware(self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether a run is due, and the seconds to the next one."""
        remaining = self.remaining_estimate(last_run_at).total_seconds()
        if remaining > 0:
            return schedstate(is_due=False, next=remaining)
        return schedstate(
            is_due=True, next=max(self.remaining_estimate(self.now()).total_seconds(), 0.0)
        )

    def as_crontab(self) -> crontab:
        """Return the closest ``crontab`` of Celery, for celray versions before this one."""
        cron = self.cron
        days = cron.days | ({28, 29, 30, 31} if cron.last_day else set())
        return crontab(
            minute=_listed(cron.minutes),
            hour=_listed(cron.hours),
            day_of_week=_listed(cron.weekdays),
            day_of_month=_listed(days),
            month_of_year=_listed(cron.months),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CronSchedule) and other.cron == self.cron

    def __hash__(self) -> int:
        return hash(self.cron)

    def __repr__(self) -> str:
        return f"<cron: {self.cron.text}>"

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.cron.text,)


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))
