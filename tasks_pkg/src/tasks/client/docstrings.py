"""The parts of a Google-style docstring."""

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):\s*$")
_ENTRY = re.compile(r"^(\*{0,2}[\w.]+)(?:\s*\([^)]*\))?:\s*(.*)$")


@dataclass
class Docstring:
    """A parsed docstring: summary, description, and text per parameter, result and error."""

    summary: str = ""
    text: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict)


def _plain(text: str) -> str:
    """Remove the markup of reStructuredText, which disturbs in a terminal."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", text)
    return re.sub(r"``([^`]*)``", r"\1", text).strip()


def _entries(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc("\n".join(lines)).splitlines():
        entry = _ENTRY.match(line)
        if entry:
            name, found[entry[1]] = entry[1], entry[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: _plain(text) for name, text in found.items()}


def parse(text: str | None) -> Docstring:
    """Parse a docstring; missing sections are empty."""
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in inspect.cleandoc(text or "").splitlines():
        heading = _SECTION.match(line)
        if heading:
            current = heading[1]
        sections.setdefault(current, []).append("" if heading else line)
    summary, _, rest = "\n".join(sections[""]).partition("\n\n")
    return Docstring(
        summary=_plain(" ".join(summary.split())),
        text=_plain(rest),
        parameters=_entries(sections.get("Args", [])),
        returns=_plain(inspect.cleandoc("\n".join(sections.get("Returns", [])))),
        raises=_entries(sections.get("Raises", [])),
    )
