"""``celray``: send tasks, watch them, look at the service. See docs/submit.md.

Nothing heavy is imported before a command needs it: ``celray --help`` answers at once.
"""

import itertools
import sys
import traceback
from pathlib import Path

import click

from tasks import __version__
from tasks.cli import acting, dead, local, looking, sending
from tasks.cli.context import Session, common, error_document

#: Exit statuses from sysexits.h and of the shell.
_USAGE, _CONFIG, _INTERRUPTED = 2, 78, 130


class Commands(click.Group):
    """Commands in the order of a normal session; a typo gets a suggestion."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or refuse and suggest the nearest one."""
        import difflib  # noqa: PLC0415 - only on the way to an error

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "celray --help lists them"
            message = f"no command is called {args[0]!r}; {hint}"
            raise click.UsageError(message)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="celray")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@common
@click.pass_obj
def cli(session: Session, *, debug: bool) -> None:
    """Send tasks to a celray service, watch them move, get their results.

    \b
    First steps:  celray tasks
                  celray submit ping --watch
    Exit status:  0 done, 1 the task failed, 2 wrong use, 3 unknown id, 4 cancelled,
                  5 not finished, 69 service away, 78 no or wrong credentials
    """  # noqa: D301 - click wants the character itself
    session.debug = debug


for _module in (sending, looking, dead, acting, local):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status; show a traceback only with ``--debug``."""
    words = sys.argv[1:] if arguments is None else arguments
    session = Session()
    # Read here, not by click: an error in the arguments before it must appear in JSON too.
    session.json = "--json" in itertools.takewhile(lambda word: word != "--", words)
    try:
        status = cli.main(words, prog_name="celray", standalone_mode=False, obj=session)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"; see {error.ctx.command_path} --help"
        return _refuse(session, "UsageError", error.format_message().rstrip(".") + hint, _USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 - any error becomes one line for a person
        if session.debug:
            traceback.print_exc()
        return _refuse(session, type(error).__name__, *_described(error))
    return int(status or 0)


def _described(error: Exception) -> tuple[str, int]:
    """Return an error's text for people, and the exit status."""
    from tasks.client.errors import ClientError  # noqa: PLC0415
    from tasks.contracts import InvalidArgumentsError  # noqa: PLC0415
    from tasks.credentials import ConfigurationError  # noqa: PLC0415

    if isinstance(error, ClientError):
        return str(error), error.exit_status
    if isinstance(error, InvalidArgumentsError):
        return str(error), _USAGE
    if isinstance(error, ConfigurationError):
        return str(error), _CONFIG
    where = Path(__file__).name
    for frame in traceback.extract_tb(error.__traceback__):
        where = f"{Path(frame.filename).name}:{frame.lineno}"
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words} (at {where}; celray --debug shows more)", 1


def _refuse(session: Session, kind: str, message: str, status: int) -> int:
    if session.json:
        session.say_json(error_document(kind, message, status))
    sys.stderr.write(f"celray: {message}\n")
    return status
