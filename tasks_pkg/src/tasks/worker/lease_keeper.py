"""The lease keeper: a thread in each worker's main process that renews leases and ends lapsed ones.

It has three duties (ADR 0018). It renews the worker's leases every third of a lease. It finds other
workers' leases that nobody renews any more, and redelivers or buries their messages. When this
worker's own leases may have lapsed, it ends the worker before another one runs the same tasks.

It is a thread, not a timer of the event loop: the loop blocks while it waits for a lost broker,
which is when the leases matter.
"""

import json
import threading
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from celery import Celery, bootsteps
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, WorkerLostError
from celery.states import FAILURE, SUCCESS
from celery.utils.log import get_logger
from celery.utils.time import maybe_iso8601
from redis.exceptions import RedisError, ResponseError

from tasks import background_calls
from tasks.broker.envelope import (
    MOST_REASON_CHARACTERS,
    Refused,
    payload_of,
    read,
    record_of,
    written,
)
from tasks.broker.redis import dead_letters, refusals
from tasks.broker.redis.leases import (
    Leases,
    all_leases,
    clock,
    disk_full,
    mark_redelivered,
    short_client,
)
from tasks.broker.redis.priorities import list_of
from tasks.broker.redis.scripts import CLAIM, HELD, LEASES, RESTORE
from tasks.broker.task_message import context_of, identity, request_of
from tasks.contracts import Untyped
from tasks.message_headers import LAPSES, UNBEGUN
from tasks.settings import get_settings
from tasks.worker import fencing

logger = get_logger(__name__)

#: Seconds between two rounds.
_INTERVAL_SECONDS = 1.0
#: How much longer a lease lasts, in seconds, in a pool whose tasks may block every thread.
GREEN_SECONDS = 3_540.0
#: Keys, and lease in seconds, of workers that renew nothing: older releases and other programs.
_FOREIGN = ("unacked", "unacked_index", 3_600.0)
_FOREIGN_EVERY_SECONDS = 60.0
#: How many workers may die while they hold a message whose task has not begun. A waiting message is
#: lost together with its neighbour's worker, so these deaths do not count as its own deliveries.
#: But a message that ends each worker that reads it must not do so forever.
_MOST_UNBEGUN = 50


class LapsedLeases:
    """Finds leases that nobody renews, and redelivers or buries their messages.

    A lease has lapsed when two conditions hold. This process has seen it unchanged for its whole
    length without a gap in its own observation, and the lease is that old by Redis's clock too. The
    first condition makes a stepped clock and an outage of Redis harmless: after either, everybody
    has a whole lease to renew. The second allows longer leases.
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
        self._told: set[str] = set()
        self._claim = self._client.register_script(CLAIM)
        self._restore = self._client.register_script(RESTORE)
        self._results_client: Untyped = None

    def forget(self) -> None:
        """Start the observation anew: what happened in between is unknown."""
        self._seen.clear()

    def sweep(self) -> None:
        """Check all leases once; redeliver or bury the messages of those that have lapsed.

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
        if now - self._foreign_at >= _FOREIGN_EVERY_SECONDS:
            self._foreign_at = now
            self._foreign(server_now)

    def _lapsed(self, tag: str, score: float) -> None:
        """Redeliver one message, or give it up; an error in it affects no other."""
        try:
            stored = cast("str | None", self._client.hget(HELD, tag))
            if stored is None:
                self._client.zrem(LEASES, tag)
                return
            item, queue = record_of(tag, stored)
        except (RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - anything may be stored there
            verdict = Refused(f"what is held under its tag is no record: {error}")
            self._refuse(tag, score, "?", stored or "", verdict)
            return
        try:
            message = read(_bytes(item), tag)
            self._deliver_again(tag, score, queue, message)
        except (RedisError, OSError):
            raise
        except Refused as refused:
            self._refuse(tag, score, queue, item, refused)
        except Exception as error:
            logger.exception("leases: message %s", tag)
            verdict = Refused(f"it cannot be delivered again: {type(error).__name__}: {error}")
            self._refuse(tag, score, queue, item, verdict)

    def _deliver_again(self, tag: str, score: float, queue: str, message: dict[str, Any]) -> None:
        headers = message["headers"]
        try:
            began = self._began(tag, message)
        except (RedisError, OSError) as error:
            logger.debug("leases: the result store does not answer: %s", error)
            return  # the next round follows soon
        counter, most = (LAPSES, self._max_deliveries) if began else (UNBEGUN, _MOST_UNBEGUN)
        waits = began is None
        deliveries = _count(headers.get(counter)) + (0 if waits else 1)
        task_id, name = identity(message)
        what = f"{name or '?'}[{task_id or tag}]"
        if deliveries >= most:
            if self._claim(keys=[LEASES], args=[tag, f"{score:.6f}"]):
                logger.error("%s: given up, its worker died %d times", what, deliveries)
                # In its own thread: storing a result may wait as long as the result store is
                # unavailable.
                arguments = (tag, queue, message, deliveries)
                threading.Thread(target=self._bury, args=arguments, daemon=True).start()
            return
        if not waits:
            headers[counter] = deliveries
        mark_redelivered(message)
        # The new tag shows a former holder that it no longer holds the message. Our fetch makes a
        # new tag anyway, but a worker of an older release, during an update, uses the one in the
        # message.
        message["properties"]["delivery_tag"] = str(uuid.uuid4())
        try:
            text = written(message)
        except Refused as refused:
            refused.task_id, refused.context = task_id, request_of(message)
            raise
        keys = [HELD, LEASES, list_of(queue, message)]
        if self._restore(keys=keys, args=[tag, text, "right", f"{score:.6f}"]):
            count = f"{deliveries + 1} of {most}" if began else "it had not begun"
            logger.warning("%s: its worker is gone, delivered again (%s)", what, count)

    def _began(self, tag: str, message: dict[str, Any]) -> bool | None:
        """Return whether a task began in the delivery that has lapsed; None: it was not due yet.

        A task stores its start, with its delivery tag, before any of its code runs. The stored
        record is read before the clock is: the clock of its worker may be ahead of this one. A task
        that stores no start counts as begun once it was due.

        Raises:
            redis.exceptions.RedisError: the result store does not answer.
        """
        later = is_due_later(message)
        task_id, name = identity(message)
        task = self._app.tasks.get(name)
        ignored = message["headers"].get("ignore_result")
        if ignored is None:
            ignored = getattr(task, "ignore_result", False)
        if task_id is None or ignored or not getattr(task, "track_started", True):
            return None if later else True
        try:
            found = json.loads(self._results().get(self._app.backend.get_key_for_task(task_id)))
        except (TypeError, ValueError):  # no record, or not one of ours
            found = None
        # A record of another delivery says nothing about this one.
        if isinstance(found, dict) and found.get("celray_tag") == tag:
            return True
        return None if later else False

    def _results(self) -> Untyped:
        """Return a client of the result store with short time limits."""
        if self._results_client is None:
            self._results_client = short_client(dict(self._app.backend.connparams), self._seconds)
        return self._results_client

    def _refuse(self, tag: str, score: float, queue: str, item: str, refused: Refused) -> None:
        # Never block here: without renewed leases this worker's tasks would run twice. The next
        # round is soon.
        if self._leases.refusals.busy():
            return
        if self._claim(keys=[LEASES], args=[tag, f"{score:.6f}"]):
            self._leases.refuse(tag, queue, _bytes(item), refused)

    def _bury(self, tag: str, queue: str, message: dict[str, Any], deliveries: int) -> None:
        reason = f"its worker died in each of {deliveries} deliveries"
        try:
            if self._tell(tag, message, reason):
                dead_letters.bury(self._client, tag, (queue, message), reason, deliveries)
            else:
                self._leases.ack(tag)
        except (RedisError, OSError) as error:
            logger.warning("cannot bury %s now, it is tried again: %s", tag, error)
        except Exception:
            logger.exception("cannot bury %s now, it is tried again", tag)

    def _tell(self, tag: str, message: dict[str, Any], reason: str) -> bool:
        """Store the failure and notify others. Return False if the task has succeeded.

        Errors in the notification are logged only. The sender chooses whom to notify: an errback's
        queue need not exist, and another attempt would call the other errbacks again, without end.
        """
        try:
            return record_failure(self._app, message, reason)
        except (RedisError, OSError):
            raise
        except Exception:
            logger.exception("%s: not everybody could be notified that it was given up", tag)
            return True

    def _foreign(self, server_now: float) -> None:
        """Redeliver messages that a worker without leases has held for an hour.

        A message that cannot be read belongs to another program and stays there; it is logged once.
        """
        held, index, seconds = _FOREIGN
        unread: dict[str, Exception] = {}
        try:
            old = cast("list[str]", self._client.zrangebyscore(index, 0, server_now - seconds))
            for tag in old:
                stored = cast("str | None", self._client.hget(held, tag))
                if stored is None:
                    self._client.zrem(index, tag)
                    continue
                try:
                    item, queue = record_of("", stored)
                    message = read(_bytes(item), tag)
                    mark_redelivered(message)
                    text = written(message)
                except Exception as error:  # noqa: BLE001 - anything may be stored there
                    unread[tag] = error
                    continue
                keys = [held, index, list_of(queue, message)]
                self._restore(keys=keys, args=[tag, text, "right", ""])
        except ResponseError as error:
            if disk_full(error):
                raise
            unread["?"] = error  # a key of another type; Redis itself works
        new = sorted(unread.keys() - self._told)
        self._told = set(unread)
        if new:
            logger.warning(
                "%d messages that older workers hold in %s cannot be read, and stay there "
                "(docs/troubleshoot.md says how to remove them); the first, %s: %s",
                len(new),
                held,
                new[0],
                str(unread[new[0]])[:MOST_REASON_CHARACTERS],
            )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def is_due_later(message: dict[str, Any]) -> bool:
    """Return whether a task has an ETA that is still to come."""
    eta = message["headers"].get("eta")
    if "task" not in message["headers"]:
        try:
            payload = payload_of(message)
        except Refused:
            return False
        eta = payload.get("eta") if isinstance(payload, dict) else None
    return eta is not None and is_to_come(eta)


def is_to_come(eta: object) -> bool:
    """Return whether an ETA is a date, and still to come."""
    try:
        moment = maybe_iso8601(eta)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return bool(aware > datetime.now(UTC))
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return False


def record_failure(app: Celery, message: dict[str, Any], reason: str) -> bool:
    """Store FAILURE for a task that nobody will run any more. Return False if it has succeeded.

    Its chord and its errbacks are notified too.
    """
    task_id, name = identity(message)
    if not task_id:
        return True
    if app.backend.get_state(task_id) == SUCCESS:
        return False
    context = {**request_of(message), "id": task_id, "task": name}
    text = f"{reason}; see: celray dead show {task_id}"
    app.backend.mark_as_failure(task_id, WorkerLostError(text), request=Context(context))
    return True


def answer_refusal(app: Celery, refused: Refused) -> None:
    """Store FAILURE for a task whose message was refused, and notify whoever waits for it.

    A stored success stays: the sender chooses the id.
    """
    if not refused.task_id or app.backend.get_state(refused.task_id) == SUCCESS:
        return
    error = InvalidTaskError(f"its message was refused: {refused.reason}")
    request = Context(context_of(refused))
    app.backend.mark_as_failure(refused.task_id, error, request=request)
    if request.group and not request.chord:
        # Each part of a chord holds the chord's body, and the finished parts have stored it.
        request.chord = app.backend.body_of(request.group)
        app.backend.on_chord_part_return(request, FAILURE, error)


class LeaseKeeper:
    """The lease keeper's thread, for the leases of one worker."""

    def __init__(self, app: Celery, pool: Untyped, seconds: float, max_deliveries: int) -> None:
        self._app = app
        self._pool = pool
        self._seconds = seconds
        self._max_deliveries = max_deliveries
        self._ended = threading.Event()
        self._renewed_at = 0.0
        self._lapsed_leases: dict[int, LapsedLeases] = {}
        self._interval_seconds = min(_INTERVAL_SECONDS, seconds / 10)
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        if not self._thread.is_alive():
            self._thread.start()

    def end(self) -> None:
        """Stop the thread, and acknowledge finished messages if Redis answers."""
        self._ended.set()
        for leases in all_leases():
            leases.has_lease_keeper = False
            leases.flush()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            for leases in all_leases():
                try:
                    self._keep(leases)
                except Exception:
                    logger.exception("leases: an error in the lease keeper")
            safe_at = min((leases.safe_at for leases in all_leases()), default=0.0)
            fencing.holds_until(safe_at + self._fencing_seconds)

    def _keep(self, leases: Leases) -> None:
        lapsed = self._lapsed_leases.get(id(leases))
        if lapsed is None:
            lapsed = LapsedLeases(self._app, leases, self._seconds, self._max_deliveries)
            self._lapsed_leases[id(leases)] = lapsed
            leases.has_lease_keeper = True
        try:
            if leases.away or clock() - self._renewed_at >= self._seconds / 3:
                lost = leases.renew()
                self._renewed_at = clock()
                if lost:
                    self._die(leases, f"{len(lost)} of its tasks are no longer its own")
            leases.flush()
            leases.give_back_owed()
            lapsed.sweep()
        except (RedisError, OSError) as error:
            leases.away = True
            lapsed.forget()
            logger.debug("leases: Redis does not answer: %s", error)
        if leases.held and clock() - leases.safe_at > self._fencing_seconds:
            self._die(leases, f"Redis has not answered for {clock() - leases.safe_at:.0f} s")

    @property
    def _fencing_seconds(self) -> float:
        return 0.75 * self._seconds + max((le.extra_seconds for le in all_leases()), default=0.0)

    def _die(self, leases: Leases, why: str) -> None:
        """End this worker at once: another worker may be about to run the same tasks."""
        logger.critical("%s, and another worker may run them: this one ends now", why)
        for each in all_leases():
            each.ending = True
        fencing.kill(self._pool)
        if not leases.away:
            for tag in list(leases.held):
                leases.give_back(tag, first=True)
        fencing.end()


class LeaseKeeperStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Starts the lease keeper with the consumer; it runs on while the connection is lost."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Untyped, **kwargs: Untyped) -> None:
        super().__init__(consumer, **kwargs)
        self._keeper: LeaseKeeper | None = None

    def start(self, consumer: Untyped) -> None:
        """Start the lease keeper, once."""
        settings = get_settings()
        green = getattr(consumer.pool, "is_green", False)
        for leases in all_leases():
            leases.extra_seconds = GREEN_SECONDS if green else 0.0
        background_calls.begin()
        refusals.answer_with(partial(answer_refusal, consumer.app))
        if self._keeper is None:
            if green:
                logger.warning(
                    "this pool's tasks may keep the lease keeper from running: leases of %.0f s "
                    "instead of %d, so a lost worker's tasks come back that late; the prefork and "
                    "threads pools do not need this",
                    GREEN_SECONDS + settings.visibility_timeout_seconds,
                    settings.visibility_timeout_seconds,
                )
            self._keeper = LeaseKeeper(
                consumer.app,
                consumer.pool,
                settings.visibility_timeout_seconds,
                settings.max_deliveries,
            )
        self._keeper.start()

    def stop(self, consumer: Untyped) -> None:
        """Do nothing: the lease keeper matters most when the connection is lost."""

    def shutdown(self, consumer: Untyped) -> None:  # noqa: ARG002 - the bootstep's signature
        """Stop keeping."""
        if self._keeper is not None:
            self._keeper.end()
