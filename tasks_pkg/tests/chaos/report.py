"""docs/reliability.md: expected and measured side by side, stock Celery beside celray."""

from dataclasses import dataclass

from .cases import Case, Figures
from .ledger import Count

INTRODUCTION = """# What happens when something dies

Written by `make chaos`; do not edit. Each case starts real processes (a Redis with its append-only
file, prefork workers), puts load on them where the case says so (short tasks, tasks longer than the
lease, ETA tasks, chords), injects the fault, and counts by a ledger that Celery knows nothing of:
every task writes its start and its effect to a file. A task is *lost* that has neither succeeded
nor failed three leases and twenty seconds after the load has ended. The same cases ran against
Celery's own settings on the same machine.
"""


@dataclass(frozen=True)
class Outcome:
    """One case under one kind of settings; ``error`` where the harness itself gave up."""

    case: Case
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


def line(outcome: Outcome) -> str:
    """Give one outcome in one line, for the screen."""
    if outcome.count is None:
        return f"{'FAILED':7}{outcome.kind:7}{outcome.case.name:18}{outcome.error}"
    c = outcome.count
    figures = "; ".join(f"{name} {value:.1f}" for name, (value, _) in outcome.figures.items())
    return (
        f"{'ok' if outcome.fine else 'BROKEN':7}{outcome.kind:7}{outcome.case.name:18}"
        f"submitted {c.submitted}, succeeded {c.succeeded}, failed {c.failed}, lost {c.lost}, "
        f"effects twice {c.duplicated}, without a result {c.unanswered}, "
        f"started again {c.restarted}, refused {c.refused}"
        f"{'; ' if figures else ''}{figures}  ({outcome.seconds:.0f} s)"
    )


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not run"
    if outcome.count is None:
        return f"did not come through: {outcome.error}"
    c = outcome.count
    told = f"{c.succeeded} + {c.failed} of {c.submitted}"
    wrong = []
    if c.lost:
        wrong.append(f"**{c.lost} lost**")
    if c.duplicated:
        wrong.append(f"**{c.duplicated} effects twice**")
    if c.unanswered:
        wrong.append(f"{c.unanswered} had their effect and have no result")
    figures = [
        f"{name}: {'never' if value >= 999 else format(value, '.1f').removesuffix('.0')}"
        for name, (value, _) in outcome.figures.items()
    ]
    return "; ".join([told, *wrong, *figures])


def _expected(outcome: Outcome | None) -> str:
    limits = [] if outcome is None else [
        f"{name} at most {limit:g}"
        for name, (_, limit) in outcome.figures.items()
        if limit is not None
    ]  # fmt: skip
    return "; ".join([_promise(outcome), *limits])


def _promise(outcome: Outcome | None) -> str:
    if outcome is None or not outcome.case.twice:
        return "nothing lost, nothing twice"
    return f"nothing lost; at most {outcome.case.twice} effects twice ({outcome.case.why_twice})"


def document(outcomes: list[Outcome], lease: int, machine: str, rounds: int) -> str:
    """Render the document."""
    by_case: dict[str, dict[str, Outcome]] = {}
    for outcome in outcomes:
        kept = by_case.setdefault(outcome.case.name, {})
        before = kept.get(outcome.kind)
        if before is None or (before.fine and not outcome.fine):  # the worst of all rounds
            kept[outcome.kind] = outcome
    ours = [o for o in outcomes if o.kind == "celray"]
    stock = [o for o in outcomes if o.kind == "stock" and o.count]
    lost = sum(o.count.lost for o in ours if o.count)
    twice = sum(o.count.duplicated for o in ours if o.count)
    total = f"**celray: {lost} lost, {twice} effects twice, over {len(ours)} runs.**"
    if stock:
        lost = sum(o.count.lost for o in stock if o.count)
        twice = sum(o.count.duplicated for o in stock if o.count)
        total += f" Stock: {lost} lost, {twice} effects twice, over {len(stock)} runs."
    times = "once" if rounds == 1 else f"{rounds} times, the worst of them is shown"
    lines = [
        INTRODUCTION,
        f"{machine}; lease {lease} s (a deployment has 60 s); all cases were run {times}.",
        "",
        total,
        "",
        "In a cell: succeeded + failed of submitted, then what else was measured.",
        "",
        "| fault | expected of celray | celray | stock Celery |",
        "| --- | --- | --- | --- |",
    ]
    for kinds in by_case.values():
        any_one = next(iter(kinds.values()))
        case = any_one.case
        lines.append(
            f"| {case.fault} | {_expected(kinds.get('celray'))} "
            f"| {_cell(kinds.get('celray'))} | {_cell(kinds.get('stock'))} |"
        )
    return "\n".join([*lines, ""])
