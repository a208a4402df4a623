"""The rules for an entry of the schedule, shared by preflight and Beat.

Standard library only: preflight imports this file too, on a control node without Celery. A cron
expression has the five fields of crontab(5), or is one of :data:`MACROS`. Times are
Celery. A cron expression has the five fields of crontab(5), or is one of :data:`MACROS`. Times are
UTC. As in Debian's cron, a day has to fit both day fields when one of them begins with ``*``, and
either of them when neither does.
"""

import calendar
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

KEYS = ("name", "task", "queue", "every_seconds", "cron", "missed")
MISSED = ("run", "skip")

#: Bounds of ``every_seconds``: Beat's clock has whole seconds, and ten years are no interval.
LEAST_SECONDS = 1.0
MOST_SECONDS = 315_360_000.0

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = tuple(name.lower() for name in (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
))  # fmt: skip

#: The calendar repeats after this many years: a date that is not in them never occurs.
_CYCLE_YEARS = 400
_ITEM = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]+))?")
_DIGITS = re.compile(r"[0-9]{1,4}")
_LAST_DAY = "l"
_QUARTZ = frozenset("#?w")


class CronError(ValueError):
    """An invalid cron expression; the message names the field and the value."""


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: Mapping[str, int]

    def number(self, word: str) -> int:
        if _DIGITS.fullmatch(word):
            number = int(word)
        elif word in self.names:
            number = self.names[word]
        else:
            raise CronError(f"{self.name} {word!r} is {self._expected()}")
        if not self.least <= number <= self.most:
            raise CronError(f"{self.name} {number} is not from {self.least} to {self.most}")
        return number

    def _expected(self) -> str:
        also = f" or a name such as {next(iter(self.names))}" if self.names else ""
        return f"not a number from {self.least} to {self.most}{also}"

    def values(self, text: str) -> frozenset[int]:
        """Return the numbers that a field stands for; 7 as a day of the week is 0."""
        found: set[int] = set()
        for item in text.split(","):
            found |= self._item(item)
        return frozenset(found)

    def _item(self, item: str) -> set[int]:
        parts = _ITEM.fullmatch(item)
        if not parts:
            hint = "; L, W, # and ? of Quartz are unknown here" if _QUARTZ & set(item) else ""
            raise CronError(f"{self.name} {item!r} is none of *, n, n-m, and each of them /n{hint}")
        first, last, step = parts.groups()
        if first == "*" and last:
            raise CronError(f"{self.name} {item!r}: a range begins with a number or a name")
        span = self.most - self.least
        if step and not 1 <= int(step) <= span:
            raise CronError(
                f"{self.name} {item!r}: a step of {int(step)} is not from 1 to {span}; a longer "
                "interval is every_seconds"
            )
        if first == "*":
            chosen = range(self.least, self.most + 1)
            return self._folded(chosen[:: int(step or 1)])
        begin = self.number(first)
        end = self.number(last) if last else self.most if step else begin
        return self._folded(self._run(begin, end)[:: int(step or 1)])

    def _run(self, begin: int, end: int) -> list[int]:
        """Return the numbers from ``begin`` to ``end``, wrapped round the week, day or year."""
        if begin <= end:
            return list(range(begin, end + 1))
        # A week has the days 0 to 6 here: its 7 is not counted twice.
        over = self.most - 1 if self.name == "day of week" else self.most
        return [*range(begin, over + 1), *range(self.least, end + 1)]

    def _folded(self, numbers: Iterable[int]) -> set[int]:
        return {0 if self.name == "day of week" and n == self.most else n for n in numbers}


def _named(words: Iterable[str], first: int) -> dict[str, int]:
    pairs = list(enumerate(words, first))
    return {short[:3]: n for n, short in pairs} | {word: n for n, word in pairs}


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _named(_MONTHS, 1)),
    _Field("day of week", 0, 7, _named(_WEEKDAYS, 0)),
)


@dataclass(frozen=True)
class Cron:
    """A parsed cron expression: the minutes, in UTC, at which it is due."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    last_day: bool
    both_days: bool

    def _falls_on(self, year: int, month: int, day: int) -> bool:
        last = calendar.monthrange(year, month)[1]
        of_month = day in self.days or (self.last_day and day == last)
        of_week = (calendar.weekday(year, month, day) + 1) % 7 in self.weekdays
        return (of_month and of_week) if self.both_days else (of_month or of_week)

    def _days(self, begin: datetime) -> Iterator[datetime]:
        """Yield the days on which it is due, from ``begin``'s day on, each at its first instant."""
        for year in range(begin.year, min(begin.year + _CYCLE_YEARS, 9999) + 1):
            for month in sorted(self.months):
                if (year, month) < (begin.year, begin.month):
                    continue
                for day in range(1, calendar.monthrange(year, month)[1] + 1):
                    if (year, month, day) >= (begin.year, begin.month, begin.day) and (
                        self._falls_on(year, month, day)
                    ):
                        yield datetime(year, month, day, tzinfo=UTC)

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first due minute after ``moment``, or None if there is none."""
        moment = moment.astimezone(UTC)
        begin = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for day in self._days(begin):
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    due = day.replace(hour=hour, minute=minute)
                    if due >= begin:
                        return due
        return None


def parse_cron(text: str) -> Cron:
    """Read a cron expression.

    Raises:
        CronError: it is invalid, or never due.
    """
    words = text.lower().split()
    if words and words[0].startswith("@"):
        if words[0] not in MACROS or len(words) > 1:
            known = ", ".join(MACROS)
            raise CronError(f"{text.strip()!r} is unknown; there is {known}")
        words = MACROS[words[0]].split()
    if len(words) != len(_FIELDS):
        raise CronError(
            f"it has {len(words)} fields, not five: minute, hour, day of month, month, day of week"
        )
    of_month = words[2].split(",")
    numbers = [item for item in of_month if item != _LAST_DAY]
    minutes, hours, months, weekdays = (
        _FIELDS[place].values(words[place]) for place in (0, 1, 3, 4)
    )
    cron = Cron(
        text=text,
        minutes=minutes,
        hours=hours,
        days=_FIELDS[2].values(",".join(numbers)) if numbers else frozenset(),
        months=months,
        weekdays=weekdays,
        last_day=_LAST_DAY in of_month,
        both_days=words[2].startswith("*") or words[4].startswith("*"),
    )
    if cron.next_after(datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise CronError("it never comes: no month of those has such a day")
    return cron


def nearest(word: object, known: Iterable[str]) -> str:
    """Return " (did you mean …?)" with the nearest known word, or an empty text."""
    matches = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def entry_name(entry: object) -> str:
    """Return the name of an entry for a message."""
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return str(name) if name else "?"


def problems(entry: object) -> list[tuple[str, str]]:
    """Return what is wrong with a single entry, each with what to do."""
    if not isinstance(entry, Mapping) or not {"name", "task"} <= set(entry):
        return [(f"entry {entry!r} lacks name or task", "add them")]
    found = [
        (f"unknown key {key!r}{nearest(key, KEYS)}", f"use only {', '.join(KEYS)}")
        for key in entry
        if key not in KEYS
    ]
    found += [
        (f"{key} is {entry[key]!r}, not a text", "write a text")
        for key in ("name", "task", "queue", "cron")
        if entry.get(key) is not None and not isinstance(entry[key], str)
    ]
    name = entry["name"]
    # RedBeat stores an entry under its name, and RedBeat's own keys begin with a colon.
    if name is None or (isinstance(name, str) and (name.startswith(":") or not name.strip())):
        found.append((f"name is {name!r}", "begin it with a letter or a digit"))
    if entry.get("missed", "run") not in MISSED:
        found.append((f"missed is {entry['missed']!r}", f"use one of {', '.join(MISSED)}"))
    return found + _rhythm_problems(entry)


def _rhythm_problems(entry: Mapping[str, object]) -> list[tuple[str, str]]:
    every, cron = entry.get("every_seconds"), entry.get("cron")
    if (every is None) == (cron is None):
        return [("needs every_seconds or cron, exactly one", "set one")]
    if every is not None:
        try:
            seconds = math.nan if isinstance(every, bool) else float(str(every))
        except ValueError:
            seconds = math.nan
        if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            way_out = f"write a number from {LEAST_SECONDS:g} to {MOST_SECONDS:.0f}"
            return [(f"every_seconds is {every!r}", way_out)]
    if isinstance(cron, str):
        try:
            parse_cron(cron)
        except CronError as error:
            way_out = 'write "minute hour day-of-month month day-of-week", as in "30 3 * * 1-5"'
            return [(f"cron {cron!r}: {error}", way_out)]
    return []


def twice(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    listed = list(names)
    return sorted({name for name in listed if listed.count(name) > 1})
