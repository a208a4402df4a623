"""``celray dead``: tasks that were given up, and messages that could not be decoded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tasks.cli.context import Session, common

if TYPE_CHECKING:
    from redis import Redis

    from tasks.broker.redis.dead_letters import DeadLetter

_IDS = click.argument("letter_ids", metavar="ID...", nargs=-1, required=True)


@click.group(short_help="Tasks that were given up, messages not understood: list, show, ...")
def dead() -> None:
    """Look after what will not run.

    A task is given up when whoever ran it died each time. A message that cannot be understood is
    put aside; its letter, with its first bytes, is kept for a week.
    """


@contextmanager
def _broker(session: Session) -> "Iterator[Redis]":
    """Connect; report an unknown letter or a silent Redis in one line."""
    from tasks.broker.redis import dead_letters  # noqa: PLC0415
    from tasks.client.connection import answering  # noqa: PLC0415
    from tasks.client.errors import UnknownIdError  # noqa: PLC0415

    settings = session.client.settings
    with answering(settings), dead_letters.connect(settings.broker_url.get_secret_value()) as made:
        try:
            yield made
        except dead_letters.UnknownLetterError as error:
            raise UnknownIdError(str(error)) from None


@dead.command("list")
@common
@click.pass_obj
def list_(session: Session) -> None:
    """List them, the oldest first."""
    from tasks.broker.redis import dead_letters  # noqa: PLC0415

    with _broker(session) as broker:
        found = dead_letters.letters(broker)
    if session.json:
        session.say_json([letter.as_dict() for letter in found])
    elif not found:
        session.note("no dead letters")
    else:
        rows = [
            (one.id, one.task, one.queue, one.deliveries, _when(one), one.reason) for one in found
        ]
        session.table(("ID", "TASK", "QUEUE", "STARTS", "GIVEN UP", "WHY"), rows)


def _when(letter: "DeadLetter") -> str:
    return datetime.fromtimestamp(letter.buried_at, UTC).strftime("%Y-%m-%d %H:%M:%S")


@dead.command()
@click.argument("letter_id", metavar="ID")
@common
@click.pass_obj
def show(session: Session, letter_id: str) -> None:
    """Show one, with its arguments and its message."""
    from tasks.broker.redis import dead_letters  # noqa: PLC0415

    with _broker(session) as broker:
        letter = dead_letters.show(broker, letter_id)
    if session.json:
        session.say_json(letter.as_dict())
        return
    session.pairs(
        [
            ("id", letter.id),
            ("task", letter.task),
            ("queue", letter.queue),
            *([("task id", letter.task_id)] if letter.task_id not in {None, letter.id} else []),
            ("why", letter.reason),
            ("starts", letter.deliveries),
            ("given up", _when(letter)),
            ("args", letter.args),
            ("kwargs", letter.kwargs),
            *([("bytes", letter.bytes)] if letter.bytes is not None else []),
            ("message", letter.message or letter.unreadable),
        ]
    )


@dead.command()
@_IDS
@common
@click.pass_obj
def replay(session: Session, letter_ids: tuple[str, ...]) -> int:
    """Put them back into their queues, as if they had never run."""
    from tasks.broker.redis import dead_letters  # noqa: PLC0415

    app = session.client.app
    worst = _each(
        session, letter_ids, lambda broker, one: dead_letters.replay(broker, one, app=app)
    )
    session.note("celray status ID says how far it is")
    return worst


@dead.command()
@_IDS
@common
@click.pass_obj
def drop(session: Session, letter_ids: tuple[str, ...]) -> int:
    """Remove them for good."""
    from tasks.broker.redis import dead_letters  # noqa: PLC0415

    return _each(session, letter_ids, dead_letters.drop)


def _each(
    session: Session,
    letter_ids: tuple[str, ...],
    act: "Callable[[Redis, str], DeadLetter]",
) -> int:
    def one(letter_id: str) -> "DeadLetter":
        with _broker(session) as broker:
            return act(broker, letter_id)

    return session.each(
        letter_ids,
        one,
        shown=lambda letter: f"{letter.id}  {letter.task}  queue {letter.queue}",
        status=lambda _: 0,
    )


COMMANDS = (dead,)
