"""What every worker has at hand: running, reserved and scheduled tasks: ``make inspect``."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from celery import Celery
from pydantic import BaseModel

from tasks.operations.table import aligned, duration, shortened
from tasks.settings import Settings
from tasks.worker.info import WorkerInfo, ask_workers

State = Literal["running", "reserved", "scheduled"]


class Held(BaseModel):
    """A task that a worker has: it runs, waits for a process, or waits for its ETA.

    ``seconds`` is since it began, by this machine's clock; ``eta`` is ISO 8601.
    """

    state: State
    worker: str
    task: str
    id: str
    arguments: str
    seconds: float | None = None
    eta: str | None = None


class Inspection(BaseModel):
    """The fleet's tasks at one moment; ``registered`` counts each worker's known tasks."""

    tasks: list[Held]
    registered: dict[str, int]
    drained: list[str]
    missing: list[str]


def inspect(app: Celery, settings: Settings) -> Inspection:
    """Ask every worker for what it has.

    Raises:
        kombu.exceptions.OperationalError: the broker does not answer.
    """
    timeout = settings.health_timeout_seconds
    workers: dict[str, WorkerInfo] = ask_workers(app, timeout)
    nodes = list(workers)
    tasks: list[Held] = []
    if nodes:  # without a destination, every worker would be asked again
        with ThreadPoolExecutor(max_workers=3) as pool:
            asked = [pool.submit(_ask, app, one, nodes, timeout) for one in _QUESTIONS]
        tasks = [held for answer in asked for held in answer.result()]
    return Inspection(
        tasks=tasks,
        registered={node: len(info["tasks"]) for node, info in workers.items()},
        drained=[node for node, info in workers.items() if info.get("drained")],
        missing=settings.missing_of(workers),
    )


_QUESTIONS: tuple[tuple[State, str], ...] = (
    ("running", "active"),
    ("reserved", "reserved"),
    ("scheduled", "scheduled"),
)


def _ask(app: Celery, one: tuple[State, str], nodes: list[str], timeout: float) -> list[Held]:
    state, question = one
    # A connection for each thread: one of the pool's may have another thread's answers.
    with app.connection_for_write() as connection:
        ask = app.control.inspect(
            destination=nodes, timeout=timeout, limit=len(nodes), connection=connection
        )
        answers: dict[str, list[dict[str, Any]]] = getattr(ask, question)() or {}
    return [
        _held(state, node, entry) for node in sorted(answers) for entry in _sorted(answers[node])
    ]


def _sorted(entries: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the entries that can be read, those that began or are due first."""
    known = [entry for entry in entries if isinstance(entry, dict)]
    yield from sorted(
        known, key=lambda entry: (str(entry.get("eta") or ""), entry.get("time_start") or 0.0)
    )


def _held(state: State, node: str, entry: dict[str, Any]) -> Held:
    request = entry.get("request", entry)
    began = request.get("time_start") if state == "running" else None
    return Held(
        state=state,
        worker=node,
        task=str(request.get("name", "?")),
        id=str(request.get("id", "?")),
        arguments=shortened(request.get("args") or (), request.get("kwargs") or {}),
        seconds=round(max(0.0, time.time() - began), 1) if began else None,
        eta=entry.get("eta") if state == "scheduled" else None,
    )


def table(found: Inspection) -> list[str]:
    """Return the tasks and the workers as lines for an operator."""
    rows = [
        (
            one.state,
            one.worker,
            one.task,
            one.id,
            f"for {duration(one.seconds)}" if one.seconds is not None else one.eta,
            one.arguments,
        )
        for one in found.tasks
    ]
    lines = (
        aligned(("STATE", "WORKER", "TASK", "ID", "SINCE, OR ETA", "ARGUMENTS"), rows)
        if rows
        else ["no worker has any task"]
    )
    count = Counter((one.worker, one.state) for one in found.tasks)
    workers = [
        (
            node,
            *(count[node, state] for state, _ in _QUESTIONS),
            registered,
            "drained" if node in found.drained else "consuming",
        )
        for node, registered in found.registered.items()
    ]
    heads = ("WORKER", "RUNNING", "RESERVED", "SCHEDULED", "REGISTERED", "STATE")
    lines += ["", *(aligned(heads, workers) if workers else ["no worker answers"])]
    lines += [f"{name} does not answer" for name in found.missing]
    return lines
