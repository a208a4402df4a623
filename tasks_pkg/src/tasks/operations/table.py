"""Text that an operator reads: aligned columns, durations, shortened arguments."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: The most characters of a task's arguments in a table.
_MOST_CHARACTERS: Final = 60


def aligned(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table; its columns are as wide as their widest cells."""
    cells = [list(heads), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cell(value: object) -> str:
    """Return a value in one line; "-" for none."""
    if value in (None, "", []):
        return "-"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    # Bytes that are no UTF-8, and what a terminal would take for a command.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def duration(seconds: float | None) -> str | None:
    """Return a duration in its two largest units, such as 2 h 5 m."""
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(shown) or "0 s"


def shortened(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a task's arguments as they would stand in a call, cut to the width of a column."""
    shown = [*(repr(value) for value in args), *(f"{k}={v!r}" for k, v in kwargs.items())]
    text = ", ".join(shown)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
