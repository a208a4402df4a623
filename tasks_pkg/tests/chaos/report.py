"""docs/reliability.md: expected and measured side by side, in processes and on a deployed stack.

What was measured is kept in ``measured.json``, case by case, so that some cases can be run again;
the document is made from that file and from nothing else.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case, Figures
from .ledger import Count

MEASURED = Path(__file__).with_name("measured.json")

INTRODUCTION = """# What happens when something dies

Written by `make chaos`; do not edit. Each case injects one real fault, puts load on the stack where
the case says so, and counts by a ledger that Celery knows nothing of: every task writes its start
and its effect to a file. A task is *lost* that has neither succeeded nor failed three leases and
twenty seconds after the load has ended. In a cell: succeeded + failed of submitted, then what else
was measured.

1. [A deployed stack](#a-deployed-stack): containers, the engine, the host, Ray, updates, the disk,
   Beat.
2. [Processes](#processes): the same broker and workers without containers, beside Celery's own
   settings on the same machine.
"""

DEPLOYED = """## A deployed stack

`make chaos CHAOS=--deployed`. celray is deployed by `make deploy`, over SSH, to a test host: a
container with sshd and an engine of its own (Debian 13), as in `molecule/`. Two workers with three
processes each serve one queue. The load comes from outside, without a pause while the fault lasts:
five submissions a second, among them tasks longer than the lease, ETA tasks, chords and Ray jobs,
all of them tasks of a package deployed beside celray's (`celery_packages`). Stock Celery is not
deployed: it is in the second table.
"""

PROCESSES = """## Processes

`make chaos`. Each case starts a Redis with its append-only file and prefork workers as processes; a
worker and its children are a process group, which SIGKILL ends at once as the end of its container
would. The load: ten submissions a second, short tasks, tasks longer than the lease, ETA tasks,
chords. Stock Celery gives back after an hour (its visibility timeout) what a lost worker had
fetched and not begun: that part of what is lost here comes back then; what had begun does not.
"""

NOT_INJECTED = """Not injected anywhere: a stepped clock (a container has no clock of its own, and
the machine's is everybody's; `tasks_pkg/tests/beat/test_beat.py` shows Beat last runs that are
ahead of the clock, which for Beat is the same as one that went back), and a loss of power that also
takes what the kernel had not yet written to the disk.
"""


@dataclass(frozen=True)
class Outcome:
    """One case under one kind of settings; ``error`` where the harness itself gave up."""

    case: Case[Any]
    kind: str
    count: Count | None
    figures: Figures
    seconds: float
    error: str = ""

    @property
    def fine(self) -> bool:
        """The invariant and every limit hold."""
        within = all(limit is None or value <= limit for value, limit in self.figures.values())
        if self.count is None or self.count.lost or self.count.unanswered:
            return False
        return within and self.count.duplicated <= self.case.twice


@dataclass
class Measured:
    """What one case gave: the worst of its runs, and the sums over all, by kind of settings."""

    fault: str
    expected: str = ""
    about: dict[str, str] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    fine: dict[str, bool] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    twice: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Take one more run into account."""
        kind = outcome.kind
        if kind not in self.cells or (self.fine[kind] and not outcome.fine):
            self.cells[kind], self.fine[kind] = _cell(outcome), outcome.fine
            if kind != "stock":
                self.expected = _expected(outcome)
        if outcome.count:
            for sums, number in (
                (self.runs, 1),
                (self.lost, outcome.count.lost),
                (self.twice, outcome.count.duplicated),
            ):
                sums[kind] = sums.get(kind, 0) + number


def line(outcome: Outcome) -> str:
    """Return one outcome in one line, for the screen."""
    if outcome.count is None:
        return f"{'FAILED':7}{outcome.kind:9}{outcome.case.name:18}{outcome.error}"
    c = outcome.count
    figures = "; ".join(f"{name} {value:.1f}" for name, (value, _) in outcome.figures.items())
    return (
        f"{'ok' if outcome.fine else 'BROKEN':7}{outcome.kind:9}{outcome.case.name:18} "
        f"submitted {c.submitted}, succeeded {c.succeeded}, failed {c.failed}, lost {c.lost}, "
        f"effects twice {c.duplicated}, without a result {c.unanswered}, "
        f"started again {c.restarted}, refused {c.refused}"
        f"{'; ' if figures else ''}{figures}  ({outcome.seconds:.0f} s)"
    )


def _cell(outcome: Outcome) -> str:
    if outcome.count is None:
        return f"did not come through: {outcome.error.replace('|', '/')}"
    c = outcome.count
    told = f"{c.succeeded} + {c.failed} of {c.submitted}"
    wrong = []
    if c.lost:
        wrong.append(f"**{c.lost} lost**")
    if c.duplicated:
        wrong.append(f"**{c.duplicated} effect{'s' * (c.duplicated > 1)} twice**")
    if c.unanswered:
        wrong.append(f"{c.unanswered} had their effect and have no result")
    if c.refused:
        wrong.append(f"{c.refused} more refused with an error")
    figures = [
        f"{name}: {'never' if value >= 999 else format(value, '.1f').removesuffix('.0')}"
        for name, (value, _) in outcome.figures.items()
    ]
    return "; ".join([told, *wrong, *figures])


def _badness(outcome: Outcome) -> tuple[bool, int, float]:
    """Order the runs of a case: broken ones, then by effects twice, then by the largest figure."""
    figures = (value / (limit or 1.0) for value, limit in outcome.figures.values())
    twice = outcome.count.duplicated if outcome.count else 0
    return not outcome.fine, twice, max(figures, default=0.0)


def _expected(outcome: Outcome) -> str:
    limits = [
        f"{name} at most {limit:g}"
        for name, (_, limit) in outcome.figures.items()
        if limit is not None
    ]
    case = outcome.case
    promise = "nothing lost, nothing twice"
    if case.twice:
        promise = f"nothing lost; at most {case.twice} effects twice ({case.why_twice})"
    return "; ".join([promise, *limits])


def record(
    form: str, about: str, cases: list[Case[Any]], outcomes: list[Outcome], file: Path = MEASURED
) -> None:
    """Keep what was measured: what ran replaces what was kept of it, by case and kind of settings.

    Args:
        form: ``deployed`` or ``processes``.
        about: the circumstances, in a sentence.
        cases: all cases of the form, in order; what is no case any more is forgotten.
        outcomes: of the cases that ran.
        file: where it is kept.
    """
    kept = json.loads(file.read_text()) if file.exists() else {}
    before = kept.get(form, {}).get("cases", {})
    ran: dict[str, Measured] = {}
    for outcome in sorted(outcomes, key=_badness, reverse=True):  # the first is shown
        measured = ran.setdefault(outcome.case.name, Measured(outcome.case.fault))
        measured.add(outcome)
        measured.about[outcome.kind] = about
    rows = before | {name: _merged(before.get(name, {}), asdict(ran[name])) for name in ran}
    kept[form] = {"cases": {c.name: rows[c.name] for c in cases if c.name in rows}}
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {**old.get(name, {}), **value} if isinstance(value, dict) else value or old.get(name)
        for name, value in new.items()
    }


def _total(name: str, kind: str, rows: list[dict[str, Any]]) -> str:
    runs, lost, twice = (
        sum(row[what].get(kind, 0) for row in rows) for what in ("runs", "lost", "twice")
    )
    return f"{name}: {lost} lost, {twice} effects twice, over {runs} runs." if runs else ""


def _table(rows: list[dict[str, Any]], kinds: dict[str, str]) -> list[str]:
    lines = [
        f"| fault | expected | {' | '.join(kinds.values())} |",
        f"| --- | --- |{' --- |' * len(kinds)}",
    ]
    for row in rows:
        cells = [row["cells"].get(kind, "not run") for kind in kinds]
        lines.append(f"| {row['fault']} | {row['expected']} | {' | '.join(cells)} |")
    return lines


def document(file: Path = MEASURED) -> str:
    """Render the document from what is kept."""
    kept = json.loads(file.read_text())
    lines = [INTRODUCTION]
    forms = (
        ("deployed", DEPLOYED, {"celray": "measured"}),
        ("processes", PROCESSES, {"celray": "celray", "stock": "stock Celery"}),
    )
    for form, text, kinds in forms:
        rows = list(kept.get(form, {}).get("cases", {}).values())
        if not rows:
            continue
        totals = [_total("celray", "celray", rows), _total("Stock", "stock", rows)]
        lines += [text]
        for kind, name in (("celray", "celray"), ("stock", "Stock Celery")):
            said = dict.fromkeys(row["about"][kind] for row in rows if kind in row["about"])
            lines += [f"{name}: {about}" for about in said]
        lines += [""]
        lines += [f"**{totals[0]}** {totals[1]}".strip(), "", *_table(rows, kinds), ""]
    return "\n".join([*lines, NOT_INJECTED])
