"""Commands that only read: ``status``, ``result``, ``log``, ``trace``, ``queues``, ``workers``."""

from typing import Any

import click

from tasks.cli.context import Session, common

_ID = click.argument("task_id", metavar="ID")


def _step(progress: dict[str, Any] | None) -> str | None:
    from tasks.cli.watching import in_words, step_of  # noqa: PLC0415

    return in_words(*step_of(progress)) if progress else None


@click.command()
@_ID
@click.option("--watch", "-w", is_flag=True, help="Stay to the end, as submit --watch does.")
@click.option("--log", is_flag=True, help="Watch, with the log of the Ray job.")
@common
@click.pass_obj
def status(session: Session, task_id: str, *, watch: bool, log: bool) -> int:
    """Show the state and progress of a task."""
    task = session.task(task_id)
    now = task.require_known()
    if watch or log:
        from tasks.cli.watching import watch as follow  # noqa: PLC0415

        return follow(session, task, log=log, timeout=None)
    if session.json:
        session.say_json(now.as_json())
        return 0
    session.pairs(
        [
            ("state", now.state),
            ("task", now.name),
            ("queue", now.queue),
            ("position", now.position),
            ("worker", now.worker),
            ("progress", _step(now.progress)),
            ("Ray job", now.ray_submission_id),
            ("error", "{kind}: {message}".format(**now.error) if now.error else None),
            ("finished", now.finished_at),
        ]
    )
    return 0


@click.command(short_help="Print a task's result.")
@_ID
@click.option("--timeout", type=float, default=0.0, help="Seconds to wait for it.")
@common
@click.pass_obj
def result(session: Session, task_id: str, timeout: float) -> int:
    """Print a task's result; exit status 5 when it has none yet."""
    from tasks.cli.watching import conclude  # noqa: PLC0415

    task = session.task(task_id)
    now = task.require_known()
    if not now.finished and timeout:
        now = task.wait(timeout)
    return conclude(session, now)


@click.command()
@_ID
@common
@click.pass_obj
def log(session: Session, task_id: str) -> None:
    """Print the log of a task's Ray job."""
    text = session.task(task_id).log()
    if session.json:
        session.say_json({"id": task_id, "log": text})
    else:
        session.say(text.rstrip("\n"))


@click.command(short_help="Follow one task from end to end, in one view.")
@_ID
@common
@click.pass_obj
def trace(session: Session, task_id: str) -> None:
    """Follow one task from end to end: queue, worker, Ray job, artefacts, versions."""
    found = session.task(task_id).trace()
    if session.json:
        session.say_json(found)
        return
    queue, worker, job = found["queue"], found["worker"], found["ray"] or {}
    error, times = found["error"], found["times"]
    session.pairs(
        [
            ("task", found["name"]),
            ("id", found["id"]),
            ("state", found["state"]),
            ("progress", _step(found["progress"])),
            ("error", "{kind}: {message}".format(**error) if error else None),
            ("arguments", found["arguments"]),
            ("queue", queue["name"]),
            ("position", queue["position"]),
            ("waited", _seconds(times.get("queue_seconds"))),
            ("worker", worker["node"]),
            ("its code", f"{worker['code_now']}, old" if worker["code_state"] == "old" else None),
            ("process", worker["pid"]),
            ("started", worker["started_at"]),
            ("retries", worker["retries"]),
            ("Ray job", job.get("submission_id")),
            ("  status", job.get("status")),
            ("  started", job.get("started_at")),
            ("  ended", job.get("ended_at")),
            ("  start-up", _seconds(times.get("startup_seconds"))),
            ("  work", _seconds(times.get("engine_seconds"))),
            ("  code", job.get("code")),
            ("finished", found["finished_at"]),
            *((name.replace("_", " "), place) for name, place in found["artefacts"].items()),
            *(
                (f"versions, {side}", "  ".join(f"{n} {v}" for n, v in known.items()))
                for side, known in found["versions"].items()
                if known
            ),
            *(("not known", text) for text in found["unknown"]),
        ]
    )


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f} s"


@click.command()
@common
@click.pass_obj
def queues(session: Session) -> None:
    """Count what waits in each queue, and who consumes it."""
    found = session.client.queues()
    if session.json:
        session.say_json(found)
        return
    rows = [
        (name, info["waiting"], info["taken"], info["workers"] or "nobody answers")
        for name, info in found.items()
    ]
    session.table(("QUEUE", "WAITING", "TAKEN", "WORKERS"), rows)


@click.command()
@common
@click.pass_obj
def workers(session: Session) -> int:
    """List the workers: queues, load, code version."""
    found = session.client.workers()
    if session.json:
        session.say_json(found)
        return 0 if found else 69
    rows = [
        (
            node,
            info["queues"] or ("drained" if info.get("drained") else info["queues"]),
            f"{info['running']} of {info['processes']}",
            info["done"],
            _duration(info["uptime_seconds"]),
            _code(info),
        )
        for node, info in sorted(found.items())
    ]
    if not rows:
        from tasks.client.errors import ServiceUnavailableError  # noqa: PLC0415

        message = "no worker answers; the broker does"
        raise ServiceUnavailableError(message)
    session.table(("WORKER", "QUEUES", "BUSY", "DONE", "UP", "CODE"), rows)
    return 0


def _code(info: dict[str, Any]) -> str:
    version, state = info["versions"]["code"], info["code_state"]
    if state == "old":
        return f"{version}  OLD: {info['code_deployed']} is deployed, restart it"
    return f"{version}  newer than Beat's" if state == "newer" else str(version)


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    shown = [f"{number} {unit}" for number, unit in parts if number][:2]
    return " ".join(shown) or "0 s"


COMMANDS = (status, result, log, trace, queues, workers)
