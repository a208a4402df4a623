"""The keeper: a thread in each worker's main process that renews leases and ends lapsed ones.

Three duties (ADR 0018): renew what this worker holds, every third of a lease; find leases of
others that nobody renews any more, and deliver those messages again, or bury them; and when
this worker's own leases may have lapsed, end it, before somebody else runs what it is running.

A thread, not a timer of the loop: the loop stands still while it waits for a lost broker, and
that is when the leases matter.
"""

import json
import threading
import uuid
from typing import Any, cast

from celery import Celery, bootsteps
from celery.app.task import Context
from celery.exceptions import WorkerLostError
from celery.states import SUCCESS
from celery.utils.log import get_logger
from kombu.transport.virtual import Base64, Message
from redis.exceptions import RedisError

from tasks import deadletters, fence
from tasks.broker.leases import Leases, all_leases, clock, mark_redelivered
from tasks.broker.queues import list_of
from tasks.broker.scripts import CLAIM, HELD, LEASES, RESTORE
from tasks.contracts import Untyped
from tasks.headers import LAPSES
from tasks.settings import get_settings

logger = get_logger(__name__)

#: Seconds between two looks.
_LOOK = 1.0
#: How much longer a lease is held under a pool whose tasks may stop every thread.
GREEN_SECONDS = 3_540.0
#: Keys and lease of workers that renew nothing: older releases, and other people's.
_FOREIGN = ("unacked", "unacked_index", 3_600.0)
_FOREIGN_EVERY = 60.0


class Sweeper:
    """Finds leases that nobody renews.

    A lease has lapsed when this process has seen it unchanged for its whole length, without a
    gap in its own view, and when it is that old by Redis's clock too. The first makes a stepped
    clock and an absence of Redis harmless: after either, everybody has a whole lease's time to
    renew. The second allows longer leases.
    """

    def __init__(self, app: Celery, leases: Leases, seconds: float, max_deliveries: int) -> None:
        self._app = app
        self._leases = leases
        self._client = leases.client
        self._seconds = seconds
        self._max_deliveries = max_deliveries
        self._seen: dict[str, tuple[float, float]] = {}
        self._looked_at = 0.0
        self._foreign_at = 0.0
        self._claim = self._client.register_script(CLAIM)
        self._restore = self._client.register_script(RESTORE)

    def forget(self) -> None:
        """Start to watch anew: what happened meanwhile is not known."""
        self._seen.clear()

    def sweep(self) -> None:
        """Look once; deliver or bury what has lapsed.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        now = clock()
        if now - self._looked_at > self._seconds / 3:
            self.forget()
        self._looked_at = now
        seconds, micros = self._client.time()
        server_now = seconds + micros / 1e6
        listed = cast(
            "list[tuple[str, float]]", self._client.zrange(LEASES, 0, -1, withscores=True)
        )
        seen = self._seen
        self._seen = {}
        for tag, score in listed:
            before, since = seen.get(tag, (None, now))
            if before != score:
                since = now
            self._seen[tag] = score, since
            lapsed = now - since >= self._seconds and server_now - score >= self._seconds
            if lapsed and tag not in self._leases.held:
                self._lapsed(tag, score)
        if now - self._foreign_at >= _FOREIGN_EVERY:
            self._foreign_at = now
            self._foreign(server_now)

    def _lapsed(self, tag: str, score: float) -> None:
        stored = cast("str | None", self._client.hget(HELD, tag))
        if stored is None:
            self._client.zrem(LEASES, tag)
            return
        message, _, queue = json.loads(stored)
        headers = message.setdefault("headers", {})
        deliveries = int(headers.get(LAPSES, 0)) + 1
        what = f"{headers.get('task', '?')}[{headers.get('id', tag)}]"
        if deliveries >= self._max_deliveries:
            if self._claim(keys=[LEASES], args=[tag, f"{score:.6f}"]):
                logger.error("%s: given up, its worker died %d times", what, deliveries)
                # Beside the keeper: writing a result may wait as long as its Redis is away.
                arguments = (tag, queue, message, deliveries)
                threading.Thread(target=self._bury, args=arguments, daemon=True).start()
            return
        headers[LAPSES] = deliveries
        mark_redelivered(message)
        # A new tag: a holder that comes back sees that it is no longer the holder.
        message["properties"]["delivery_tag"] = str(uuid.uuid4())
        keys = [HELD, LEASES, list_of(queue, message)]
        if self._restore(keys=keys, args=[tag, json.dumps(message), "right", f"{score:.6f}"]):
            logger.warning(
                "%s: its worker is gone, delivered again (%d of %d)",
                what,
                deliveries + 1,
                self._max_deliveries,
            )

    def _bury(self, tag: str, queue: str, message: dict[str, Any], deliveries: int) -> None:
        reason = f"its worker died in each of {deliveries} deliveries"
        try:
            if record_failure(self._app, message, reason):
                deadletters.bury(self._client, tag, (queue, message), reason, deliveries)
            else:
                self._leases.ack(tag)
        except (RedisError, OSError) as error:
            logger.warning("cannot bury %s now, it is tried again: %s", tag, error)

    def _foreign(self, server_now: float) -> None:
        """Deliver again what a worker without leases has held for an hour."""
        held, index, seconds = _FOREIGN
        old = cast("list[str]", self._client.zrangebyscore(index, 0, server_now - seconds))
        for tag in old:
            stored = cast("str | None", self._client.hget(held, tag))
            if stored is None:
                self._client.zrem(index, tag)
                continue
            message, _, key = json.loads(stored)
            mark_redelivered(message)
            keys = [held, index, list_of(str(key), message)]
            self._restore(keys=keys, args=[tag, json.dumps(message), "right", ""])


class _Codec:
    """What kombu's message needs of a channel to be read."""

    def decode_body(self, body: Untyped, encoding: str | None = None) -> Untyped:
        return Base64().decode(body) if encoding == "base64" else body


def record_failure(app: Celery, message: dict[str, Any], reason: str) -> bool:
    """Give a task that nobody will run any more its FAILURE; False: it has succeeded already.

    Chords and errbacks learn of it too.
    """
    headers = message.get("headers") or {}
    task_id = headers.get("id")
    if not task_id:
        return True
    if app.backend.get_state(task_id) == SUCCESS:
        return False
    context: dict[str, Any] = dict(headers)
    try:
        args, kwargs, embed = Message(
            message, channel=_Codec(), accept={"application/json"}
        ).payload
        context |= {"args": args, "kwargs": kwargs, **(embed or {})}
    except Exception as error:  # noqa: BLE001 - whatever its content, it is given up
        logger.warning("task %s cannot be read: %s", task_id, error)
    text = f"{reason}; see: celray dead show {task_id}"
    app.backend.mark_as_failure(task_id, WorkerLostError(text), request=Context(context))
    return True


class Keeper:
    """The thread, for the leases of one worker."""

    def __init__(self, app: Celery, pool: Untyped, seconds: float, max_deliveries: int) -> None:
        self._app = app
        self._pool = pool
        self._seconds = seconds
        self._max_deliveries = max_deliveries
        self._ended = threading.Event()
        self._renewed_at = 0.0
        self._sweepers: dict[int, Sweeper] = {}
        self._look = min(_LOOK, seconds / 10)
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Start to keep; a second call does nothing."""
        if not self._thread.is_alive():
            self._thread.start()

    def end(self) -> None:
        """Stop; what is finished is acknowledged if Redis answers."""
        self._ended.set()
        for leases in all_leases():
            leases.kept = False
            leases.flush()

    def _run(self) -> None:
        while not self._ended.wait(self._look):
            for leases in all_leases():
                try:
                    self._keep(leases)
                except Exception:
                    logger.exception("leases: an error in the keeper")
            safe_at = min((leases.safe_at for leases in all_leases()), default=0.0)
            fence.holds_until(safe_at + self._fence)

    def _keep(self, leases: Leases) -> None:
        sweeper = self._sweepers.get(id(leases))
        if sweeper is None:
            sweeper = Sweeper(self._app, leases, self._seconds, self._max_deliveries)
            self._sweepers[id(leases)] = sweeper
            leases.kept = True
        try:
            if leases.away or clock() - self._renewed_at >= self._seconds / 3:
                lost = leases.renew()
                self._renewed_at = clock()
                if lost:
                    self._die(leases, f"{len(lost)} of its tasks are no longer its own")
            leases.flush()
            sweeper.sweep()
        except (RedisError, OSError) as error:
            leases.away = True
            sweeper.forget()
            logger.debug("leases: Redis does not answer: %s", error)
        if leases.held and clock() - leases.safe_at > self._fence:
            self._die(leases, f"Redis has not answered for {clock() - leases.safe_at:.0f} s")

    @property
    def _fence(self) -> float:
        return 0.75 * self._seconds + max((le.extra_seconds for le in all_leases()), default=0.0)

    def _die(self, leases: Leases, why: str) -> None:
        """End this worker at once: another may be about to run what it is running."""
        logger.critical("%s, and another worker may run them: this one ends now", why)
        fence.kill(self._pool)
        if not leases.away:
            for tag in list(leases.held):
                leases.give_back(tag, first=True)
        fence.end()


class KeeperStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Starts the keeper with the consumer; it goes on while the connection is away."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Untyped, **kwargs: Untyped) -> None:
        super().__init__(consumer, **kwargs)
        self._keeper: Keeper | None = None

    def start(self, consumer: Untyped) -> None:
        """Start to keep, once."""
        settings = get_settings()
        green = getattr(consumer.pool, "is_green", False)
        for leases in all_leases():
            leases.extra_seconds = GREEN_SECONDS if green else 0.0
        if self._keeper is None:
            if green:
                logger.warning(
                    "this pool's tasks may keep the leases' keeper from running: leases of %.0f s "
                    "instead of %d, so a lost worker's tasks come back that late; the prefork and "
                    "threads pools do not need this",
                    GREEN_SECONDS + settings.visibility_timeout_seconds,
                    settings.visibility_timeout_seconds,
                )
            self._keeper = Keeper(
                consumer.app,
                consumer.pool,
                settings.visibility_timeout_seconds,
                settings.max_deliveries,
            )
        self._keeper.start()

    def stop(self, consumer: Untyped) -> None:
        """Nothing: a lost connection is when it matters."""

    def shutdown(self, consumer: Untyped) -> None:  # noqa: ARG002 - the bootstep's signature
        """Stop keeping."""
        if self._keeper is not None:
            self._keeper.end()
