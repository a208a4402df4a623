"""The ledger: what was submitted, what began, what had its effect, and what a caller was told."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from celery import Celery
from celery.result import AsyncResult


@dataclass(frozen=True)
class Run:
    """One start of one task; ``ended`` is the time of its effect, if it had one."""

    key: str
    pid: int
    started: float
    ended: float | None


@dataclass(frozen=True)
class Count:
    """The invariant in figures."""

    submitted: int
    succeeded: int
    failed: int
    lost: int
    duplicated: int
    unanswered: int
    refused: int
    restarted: int


@dataclass
class Ledger:
    """Kept by the harness; the tasks append to ``file``, those of this case with ``prefix``."""

    file: Path
    client: Celery
    prefix: str = ""
    submitted: dict[str, AsyncResult] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    refused_at: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, key: str, result: AsyncResult) -> None:
        """Remember a submission that was accepted."""
        with self._lock:
            self.submitted[key] = result

    def refuse(self, error: BaseException) -> None:
        """Remember a submission whose submitter was told that it failed."""
        with self._lock:
            self.refused[type(error).__name__] += 1
            self.refused_at.append(time.time())

    def runs(self) -> list[Run]:
        """Return every start that the tasks wrote down."""
        starts: dict[tuple[str, int], list[float]] = {}
        runs: list[Run] = []
        if not self.file.exists():
            return []
        for line in self.file.read_text().splitlines():
            words = line.split()
            # A copy that follows the file may end within a line.
            if len(words) != 4 or words[0] == "tick" or not words[1].startswith(self.prefix):
                continue
            what, key, pid, when = words
            place = key.removeprefix(self.prefix), int(pid)
            if what == "start":
                starts.setdefault(place, []).append(float(when))
            elif starts.get(place):
                runs.append(Run(*place, starts[place].pop(0), float(when)))
        runs += [Run(k, pid, at, None) for (k, pid), ats in starts.items() for at in ats]
        return sorted(runs, key=lambda run: run.started)

    def ticks(self) -> list[float]:
        """Return when Beat sent each tick that had its effect."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return sorted(float(line.split()[3]) for line in lines if line.startswith("tick "))

    def effects(self) -> Counter[str]:
        """Count effects by key."""
        return Counter(run.key for run in self.runs() if run.ended is not None)

    def states(self) -> dict[str, str]:
        """Ask what a caller is told of each submission."""
        return {key: str(result.state) for key, result in list(self.submitted.items())}

    def close(self) -> None:
        """Let go of the results, which else say goodbye to a Redis that has ended."""
        for result in self.submitted.values():
            group = getattr(result.parent, "results", None) or ()
            for part in (result, *group):
                part.backend = None

    def settle(self, seconds: float) -> None:
        """Wait until every submission has ended, at most ``seconds``."""
        deadline = time.monotonic() + seconds
        waiting = set(self.submitted)
        while waiting and time.monotonic() < deadline:
            waiting = {k for k in waiting if not self.submitted[k].ready()}
            time.sleep(0.2)

    def count(self) -> Count:
        """Hold the invariant against what happened."""
        told = self.states()
        states = Counter(told.values())
        ended = states["SUCCESS"] + states["FAILURE"] + states["REVOKED"]
        effects = self.effects()
        starts = Counter(run.key for run in self.runs())
        unanswered = sum(1 for key, state in told.items() if state == "PENDING" and effects[key])
        return Count(
            submitted=len(self.submitted),
            succeeded=states["SUCCESS"],
            failed=states["FAILURE"] + states["REVOKED"],
            lost=len(self.submitted) - ended - unanswered,
            unanswered=unanswered,
            duplicated=sum(number - 1 for number in effects.values() if number > 1),
            refused=sum(self.refused.values()),
            restarted=sum(1 for number in starts.values() if number > 1),
        )
