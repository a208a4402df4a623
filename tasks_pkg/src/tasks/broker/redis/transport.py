"""kombu's Redis transport with a fetch that pops and records in one step (ADR 0019).

kombu pops with BRPOP and records what it popped in a second command: a host that vanishes between
the two loses the message (kombu#305). Here one script does both. A script cannot wait for messages,
so Redis's client tracking does: a fetch that found nothing has read all lists, and the first change
to any of them makes Redis push one notice down the same connection. Publishers need not know of it.
If a notice is lost, the next fetch follows within a second.

``tests/broker/test_kombu_contract.py`` checks what this relies on in kombu and redis-py.
"""

import logging
from collections.abc import Iterator
from queue import Empty
from time import monotonic
from typing import Any
from uuid import uuid4

from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from tasks.broker import envelope, sizes
from tasks.broker.envelope import Refused
from tasks.broker.redis import full
from tasks.broker.redis.leases import Leases, disk_full, leases_at
from tasks.broker.redis.prefetch import PATIENCE_SECONDS, Prefetch
from tasks.broker.redis.scripts import FETCH, HELD, LEASES, PUBLISH
from tasks.contracts import Untyped

logger = logging.getLogger(__name__)

#: The most messages in one fetch.
_MOST_MESSAGES = 16

#: Stands for a notice from Redis among the answers.
_BELL = object()


class QoS(full.QoS):
    """Counts what was delivered; the leases hold what Redis has recorded."""

    @property
    def _leases(self) -> Leases:
        leases: Leases = self.channel.leases
        return leases

    @property
    def has_credit(self) -> bool:
        """Return whether the consumer takes another message now."""
        return bool(super().can_consume())

    def can_consume(self) -> bool:
        """Return whether to fetch, for the consumer or for the prefetch."""
        return self.room() > 0

    def room(self) -> int:
        """Return how many messages to fetch."""
        prefetch: Prefetch = self.channel.prefetch
        credit: int | None = self.can_consume_max_estimate()
        if credit is None:
            return 1
        return max(0, credit - len(prefetch.waiting)) + prefetch.room(self.prefetch_count)

    def append(self, message: Untyped, delivery_tag: str) -> None:
        """Count a message that the fetch has already recorded."""
        super(kombu_redis.QoS, self).append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a finished message, over whichever connection exists."""
        self._leases.ack(delivery_tag)
        self._quick_ack(delivery_tag)
        self.channel.prefetch.finished()
        self.channel.deliver_prefetched()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Remove a message, or put it back at the end of its queue."""
        if requeue:
            self._leases.give_back(delivery_tag, first=False)
        else:
            self._leases.ack(delivery_tag)
        self._quick_ack(delivery_tag)
        self.channel.deliver_prefetched()

    def forget(self, delivery_tag: str) -> None:
        """Stop counting a refused message; its lease ends when it is put aside."""
        self._quick_ack(delivery_tag)
        self.channel.deliver_prefetched()

    def restore_unacked_once(self, stderr: Untyped = None) -> None:
        """Requeue the prefetched and the delivered messages."""
        self.channel.prefetch.open = False
        self.channel.give_back_prefetched()
        super().restore_unacked_once(stderr)

    def restore_unacked(self) -> list[object]:
        """Requeue the messages that no child process works on; running tasks keep their leases.

        Called when the channel closes. That is at the worker's end, when nothing runs, or after a
        lost connection, when kombu would also requeue the messages of running tasks.
        """
        self._flush()
        tags = [tag for tag in self._delivered if tag not in self._leases.working]
        self._delivered.clear()
        self._leases.give_back_all(tags)
        self._leases.flush()
        return []


class _Channels(set[Untyped]):
    """A set whose members may come and go while it is gone through.

    Kombu's timers go through the channels in the event loop, and other threads open and close some:
    "Set changed size during iteration".
    """

    def __iter__(self) -> Iterator[Untyped]:
        return iter(list(super().__iter__()))


class Poller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """Polls for answers and for notices."""

    loop: Untyped = None

    def __init__(self) -> None:
        super().__init__()
        self._channels = _Channels()

    def on_poll_start(self) -> None:
        """Enable prefetch for the channels that consume."""
        if self.loop is not None:
            for channel in self._channels:
                if not channel.prefetch.open and channel.active_queues:
                    channel.open_prefetch(self.loop)
        super().on_poll_start()

    def on_readable(self, fileno: int) -> Any:  # noqa: ANN401 - kombu's
        """Read a notice that comes while no fetch is under way."""
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if channel is not None and kind == "BRPOP" and not channel._in_poll:
            channel.drain_notices()
            return None
        return super().on_readable(fileno)

    def look_again(self) -> None:
        """Fetch without a notice from time to time, in case one was lost."""
        for channel in self._channels:
            channel.look_again()


class Channel(full.Channel):
    """Fetches by script; waits for notices."""

    QoS = QoS

    _waiting = False
    _delivering = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._taken_along: list[str] = []
        self._without_ack: set[str] = set()
        self._leases: Leases | None = None
        self.prefetch = Prefetch()
        # The common prefix of this channel's delivery tags; a number follows it.
        self._tag = f"{uuid4().hex}:"
        self._tags = 0
        super().__init__(*args, **kwargs)

    @property
    def leases(self) -> Leases:
        """Return the leases of this process at this channel's Redis."""
        if self._leases is None:
            self._leases = leases_at(_plain(self._connparams()), self.visibility_timeout)
        return self._leases

    # -- the connection

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        parameters["protocol"] = 3
        if asynchronous:
            parameters["redis_connect_func"] = self._prepare
        return parameters

    def _prepare(self, connection: Untyped) -> None:
        """Log in, enable client tracking, and load the fetch script."""
        connection.on_connect()
        connection._parser.set_invalidation_push_handler(lambda _: _BELL)
        for command in (("CLIENT", "TRACKING", "ON"), ("SCRIPT", "LOAD", FETCH)):
            connection.send_command(*command)
            answer = connection.read_response()
        self._fetch_sha = bytes_to_str(answer)
        self._waiting = False

    # -- consuming

    def basic_consume(self, queue: str, no_ack: bool, *args: object, **kwargs: object) -> object:
        """Start to consume; acknowledge at once for a consumer that does not acknowledge."""
        if no_ack:
            self._without_ack.add(queue)
        else:
            self._without_ack.discard(queue)
            _ = self.leases  # made while the connection is known to work
        if self._waiting:
            # The last fetch has not read this queue's lists, so no notice would come for them.
            self._waiting = False
            self._in_poll = None
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _fetch_arguments(self, queues: list[str], most: int, done: list[str]) -> list[object]:
        lists = [(self._q_for_pri(q, step), q) for step in self.priority_steps for q in queues]
        keys = [key for key, _ in lists]
        own = [self.leases.extra_seconds, most, HELD, LEASES, self._tag, self._tags]
        self._tags += most
        return [len(keys), *keys, *own, *(queue for _, queue in lists), *done]

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues or self.leases.ending:
            return
        most = max(1, min(self.qos.room(), _MOST_MESSAGES))
        connection = self.client.connection
        if connection._sock is None:
            connection.connect()
        self._in_poll = connection
        self._waiting = False
        self._brpop_sent_at = monotonic()
        self._taken_along = self.leases.done()
        arguments = self._fetch_arguments(queues, most, self._taken_along)
        connection.send_command("EVALSHA", self._fetch_sha, *arguments)

    def _brpop_read(self, **_: object) -> bool:
        connection = self.client.connection
        answer = self._read(connection)
        while answer is _BELL and not self._waiting:
            # An old notice, before the fetch's answer; both may have come in one packet.
            if not connection.can_read(timeout=0):
                raise Empty
            answer = self._read(connection)
        if answer is not _BELL and self._taken_along:
            self.leases.acknowledged(self._taken_along)
            self._taken_along = []
        if answer is _BELL or connection.can_read(timeout=0):
            self.drain_notices()
            self._in_poll = None  # the next turn of the loop fetches
        elif not answer:
            self._waiting = True  # and stays "in poll": nothing is sent before a notice comes
        if answer is _BELL or not answer:
            raise Empty
        self._in_poll = None
        for at in range(0, len(answer), 3):
            queue, tag, item = answer[at : at + 3]
            self._take(bytes_to_str(queue), bytes_to_str(tag), item)
        return True

    def _read(self, connection: Untyped) -> Any:  # noqa: ANN401 - what Redis answers
        try:
            return connection.read_response(push_request=True)
        except NoScriptError as error:  # the scripts were flushed: a new connection loads it again
            connection.disconnect()
            message = "Redis has forgotten the fetch script"
            raise RedisConnectionError(message) from error
        except ResponseError as error:
            if not disk_full(error):
                raise
            self._waiting = True  # no message for anyone; the next fetch is a second away
            raise Empty from None
        except self.connection_errors:
            connection.disconnect()
            raise

    def _understood(self, queue: str, tag: str, item: bytes) -> dict[str, Any] | None:
        """Return a message that is held from now on, or None if it was refused."""
        if not tag:
            logger.error(
                "queue %s: its key in Redis was no list, and is now %s for a week",
                queue,
                bytes_to_str(item),
            )
            return None
        try:
            message = envelope.read(item, tag)
        except Refused as refused:
            self.leases.refuse(tag, queue, item, refused)
            return None
        self.leases.hold(tag, queue, message)
        return message

    def _take(self, queue: str, tag: str, item: bytes) -> None:
        message = self._understood(queue, tag, item)
        if message is None:
            return
        self._queue_cycle.rotate(queue)
        if queue not in self.active_queues or (self.qos.has_credit and not self.prefetch.waiting):
            self._pass_on(tag, queue, message)
        elif self.prefetch.put(tag, queue, message):
            if len(self.prefetch.waiting) == 1:
                self._loop.call_later(PATIENCE_SECONDS, self._give_back_overdue)
        elif self.qos.has_credit:
            self._pass_on(tag, queue, message)
        else:
            self.leases.give_back(tag, first=True)

    def _pass_on(self, tag: str, queue: str, message: dict[str, Any]) -> None:
        self.connection._deliver(message, queue)
        if queue in self._without_ack:
            self.leases.ack(tag)

    # -- prefetched messages

    def open_prefetch(self, loop: Untyped) -> None:
        """Enable prefetch: an event loop delivers messages as soon as there is room."""
        self._loop = loop
        self.prefetch.open = True

    def deliver_prefetched(self) -> None:
        """Deliver prefetched messages while there is room.

        Do so at once, not at the loop's next turn: Celery acknowledges in callbacks that run just
        before the loop polls, and the poll would come first.
        """
        if self._delivering:
            return
        self._delivering = True
        try:
            while self.qos.has_credit and (waiting := self.prefetch.take()):
                tag, queue, message, _ = waiting
                self._pass_on(tag, queue, message)
        finally:
            self._delivering = False

    def _give_back_overdue(self) -> None:
        if self.prefetch.overdue():
            self.give_back_prefetched()
        elif self.prefetch.waiting:
            self._loop.call_later(PATIENCE_SECONDS, self._give_back_overdue)

    def give_back_prefetched(self) -> None:
        """Put the prefetched messages back to the front of their queues, in their order."""
        reached = True
        while self.prefetch.waiting:
            tag, *_ = self.prefetch.waiting.pop()
            if reached:
                reached = self.leases.give_back(tag, first=True)
            else:  # Redis is unavailable; waiting for it once per message would take a minute
                self.leases.held.pop(tag, None)

    def _basic_cancel(self, consumer_tag: str) -> object:
        self.give_back_prefetched()
        return super()._basic_cancel(consumer_tag)

    def drain_notices(self) -> None:
        """Read notices that no fetch waits for."""
        connection = self.client.connection
        while connection.can_read(timeout=0):
            self._read(connection)

    def look_again(self) -> None:
        """Fetch at the loop's next turn if the last notice is long ago."""
        if self._waiting and monotonic() - self._brpop_sent_at >= self.brpop_timeout:
            self._waiting = False
            self._in_poll = None

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: object) -> object:
        """Return one message, or nothing."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.leases.ack(message.delivery_tag)
        return message

    def _receive_one(self, c: Untyped) -> object:
        """Read a broadcast; ignore one that cannot be decoded."""
        try:
            return super()._receive_one(c)
        except (Empty, *self.connection_errors):
            raise
        except Exception:
            logger.exception("a broadcast cannot be understood, and is passed over")
            raise Empty from None

    def _get(self, queue: str) -> dict[str, Any]:
        while True:
            with self.conn_or_acquire() as client:
                sha = client.script_load(FETCH)
                number, *rest = self._fetch_arguments([queue], 1, [])
                answer = client.evalsha(sha, number, *rest)
            if not answer:
                raise Empty
            message = self._understood(queue, bytes_to_str(answer[1]), answer[2])
            if message is not None:
                return message

    def _put(self, queue: str, message: dict[str, Any], **kwargs: object) -> None:
        """Publish. While Redis is full, messages that a worker's task sends may use the reserve."""
        sizes.require_publishable(message)
        try:
            super()._put(queue, message, **kwargs)
        except OutOfMemoryError:
            key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
            with self.conn_or_acquire() as client:
                client.register_script(PUBLISH)(keys=[key], args=[dumps(message)])

    def close(self) -> None:
        """Requeue the messages that no child process works on; see :meth:`QoS.restore_unacked`."""
        self.prefetch.open = False
        if self._waiting:
            self._waiting = False
            self._in_poll = None  # kombu would read an answer that never comes
        super().close()


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return a connection's parameters without those that tie it to the channel."""
    return {
        k: v for k, v in parameters.items() if k not in {"redis_connect_func", "max_connections"}
    }


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """``broker_transport = "tasks.broker.redis.transport:Transport"``."""

    Channel = Channel

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Untyped, loop: Untyped) -> None:
        """Add the fetch without a notice, and the parts that need a loop."""
        super().register_with_event_loop(connection, loop)
        self.cycle.loop = loop
        self._look_tref = loop.call_repeatedly(self.brpop_timeout, self.cycle.look_again)
