"""The report of `verify`: its schema, and its form as Markdown."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class Check(BaseModel):
    """One check: its name, duration (seconds), and what was observed."""

    name: str
    ok: bool
    seconds: float
    detail: str


class Container(BaseModel):
    """What the container engine reports about one container."""

    model_config = ConfigDict(extra="ignore")

    name: str
    host: str | None = None
    """The inventory's name of its host, where there are several."""
    state: str
    health: str | None = None
    image: str = ""
    digest: str | None = None
    code: str | None = None

    @property
    def place(self) -> str:
        """Return its name, and its host where there are several."""
        return f"{self.name} on {self.host}" if self.host else self.name


class Report(BaseModel):
    """A complete run; ``started`` is UTC, ISO 8601."""

    ok: bool
    started: str
    seconds: float
    host: dict[str, Any]
    versions: dict[str, str]
    containers: list[Container]
    checks: list[Check]


def _cell(text: object) -> str:
    return str(text if text is not None else "-").replace("|", "\\|").replace("\n", " ")


def _table(heads: list[str], rows: list[list[object]]) -> list[str]:
    body = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [heads, *body]) for i in range(len(heads))]

    def line(cells: list[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "| " + " | ".join(padded) + " |"

    return [line(heads), line(["-" * width for width in widths]), *map(line, body)]


def markdown(report: Report) -> str:
    """Render a report: the verdict first, then the failures, then all checks."""
    failed = [check for check in report.checks if not check.ok]
    verdict = "everything works" if report.ok else f"{len(failed)} of {len(report.checks)} fail"
    when = datetime.fromisoformat(report.started).strftime("%Y-%m-%d %H:%M:%S UTC")
    where = str(report.host.get("name", "")) or "this host"
    lines = [
        f"# celray on {where}: {verdict}",
        "",
        f"{when}, {len(report.checks)} checks in {report.seconds:.1f} s.",
        "",
    ]
    if failed:
        lines += ["## What fails", "", *(f"- **{c.name}**: {c.detail}" for c in failed), ""]
    lines += [
        "## Checks",
        "",
        *_table(
            ["", "check", "seconds", "seen"],
            [
                ["ok" if c.ok else "FAIL", c.name, f"{c.seconds:.2f}", c.detail]
                for c in report.checks
            ],
        ),
        "",
        "## Versions",
        "",
        *_table(["part", "version"], [[name, value] for name, value in report.versions.items()]),
        "",
    ]
    if report.containers:
        rows: list[list[object]] = [
            [c.place, c.state, c.health, c.image, c.code] for c in report.containers
        ]
        lines += [
            "## Containers",
            "",
            *_table(["container", "state", "health", "image", "code"], rows),
            "",
        ]
    if report.host:
        lines += ["## Host", "", *_table(["", ""], [[k, v] for k, v in report.host.items()]), ""]
    return "\n".join(lines)
