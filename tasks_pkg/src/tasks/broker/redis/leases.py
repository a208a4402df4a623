"""Leases in Redis on the messages that this process has fetched and not yet finished (ADR 0018)."""

import logging
import os
import threading
import time
from typing import Any, Final, cast

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from tasks.broker.envelope import Refused, written
from tasks.broker.redis.priorities import list_of
from tasks.broker.redis.refusals import Refusals
from tasks.broker.redis.scripts import ACK, HELD, LEASES, RENEW, RESTORE, RESTORE_ALL

logger = logging.getLogger(__name__)

#: The most tags that one fetch acknowledges.
_MOST_TAGS_PER_FETCH: Final = 64
#: The most tags in one command.
_MOST_TAGS_PER_COMMAND: Final = 1000
#: The most bytes of messages in one command.
_MOST_COMMAND_BYTES: Final = 4_000_000
#: Time limit for giving messages back at shutdown; together with the soft shutdown it stays within
#: the container's grace period.
GIVE_BACK_SECONDS: Final = 15.0


def clock() -> float:
    """Return a monotonic time in seconds that also advances while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def disk_full(error: BaseException | None) -> bool:
    """Return whether Redis refuses every write because it cannot write its append-only file."""
    # In a pipeline redis-py puts the command before the error's text.
    return isinstance(error, ResponseError) and " MISCONF " in f" {error}"


def refused(error: BaseException | None) -> bool:
    """Return whether the error proves that nobody can take a lease, because Redis serves no one.

    The proof is a refused connection, a server that still loads its data, or a server whose disk is
    full. A timeout proves nothing: other clients may still reach the server.
    """
    while error is not None:
        if isinstance(error, ConnectionRefusedError | BusyLoadingError) or disk_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class Leases:
    """The messages that this process holds: it holds, acknowledges and gives them back.

    One object per process, not per channel: a task outlives the connection that delivered its
    message. Its lease is then renewed, and its message acknowledged, over another connection.

    Args:
        client: a client of the broker's database, with short time limits and without retries.
        extra_seconds: how much longer than the normal lease length each lease lasts.
    """

    def __init__(self, client: Redis, extra_seconds: float = 0.0) -> None:
        self.client = client
        self.extra_seconds = extra_seconds
        #: Queue and message by delivery tag; None for a message that was refused.
        self.held: dict[str, tuple[str, dict[str, Any] | None]] = {}
        #: Messages that could not be given back while Redis was unavailable; they go back once it
        #: answers.
        self.owed: dict[str, tuple[str, dict[str, Any]]] = {}
        #: Tags of tasks that child processes run; a lost connection does not give them back.
        self.working: frozenset[str] = frozenset()
        #: When Redis last confirmed that this process holds its leases, or that nobody can take
        #: them.
        self.safe_at = clock()
        #: Whether a lease keeper renews them.
        self.has_lease_keeper = False
        #: Whether this process is about to end; then other workers should fetch what it gives back.
        self.ending = False
        self._done: set[str] = set()
        self.away = False
        self._lock = threading.Lock()
        self._renew = client.register_script(RENEW)
        self._ack = client.register_script(ACK)
        self._restore = client.register_script(RESTORE)
        self._restore_all = client.register_script(RESTORE_ALL)
        self.refusals = Refusals(client, done=self.forget)

    def hold(self, tag: str, queue: str, message: dict[str, Any] | None) -> None:
        """Take over a message that the fetch has just recorded in Redis."""
        if not self.held:
            self.safe_at = clock()
        self.held[tag] = queue, message

    def forget(self, tag: str) -> None:
        """Stop holding a message that Redis has already removed."""
        self.held.pop(tag, None)

    def refuse(self, tag: str, queue: str, item: bytes, refused: Refused) -> None:
        """Put aside a message that this process holds and that cannot be decoded."""
        self.hold(tag, queue, None)
        self.refusals.refuse(tag, queue, item, refused)

    def ack(self, tag: str) -> None:
        """Acknowledge a finished message together with the next fetch.

        If no fetch follows, because the worker stops or Redis is unavailable, the lease keeper
        acknowledges it. Without a lease keeper it is acknowledged at once.
        """
        self.held.pop(tag, None)
        self._done.add(tag)
        if not self.has_lease_keeper:
            self.flush()

    def done(self) -> list[str]:
        """Return the tags that the next fetch should acknowledge."""
        return list(self._done)[:_MOST_TAGS_PER_FETCH] if self._done else []

    def acknowledged(self, tags: list[str]) -> None:
        """Forget tags that a fetch has acknowledged."""
        self._done.difference_update(tags)

    def flush(self) -> None:
        """Acknowledge all finished messages; those that fail stay for the next call."""
        with self._lock:
            tags = list(self._done)[:_MOST_TAGS_PER_COMMAND]
            if not tags:
                return
            try:
                self._ack(keys=[HELD, LEASES], args=tags)
            except (RedisError, OSError) as error:
                self.away = True
                logger.warning("%d finished tasks wait to be acknowledged: %s", len(tags), error)
            else:
                self.away = False
                self._done.difference_update(tags)

    def give_back(self, tag: str, *, first: bool) -> bool:
        """Put a message back into its queue. Return False if that failed.

        It fails if the lease has passed to another process, or if Redis is unavailable. In the
        second case the message goes back to the front of its queue once Redis answers.
        """
        held = self.held.pop(tag, None)
        if held is None:
            return False
        queue, message = held
        if message is None:
            return False  # it was refused; giving it back would help nobody
        mark_redelivered(message)
        side = "right" if first else "left"
        try:
            return bool(
                self._restore(
                    keys=[HELD, LEASES, list_of(queue, message)],
                    args=[tag, written(message), side, ""],
                )
            )
        except (RedisError, OSError) as error:
            self.owed[tag] = queue, message
            logger.warning("cannot give %s back to queue %s yet: %s", tag, queue, error)
            return False
        except Refused as error:
            logger.warning(
                "cannot give %s back to queue %s, its lease lapses: %s", tag, queue, error
            )
            return False

    def give_back_all(self, tags: list[str]) -> None:
        """Put messages back to the front of their queues in their order, many per command.

        A worker may hold a hundred thousand messages with an ETA, and has only seconds to stop.
        Messages that Redis does not take in time come back when their leases lapse. Messages that
        it does not take because it is unavailable go back once it answers.
        """
        found = [(tag, self.held.pop(tag, None)) for tag in tags]
        mine = {tag: (held[0], held[1]) for tag, held in found if held and held[1] is not None}
        self._put_back(mine)

    def give_back_owed(self) -> None:
        """Put back the messages that could not be given back before."""
        owed, self.owed = self.owed, {}
        if owed:
            self._put_back(owed, level=logging.DEBUG)

    def _put_back(
        self, mine: dict[str, tuple[str, dict[str, Any]]], level: int = logging.WARNING
    ) -> None:
        left = dict(mine)
        chunk: list[str] = []
        size = 0
        end = clock() + GIVE_BACK_SECONDS

        def send() -> None:
            self._restore_all(keys=[HELD, LEASES], args=chunk)
            for tag in chunk[::3]:
                del left[tag]

        try:
            for tag, (queue, message) in reversed(mine.items()):  # so that the first ends in front
                mark_redelivered(message)
                try:
                    text = written(message)
                except Refused as refused:  # whoever finds its lapsed lease puts it aside
                    logger.warning("cannot give %s back to queue %s: %s", tag, queue, refused)
                    del left[tag]
                    continue
                chunk += tag, list_of(queue, message), text
                size += len(chunk[-1])
                if len(chunk) >= 3 * _MOST_TAGS_PER_COMMAND or size >= _MOST_COMMAND_BYTES:
                    send()
                    chunk, size = [], 0
                    if clock() > end:
                        logger.warning(
                            "the leases of %d messages lapse: no time to give back", len(left)
                        )
                        return
            if chunk:
                send()
        except (RedisError, OSError) as error:
            # Redis may have taken some without answering. Their tags are no longer held, so that
            # they are not put back twice.
            self.owed = {**left, **self.owed}
            logger.log(level, "cannot give back %d messages yet: %s", len(left), error)

    def renew(self) -> set[str]:
        """Renew all leases. Return the held tags whose leases now belong to another process.

        Raises:
            redis.exceptions.RedisError: Redis does not answer; ``safe_at`` says until when the
                leases hold.
        """
        asked_at = clock()
        tags = [*self.held, *self.owed]
        lost: set[str] = set()
        try:
            for at in range(0, len(tags), _MOST_TAGS_PER_COMMAND):
                args: list[str | float] = [
                    self.extra_seconds,
                    *tags[at : at + _MOST_TAGS_PER_COMMAND],
                ]
                lost.update(cast("list[str]", self._renew(keys=[LEASES], args=args)))
            if not tags:
                self.client.ping()
        except (RedisError, OSError) as error:
            self.away = True
            if refused(error):
                self.safe_at = clock()
            raise
        self.safe_at = asked_at
        self.away = False
        for tag in lost & self.owed.keys():
            self.owed.pop(tag, None)
        return {tag for tag in lost if tag in self.held}


def mark_redelivered(message: dict[str, Any]) -> None:
    """Mark ``message`` as delivered before, as kombu does."""
    message.setdefault("headers", {})["redelivered"] = True
    message["properties"].setdefault("delivery_info", {})["redelivered"] = True


_LEASES: dict[tuple[object, ...], Leases] = {}
# A child process holds no leases: its parent keeps those of the messages that it fetched.
os.register_at_fork(after_in_child=_LEASES.clear)


def leases_at(parameters: dict[str, Any], seconds: float) -> Leases:
    """Return this process's leases at one Redis; ``parameters`` are of a redis-py connection."""
    where = tuple(parameters.get(name) for name in ("host", "port", "db", "path"))
    found = _LEASES.get(where)
    if found is None:
        found = _LEASES[where] = Leases(short_client(parameters, seconds))
    return found


def all_leases() -> list[Leases]:
    """Return this process's leases at every Redis that it consumes from."""
    return list(_LEASES.values())


def short_client(parameters: dict[str, Any], seconds: float) -> Redis:
    """Open a client with a time limit in seconds; ``parameters`` are connection parameters."""
    limit = max(0.5, min(5.0, seconds / 6))
    own = {
        **parameters,
        "decode_responses": True,
        # A message may be any bytes, and is written back as it was read.
        "encoding_errors": "surrogateescape",
        "socket_timeout": limit,
        "socket_connect_timeout": limit,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "client_name": f"{parameters.get('client_name') or 'celray'}-leases",
    }
    return Redis(connection_pool=ConnectionPool(**own))
