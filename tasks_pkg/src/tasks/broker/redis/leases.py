"""What this process has fetched and not yet finished, held on leases in Redis (ADR 0018)."""

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

#: So many tags travel along with a fetch.
_ALONG: Final = 64
#: So many tags travel in one command.
_CHUNK: Final = 1000
#: And so many bytes of messages.
_CHUNK_BYTES: Final = 4_000_000
#: Seconds in which a worker that stops gives back; with the soft shutdown within its grace time.
GIVE_BACK_SECONDS: Final = 15.0


def clock() -> float:
    """Return seconds that only grow, also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def disk_full(error: BaseException | None) -> bool:
    """Return whether Redis refuses every write because it cannot write its append-only file."""
    # redis-py puts the command before it where it was one of several.
    return isinstance(error, ResponseError) and " MISCONF " in f" {error}"


def refused(error: BaseException | None) -> bool:
    """Return whether Redis is known not to run, so that nobody else can take a lease either.

    A connection that is refused, a server that still loads its data, and one whose disk is full
    say so. A timeout does not: others may reach the server.
    """
    while error is not None:
        if isinstance(error, ConnectionRefusedError | BusyLoadingError) or disk_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class Leases:
    """The messages that this process holds: kept, acknowledged, given back.

    It belongs to the process, not to a channel: a task outlives the connection over which its
    message came, and its lease must be renewed, and its message acknowledged, over another.

    Args:
        client: a client of the broker's database, with short time limits and without retries.
        extra_seconds: how much longer than the lease's own length it holds.
    """

    def __init__(self, client: Redis, extra_seconds: float = 0.0) -> None:
        self.client = client
        self.extra_seconds = extra_seconds
        #: Queue and message by delivery tag; None for one that was refused.
        self.held: dict[str, tuple[str, dict[str, Any] | None]] = {}
        #: What could not be given back while Redis was away; it goes back as soon as it answers.
        self.owed: dict[str, tuple[str, dict[str, Any]]] = {}
        #: Tags that children work on; they are not given back with a lost connection.
        self.working: frozenset[str] = frozenset()
        #: When Redis last said that the leases are ours, or that nobody can take them.
        self.safe_at = clock()
        #: Whether a keeper looks after them.
        self.kept = False
        #: Whether this process is about to end; what it gives back is for others to fetch.
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
        """Hold a message no longer; Redis knows it already."""
        self.held.pop(tag, None)

    def refuse(self, tag: str, queue: str, item: bytes, refused: Refused) -> None:
        """Put aside a message that this process holds and nobody can understand."""
        self.hold(tag, queue, None)
        self.refusals.refuse(tag, queue, item, refused)

    def ack(self, tag: str) -> None:
        """Remove a message that is done: with the next fetch, which this makes room for.

        Where none follows, because the worker stops or Redis is away, the keeper does it; where
        there is no keeper, it is done at once.
        """
        self.held.pop(tag, None)
        self._done.add(tag)
        if not self.kept:
            self.flush()

    def done(self) -> list[str]:
        """Return tags for a fetch to take along."""
        return list(self._done)[:_ALONG] if self._done else []

    def told(self, tags: list[str]) -> None:
        """Forget tags that a fetch has taken along."""
        self._done.difference_update(tags)

    def flush(self) -> None:
        """Tell Redis what is done; what it cannot be told now stays for the next time."""
        with self._lock:
            tags = list(self._done)[:_CHUNK]
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
        """Put a message back into its queue; False: not ours any more, or Redis is away.

        In the latter case it goes back to the front when Redis answers.
        """
        held = self.held.pop(tag, None)
        if held is None:
            return False
        queue, message = held
        if message is None:
            return False  # it was refused, and nobody can do anything else with it
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
        """Put messages back to the front of their queues, in their order; many in one step.

        A worker may hold a hundred thousand that wait for their time, and has seconds to stop.
        What Redis does not take in time comes back when its lease lapses; what it does not take
        because it is away goes back when it answers.
        """
        found = [(tag, self.held.pop(tag, None)) for tag in tags]
        mine = {tag: (held[0], held[1]) for tag, held in found if held and held[1] is not None}
        self._put_back(mine)

    def give_back_owed(self) -> None:
        """Put back what could not be put back before."""
        owed, self.owed = self.owed, {}
        if owed:
            self._put_back(owed, told=logging.DEBUG)

    def _put_back(
        self, mine: dict[str, tuple[str, dict[str, Any]]], told: int = logging.WARNING
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
            for tag, (queue, message) in reversed(mine.items()):  # the first in front
                mark_redelivered(message)
                try:
                    text = written(message)
                except Refused as refused:  # whoever finds its lapsed lease puts it aside
                    logger.warning("cannot give %s back to queue %s: %s", tag, queue, refused)
                    del left[tag]
                    continue
                chunk += tag, list_of(queue, message), text
                size += len(chunk[-1])
                if len(chunk) >= 3 * _CHUNK or size >= _CHUNK_BYTES:
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
            # Those that Redis has taken without saying so are no longer held: that is not twice.
            self.owed = {**left, **self.owed}
            logger.log(told, "cannot give back %d messages yet: %s", len(left), error)

    def renew(self) -> set[str]:
        """Renew all leases; gives the tags that are held, and no longer ours.

        Raises:
            redis.exceptions.RedisError: Redis does not answer; ``safe_at`` says how things are.
        """
        asked_at = clock()
        tags = [*self.held, *self.owed]
        lost: set[str] = set()
        try:
            for at in range(0, len(tags), _CHUNK):
                args: list[str | float] = [self.extra_seconds, *tags[at : at + _CHUNK]]
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
    """Say in ``message``, as kombu does, that it was delivered before."""
    message.setdefault("headers", {})["redelivered"] = True
    message["properties"].setdefault("delivery_info", {})["redelivered"] = True


_LEASES: dict[tuple[object, ...], Leases] = {}
# A child process holds nothing: what its parent has fetched is its parent's.
os.register_at_fork(after_in_child=_LEASES.clear)


def leases_at(parameters: dict[str, Any], seconds: float) -> Leases:
    """Return this process's leases at one Redis; ``parameters`` are redis-py's, of a connection."""
    where = tuple(parameters.get(name) for name in ("host", "port", "db", "path"))
    found = _LEASES.get(where)
    if found is None:
        found = _LEASES[where] = Leases(short_client(parameters, seconds))
    return found


def all_leases() -> list[Leases]:
    """Return this process's leases at every Redis that it consumes from."""
    return list(_LEASES.values())


def short_client(parameters: dict[str, Any], seconds: float) -> Redis:
    """Open a client that waits for seconds only; ``parameters`` are a connection's."""
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
