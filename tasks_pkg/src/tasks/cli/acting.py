"""Commands that change something: ``cancel``; and ``celery``, which runs Celery's own."""

import sys
from typing import TYPE_CHECKING

import click

from tasks.cli.context import Session, common

if TYPE_CHECKING:
    from tasks.client import Cancelled


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--wait", type=float, default=10.0, show_default=True, help="Seconds for its end.")
@common
@click.pass_obj
def cancel(session: Session, task_ids: tuple[str, ...], wait: float) -> int:
    """End tasks wherever they are, and their Ray jobs with them."""
    return session.each(
        task_ids,
        lambda task_id: session.task(task_id).cancel(wait),
        shown=_ended,
        status=lambda one: 0 if one.cancelled else 1,
    )


def _ended(one: "Cancelled") -> str:
    return f"{one.id}  {one.message}" + (f", Ray job {one.ray_job}" if one.ray_job else "")


@click.command(
    short_help="Celery's own command line, with this project's app.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def celery(session: Session, arguments: tuple[str, ...]) -> None:
    """Celery's own command line, with this project's app: celray celery inspect active."""
    from celery.bin.celery import celery as group  # noqa: PLC0415

    from tasks.client import shell  # noqa: PLC0415

    app = shell.choose(session.credentials)
    group(["-A", app, *arguments], prog_name="celray celery", auto_envvar_prefix="CELERY")


@click.command(short_help="Print what makes a shell complete.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete: eval "$(celray completion bash)"."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is not None:
        cli = context.find_root().command
        sys.stdout.write(found(cli, {}, "celray", "_CELRAY_COMPLETE").source() + "\n")


COMMANDS = (cancel, celery, completion)
