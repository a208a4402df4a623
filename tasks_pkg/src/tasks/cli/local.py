"""``celray run``: run a task in this process, without broker or worker."""

import time
from pathlib import Path
from typing import Any

import click

from tasks.cli.context import Session, answer_alone, common
from tasks.cli.sending import task_arguments

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Run a task here, without broker or worker.")
@task_arguments
@click.option(
    "--datasets", type=_FOLDER, default=".", show_default=True, help="What /datasets is here."
)
@click.option(
    "--models", type=_FOLDER, default="models", show_default=True, help="What /models is here."
)
@click.option("--no-ray", is_flag=True, help="Run jobs in plain Python; the results are the same.")
@common
@click.pass_obj
def run(  # noqa: PLR0913, PLR0917 - one per option
    session: Session,
    name: str,
    arguments: tuple[str, ...],
    json_args: str | None,
    datasets: Path,
    models: Path,
    *,
    no_ray: bool,
) -> None:
    """Run a task in this process: no broker, no worker, no service.

    A Ray job runs on a Ray of its own on this machine, or with --no-ray without Ray. Needs what
    the jobs need: pip install 'tasks[local]'.

    \b
    celray run distributed_training dataset_path=wine.csv model_config.target=quality --no-ray
    """  # noqa: D301 - click wants the character itself
    from tasks.cli.watching import Screen, step_of  # noqa: PLC0415
    from tasks.client import catalogue  # noqa: PLC0415
    from tasks.client.arguments import parse  # noqa: PLC0415
    from tasks.local import Local  # noqa: PLC0415

    installed = catalogue.installed()
    task = installed[catalogue.resolve(name, installed)]
    values = parse(arguments, json_args, task.contract)
    if task.contract is not None:
        task.contract.check(values)
    started = time.monotonic()
    with Screen(session) as screen, answer_alone():
        screen.show("running", task.short)

        def show(step: dict[str, Any]) -> None:
            screen.show(*step_of(step))

        result = Local(datasets, models, ray=not no_ray).call(task.name, values, show)
    session.note(f"done in {time.monotonic() - started:.1f} s")
    session.say_json(result)


COMMANDS = (run,)
