"""Show a task's progress: a bar on a terminal, otherwise one line per step."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from tasks.cli.context import Session
from tasks.client.errors import ClientError, NotFinishedError
from tasks.ray_jobs import MARKER

if TYPE_CHECKING:
    from tasks.client import Status, SubmittedTask

#: After this many seconds of waiting, and then at this interval, the queue is queried.
_QUEUE_QUERY_SECONDS = 3.0
#: Interval between two reads of a job's log, in seconds: each read transfers all of it.
_LOG_READ_SECONDS = 1.0


#: A step: its phase, a text, the amount done and the total.
Step: TypeAlias = tuple[str, str, float, float | None]


def step_of(progress: dict[str, Any]) -> Step:
    """Return the step in a task's progress; without a phase, the text is all of the progress."""
    if "phase" not in progress:
        return "running", json.dumps(progress, default=str), 0, None
    done, total = progress.get("done"), progress.get("total")
    return (
        str(progress["phase"]),
        str(progress.get("message") or ""),
        done if isinstance(done, int | float) else 0,
        total if isinstance(total, int | float) and total else None,
    )


def in_words(phase: str, detail: str, done: float, total: float | None) -> str:
    """Describe a step in one line."""
    return " ".join(filter(None, [phase, f"{done}/{total}" if total else "", detail]))


class Screen:
    """The display of the steps, on standard error."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._said = ""
        self._bar: Any = None
        self._row: Any = None
        if sys.stderr.isatty() and not session.json:
            from rich.progress import (  # noqa: PLC0415
                BarColumn,
                MofNCompleteColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}", style="dim"),
                console=session.err,
                transient=True,
            )
            self._row = self._bar.add_task("waiting", total=None, detail="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, phase: str, detail: str, done: float = 0, total: float | None = None) -> None:
        """Show a step; do nothing if it has not changed."""
        if self._bar:
            self._bar.update(
                self._row, description=phase, completed=done, total=total, detail=detail
            )
            return
        text = in_words(phase, detail, done, total)
        if text != self._said:
            self._said = text
            self._session.note(text)

    def line(self, text: str) -> None:
        """Write a line above the bar."""
        if self._bar:
            self._bar.console.print(text, markup=False)
        else:
            sys.stderr.write(text + "\n")


class _Log:
    """The Ray job's log, and how much of it has been shown."""

    def __init__(self, task: "SubmittedTask", screen: Screen) -> None:
        self._task, self._screen = task, screen
        self._shown = 0
        self._next = 0.0

    def read(self, *, last: bool = False) -> None:
        """Show the new part of the log; a job that does not exist yet has none."""
        if time.monotonic() < self._next and not last:
            return
        try:
            text = self._task.log()
        except ClientError:
            text = ""
        lines = text.splitlines() if last else text.splitlines()[: text.count("\n")]
        for line in lines[self._shown :]:
            if MARKER not in line:
                self._screen.line(line)
        self._shown = max(self._shown, len(lines))
        self._next = time.monotonic() + _LOG_READ_SECONDS


def watch(session: Session, task: "SubmittedTask", *, log: bool, timeout: float | None) -> int:
    """Follow a task to its end, then write its result; return the exit status."""
    started = time.monotonic()
    with Screen(session) as screen:
        reader = _Log(task, screen) if log else None
        try:
            status = _follow(task, screen, reader, timeout)
        except KeyboardInterrupt:
            session.note(
                f"\nit goes on: celray status {task.id}, or celray cancel {task.id} to end it"
            )
            raise
        if reader:
            reader.read(last=True)
    return conclude(session, status, time.monotonic() - started)


def _follow(
    task: "SubmittedTask", screen: Screen, log: _Log | None, timeout: float | None
) -> "Status":
    started = time.monotonic()
    look_at, pause = started + _QUEUE_QUERY_SECONDS, 0.02
    told_job = None
    nowhere = 0
    while True:
        status = task.peek()
        now = time.monotonic()
        if status.finished:
            return status
        if timeout is not None and now - started >= timeout:
            message = f"task {task.id} has not ended within {timeout:g} s; it goes on"
            raise NotFinishedError(message)
        if status.state == "WAITING" and now >= look_at:
            look_at = now + _QUEUE_QUERY_SECONDS
            seen = task.status()
            # A message on its way from the queue to a worker may be in neither, once.
            nowhere = nowhere + 1 if seen.state == "UNKNOWN" else 0
            if nowhere > 1:
                task.require_known()
            screen.show(*_where(task, seen))
        elif status.state == "WAITING" and look_at == started + _QUEUE_QUERY_SECONDS:
            screen.show("waiting", "for a worker")
        elif status.state != "WAITING":
            _show(screen, status)
        if status.ray_submission_id and status.ray_submission_id != told_job:
            told_job = status.ray_submission_id
            screen.line(f"Ray job {told_job}")
        if log and status.state == "PROGRESS":
            log.read()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.3)


def _show(screen: Screen, status: "Status") -> None:
    if status.progress:
        screen.show(*step_of(status.progress))
    elif status.state == "RETRY":
        why = status.error["message"] if status.error else ""
        screen.show("waiting to try again", why)
    else:
        screen.show("running", f"on {status.worker}" if status.worker else "")


def _where(task: "SubmittedTask", status: "Status") -> tuple[str, str]:
    """Describe why nothing happens yet."""
    if status.state == "UNKNOWN":
        return "waiting", "nobody knows it just now"
    if status.state != "WAITING":
        return "running", "a worker has it"
    consumers = task.client.queues().get(status.queue or "", {}).get("workers", [])
    if not consumers:
        return "waiting", f"no worker that answers consumes queue {status.queue}"
    return "waiting", f"number {status.position} in queue {status.queue}"


def conclude(session: Session, status: "Status", seconds: float | None = None) -> int:
    """Write the result of a task that has ended; return the exit status."""
    if session.json and status.finished:
        session.say_json(status.as_json())
    try:
        result = status.outcome()
    except NotFinishedError:
        raise
    except ClientError as error:
        sys.stderr.write(f"celray: {error}\n")
        return error.exit_status
    if not session.json:
        if seconds is not None:
            session.note(f"done in {seconds:.1f} s")
        session.say_json(result)
    return 0
