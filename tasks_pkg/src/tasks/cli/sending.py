"""``celray tasks`` and ``celray submit``."""

import re
from typing import TYPE_CHECKING

import click

from tasks.cli.context import F, Session, common
from tasks.routes import ROUTES

if TYPE_CHECKING:
    from tasks.client.catalogue import Parameter, TaskInfo

#: The reference that a docstring makes to keys which are listed in full below it.
_POINTS_AT_KEYS = re.compile(r"[Ss]ee tasks\.[\w.]+\w\.")


def complete_task(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete a task's name from the list of routes only, since the shell waits."""
    names = [*(name.rpartition(".")[2] for name in ROUTES), *ROUTES]
    return [name for name in names if name.startswith(incomplete)]


def _once(_ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> str | None:
    if len(value) > 1:
        message = "is given twice; give one document, and the rest as key=value"
        raise click.BadParameter(message)
    return value[0] if value else None


def task_arguments(command: F) -> F:
    """Add a task's name, and the two ways to give its arguments."""
    command = click.option(
        "--json-args",
        metavar="JSON",
        multiple=True,
        callback=_once,
        help="Arguments as a JSON object, @FILE, or - .",
    )(command)
    command = click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("name", shell_complete=complete_task)(command)


@click.command("tasks", short_help="List the tasks, or describe one.")
@click.argument("name", required=False, shell_complete=complete_task)
@common
@click.pass_obj
def tasks_(session: Session, name: str | None) -> None:
    """List the tasks, or describe one: parameters, keys, results, errors."""
    from tasks.client import catalogue  # noqa: PLC0415

    installed = catalogue.installed()
    if name is not None:
        info = installed[catalogue.resolve(name, installed)]
        if session.json:
            session.say_json(info.as_json())
        else:
            describe(session, info)
        return
    if session.json:
        session.say_json([info.as_json() for info in installed.values()])
        return
    rows = [(i.short, i.queue, _call(i), i.doc.summary) for i in installed.values()]
    session.table(("TASK", "QUEUE", "PARAMETERS", ""), rows)
    session.note("\ncelray tasks NAME says more; celray submit NAME key=value ... sends one")


def _call(info: "TaskInfo") -> str:
    shown = (p.name if p.required else f"[{p.name}]" for p in info.parameters)
    return " ".join(shown)


def describe(session: Session, info: "TaskInfo") -> None:
    """Write the description of a task."""
    session.say(info.name + (f"   (queue {info.queue})" if info.queue else ""))
    for text in (info.doc.summary, info.doc.text):
        if text:
            session.say(f"\n{text}")
    if info.parameters:
        session.say("\nParameters")
        for parameter in info.parameters:
            _parameter(session, parameter, "  ")
    if info.doc.returns:
        session.say("\nResult")
        if not (info.result and _POINTS_AT_KEYS.fullmatch(info.doc.returns)):
            session.say(f"  {_indented(info.doc.returns)}")
        width = max((len(key.name) for key in info.result), default=0)
        for key in info.result:
            session.say(f"  {key.name.ljust(width)}  {key.type}")
    if info.doc.raises:
        session.say("\nErrors")
        for kind, why in info.doc.raises.items():
            session.say(f"  {kind}: {why}")
    words = [f"{p.name}=..." for p in info.parameters if p.required]
    session.say("\n" + " ".join(["celray submit", info.short, *words, "--watch"]))


def _parameter(session: Session, parameter: "Parameter", indent: str) -> None:
    needed = "required" if parameter.required else f"default {_default(parameter.default)}"
    session.say(f"{indent}{parameter.name}   {parameter.type}; {needed}")
    if parameter.doc and not (parameter.keys and _POINTS_AT_KEYS.fullmatch(parameter.doc)):
        session.say(f"{indent}    {parameter.doc}")
    for key in parameter.keys:
        _parameter(session, key, indent + "    ")


def _default(value: object) -> str:
    import json  # noqa: PLC0415

    return "none" if value is None else json.dumps(value, default=str)


def _indented(text: str) -> str:
    return "\n  ".join(text.splitlines())


@click.command(short_help="Check a task's arguments and send it.")
@task_arguments
@click.option("--queue", help="In place of the task's own queue.")
@click.option("--task-id", help="An id of your own, for this task alone.")
@click.option("--delay", type=float, metavar="SECONDS", help="Start no earlier than in so long.")
@click.option("--watch", "-w", is_flag=True, help="Stay, show progress, print the result.")
@click.option("--log", is_flag=True, help="Watch, with the log of the Ray job.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Watch no longer (exit status 5).")
@common
@click.pass_obj
def submit(  # noqa: PLR0913, PLR0917 - one per option
    session: Session,
    /,
    name: str,
    arguments: tuple[str, ...],
    json_args: str | None,
    queue: str | None,
    task_id: str | None,
    delay: float | None,
    timeout: float | None,
    *,
    watch: bool,
    log: bool,
) -> int:
    """Check a task's arguments and send it; the id goes to standard output.

    A value is JSON, or else text; a dot reaches into an object; @FILE reads a value from a file.

    \b
    celray submit distributed_training dataset_path=examples/winequality.csv \\
        model_config.target=quality model_config.max_depth=4 --watch
    """  # noqa: D301 - click wants the character itself
    from tasks.client.arguments import parse  # noqa: PLC0415

    if timeout is not None and not (watch or log):
        message = "--timeout says how long to watch: add --watch"
        raise click.UsageError(message)
    client = session.client
    task = client.find(name)
    values = parse(arguments, json_args, task.contract)
    sent = client.send(task, values, queue, task_id, delay)
    if not (watch or log):
        if session.json:
            session.say_json({"id": sent.id, "name": task.name, "queue": sent.queue})
        else:
            session.say(sent.id)
            session.note(f"sent; celray status {sent.id} says how far it is")
        return 0
    from tasks.cli.watching import watch as follow  # noqa: PLC0415

    session.note(f"sent {task.name} as {sent.id}")
    return follow(session, sent, log=log, timeout=timeout)


COMMANDS = (tasks_, submit)
