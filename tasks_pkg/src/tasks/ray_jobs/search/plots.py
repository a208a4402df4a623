"""Plot a search's trials: as a PNG, and as a page that needs only a browser."""

import html
import io
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..files import write_bytes
from .trials import Problem, Trial

_COLORS = {"complete": "#1f77b4", "stopped early": "#bbbbbb"}
_BEST = "#d62728"
#: The most parameters with a panel of their own.
_PANELS = 8
_COLUMNS = 3

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif }}
body {{ margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #ddd }}
tr.best {{ font-weight: bold; color: {best} }}
</style></head><body><h1>{title}</h1>
<p>{direction} is better. Every point is a trial; its parameters show under the pointer.</p>
{svg}
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def write(  # noqa: PLR0913, PLR0917 - a table, its order, and where it goes
    ended: list[Trial], order: list[Trial], problem: Problem, title: str, png: Path, page: Path
) -> None:
    """Plot the score by trial and by parameter.

    Args:
        ended: the trials in the order of their start.
        order: the same, best first.
        problem: provides metric and direction.
        title: the picture's title.
        png: the picture's file.
        page: the page's file: the same picture with values at the points, and a table.
    """
    figure = _figure(ended, order[0], problem, title)
    picture, drawing = io.BytesIO(), io.StringIO()
    figure.savefig(picture, format="png", dpi=120)
    figure.savefig(drawing, format="svg")
    write_bytes(png, picture.getvalue())
    write_bytes(page, _page(drawing.getvalue(), order, problem, title).encode())


def _figure(ended: list[Trial], best: Trial, problem: Problem, title: str) -> Figure:
    scored = [trial for trial in ended if trial.score is not None]
    names = [
        name
        for name in sorted({name for trial in ended for name in trial.params})
        if len({str(trial.params.get(name)) for trial in ended}) > 1
    ][:_PANELS]
    rows = -(-(len(names) + 1) // _COLUMNS)
    columns = min(_COLUMNS, len(names) + 1)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    first = panels[0]
    _points(first, [(trial.number, trial) for trial in scored], best)
    first.step(*_best_so_far(scored, problem), where="post", color=_BEST, linewidth=1)
    first.set(xlabel="trial", ylabel=problem.metric)
    for panel, name in zip(panels[1:], names, strict=False):
        _points(panel, [(_place(trial, name, scored), trial) for trial in scored], best)
        panel.set(xlabel=name, ylabel=problem.metric)
        words = _words(name, scored)
        if words:
            panel.set_xticks(range(len(words)), words)
    for panel in panels[len(names) + 1 :]:
        panel.set_visible(False)
    return figure


def _best_so_far(scored: list[Trial], problem: Problem) -> tuple[list[int], list[float]]:
    better = max if problem.direction == "max" else min
    numbers: list[int] = []
    values: list[float] = []
    for trial in scored:
        if trial.status == "complete" and trial.score is not None:
            numbers.append(trial.number)
            values.append(better([*values[-1:], trial.score]))
    return numbers, values


def _words(name: str, scored: list[Trial]) -> list[str]:
    """Return a parameter's values as text unless they are all numbers."""
    values = [trial.params.get(name) for trial in scored]
    if all(isinstance(value, int | float) for value in values):
        return []
    return sorted({str(value) for value in values})


def _place(trial: Trial, name: str, scored: list[Trial]) -> float:
    words = _words(name, scored)
    value: Any = trial.params.get(name)
    return float(words.index(str(value))) if words else float(value)


def _points(panel: Any, places: list[tuple[float, Trial]], best: Trial) -> None:  # noqa: ANN401
    for x, trial in places:
        color = _BEST if trial is best else _COLORS.get(trial.status, "#bbbbbb")
        (point,) = panel.plot([x], [trial.score], "o", color=color, markersize=5)
        point.set_gid(f"trial-{trial.number}")
    panel.grid(visible=True, alpha=0.3)


def _page(svg: str, order: list[Trial], problem: Problem, title: str) -> str:
    by_number = {trial.number: trial for trial in order}

    def titled(match: re.Match[str]) -> str:
        return f"{match[0]}<title>{html.escape(_words_of(by_number[int(match[1])]))}</title>"

    svg = re.sub(r'<g id="trial-(\d+)">', titled, svg[svg.index("<svg") :])
    names = sorted({name for trial in order for name in trial.params})
    head = ["trial", *names, problem.metric, "status", "rounds", "seconds"]
    lines = []
    for place, trial in enumerate(order):
        cells = [
            trial.number,
            *(_number(trial.params.get(name)) for name in names),
            _number(trial.score),
            trial.status,
            trial.rounds,
            f"{trial.seconds:.1f}",
        ]
        row = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        lines.append(f"<tr{' class=best' if place == 0 else ''}>{row}</tr>")
    return _PAGE.format(
        title=html.escape(title),
        best=_BEST,
        direction="More" if problem.direction == "max" else "Less",
        svg=svg,
        head="".join(f"<th>{html.escape(name)}</th>" for name in head),
        rows="\n".join(lines),
    )


def _words_of(trial: Trial) -> str:
    told = ", ".join(f"{name} {_number(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}: {_number(trial.score)} ({trial.status}); {told}"


def _number(value: Any) -> str:  # noqa: ANN401 - JSON
    return f"{value:.6g}" if isinstance(value, float) else str(value)
