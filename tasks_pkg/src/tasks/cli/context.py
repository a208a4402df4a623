"""What all commands share: the connection, ``--json``, tables."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.client import Client, SubmittedTask

F = TypeVar("F", bound=Callable[..., Any])
#: A dataclass.
T = TypeVar("T", bound=Any)


class Session:
    """One run of ``celray``."""

    def __init__(self) -> None:
        self.json = False
        self.debug = False
        self.credentials: Path | None = None

    @cached_property
    def client(self) -> "Client":
        """Return the client of the service, from the credentials."""
        from tasks.client import Client  # noqa: PLC0415 - takes most of a second

        return Client(self.credentials)

    def task(self, task_id: str) -> "SubmittedTask":
        """Return a handle for a task by its id."""
        return self.client.task(task_id)

    @cached_property
    def out(self) -> "Console":
        """Return the console for results: standard output."""
        from rich.console import Console  # noqa: PLC0415

        return Console(highlight=False, soft_wrap=True)

    @cached_property
    def err(self) -> "Console":
        """Return the console for messages to people: standard error."""
        from rich.console import Console  # noqa: PLC0415

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Write a message for people, which no program reads."""
        if not self.json:
            sys.stderr.write(text + "\n")

    def say(self, text: str) -> None:
        """Write a line of the answer."""
        sys.stdout.write(text + "\n")

    def say_json(self, document: object) -> None:
        """Write the answer as one JSON document, in colour on a terminal."""
        text = json.dumps(_finite(document), indent=2, default=str, allow_nan=False)
        if sys.stdout.isatty():
            self.out.print_json(text)
        else:
            self.say(text)

    def each(
        self,
        ids: Sequence[str],
        act: Callable[[str], T],
        *,
        shown: Callable[[T], str],
        status: Callable[[T], int],
    ) -> int:
        """Apply an action to every id, even if one fails, and report each result.

        Args:
            ids: the ids.
            act: returns the result, a dataclass, or raises an error for the user.
            shown: formats a result as one line.
            status: returns a result's exit status.

        Returns:
            The worst exit status.
        """
        from tasks.client.errors import ClientError  # noqa: PLC0415

        worst = 0
        entries: list[dict[str, Any]] = []
        for one in ids:
            try:
                done = act(one)
            except ClientError as error:
                kind, code = type(error).__name__, error.exit_status
                worst = max(worst, code)
                entries.append({"id": one, **error_document(kind, str(error), code)})
                sys.stderr.write(f"celray: {error}\n")
            else:
                worst = max(worst, status(done))
                entries.append(asdict(done))
                if not self.json:
                    self.say(shown(done))
        if self.json:
            self.say_json(entries)
        return worst

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table that fits the terminal; at full width if there is none."""
        from rich.table import Table  # noqa: PLC0415

        if not sys.stdout.isatty():
            cells = [list(heads), *([_cell(value) for value in row] for row in rows)]
            widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
            for texts in cells:
                line = "  ".join(c.ljust(w) for c, w in zip(texts, widths, strict=True))
                self.say(line.rstrip())
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in heads:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.out.print(table, soft_wrap=False)

    def pairs(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Write names with their values; skip names without a value."""
        shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.say(f"{name.ljust(width)}  {_cell(value)}")


def error_document(kind: str, message: str, status: int) -> dict[str, Any]:
    """Return an error in JSON types."""
    return {"error": {"kind": kind, "message": message, "exit_status": status}}


def _finite(value: object) -> object:
    """Replace numbers that JSON cannot represent by text, as tasks do in their results."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    return str(value)


@contextmanager
def answer_alone() -> Iterator[None]:
    """Reserve standard output for the answer; other output goes to standard error.

    This redirects the file descriptor itself, to include other programs and C libraries.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _set_credentials(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.find_root().ensure_object(Session).credentials = value


def common(command: F) -> F:
    """Add the options that every command takes, before or after its name."""
    command = click.option(
        "--credentials",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_set_credentials,
        help="File with the lines of `make credentials`.",
    )(command)
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,  # Session.json, which `main` sets before anything is parsed
        help="One JSON document on standard output.",
    )(command)
