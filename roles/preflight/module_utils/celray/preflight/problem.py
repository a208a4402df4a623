"""A reason not to deploy, and the report of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tasks import schedules


@dataclass(frozen=True)
class Problem:
    """One reason not to deploy: what is wrong, the origin of the value, what to do."""

    what: str
    source: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}\n     from: {self.source}\n     way out: {self.fix}"


def nearest(word: Any, known: Iterable[str]) -> str:
    return str(schedules.nearest(word, known))


def report(problems: list[Problem]) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = [f"{number:>3}. {problem}" for number, problem in enumerate(problems, 1)]
    return f"preflight found {count}; nothing has been changed.\n" + "\n".join(lines)
