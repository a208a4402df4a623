"""What a channel can still do while Redis is full (``maxmemory`` reached, ``noeviction``).

Redis then refuses every command of a transaction, even a read or a deletion, and every command that
may need memory. Requests that read, cancel or delete must still work, because they free memory. So
commands that only read or free memory run here without a transaction. The few bytes that bind a
reply queue are written in any case. Publishing stays refused (ADR 0023).
"""

from functools import cached_property

from kombu.transport import redis as kombu_redis
from kombu.transport.redis import REFRESH_BINDING
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError

from tasks.broker.redis.priorities import list_lengths
from tasks.broker.redis.scripts import BIND, within_reserve
from tasks.contracts import Untyped


class QoS(kombu_redis.QoS):  # type: ignore[misc]  # kombu has no types
    """Leaves other consumers' messages alone."""

    def restore_visible(self, *_: object, **__: object) -> None:
        """Do nothing: this would write, and the lease keeper handles lapsed leases."""


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """Declares, reads, cancels and deletes without transactions."""

    QoS = QoS

    def _size(self, queue: str) -> int:
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for step in self.priority_steps:
                pipe.llen(self._q_for_pri(queue, step))
            # A key of another type holds no message; a fetch moves it out of the way.
            return sum(list_lengths(pipe.execute(raise_on_error=False)))

    def _lists(self, queue: str) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps]

    def _has_queue(self, queue: str, **_: object) -> bool:
        with self.conn_or_acquire() as client:
            return bool(client.exists(*self._lists(queue)))

    def _purge(self, queue: str) -> int:
        size = self._size(queue)
        with self.conn_or_acquire() as client:
            client.delete(*self._lists(queue))
        return size

    def _delete(
        self, queue: str, exchange: str, routing_key: str, pattern: str, *_: object, **more: Untyped
    ) -> None:
        self.auto_delete_queues.discard(queue)
        member = self._member(routing_key, pattern, queue)
        with self.conn_or_acquire(client=more.get("client")) as client:
            for key in self._bindings(exchange):
                client.srem(key, member)
            client.delete(*self._lists(queue))

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError:
            member = self._member(routing_key, pattern, queue)
            with self.conn_or_acquire() as client:
                client.register_script(BIND)(keys=self._bindings(exchange), args=[member])

    def _bindings(self, exchange: str) -> list[str]:
        return [self.keyprefix_queue % exchange, self.keyprefix_binding_permanent % exchange]

    def _member(self, routing_key: str, pattern: str, queue: str) -> str:
        return str(self.sep.join([routing_key or "", pattern or "", queue or ""]))

    @cached_property
    def _refresh_binding(self) -> Untyped:
        script = self._create_client().register_script(within_reserve(REFRESH_BINDING))

        def refresh(keys: list[str], args: list[object], client: Untyped) -> object:
            # kombu renews its bindings in a transaction, only for speed.
            if isinstance(client, Pipeline):
                client = self._create_client()
            return script(keys=keys, args=args, client=client)

        return refresh


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's transport for celray's client, which reads and cancels (``broker_transport``)."""

    Channel = Channel
