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
from tasks.broker.envelope import MOST_REASON, Refused, payload_of, read, record_of, written
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

#: Seconds between two looks.
_LOOK = 1.0
#: How much longer a lease is held under a pool whose tasks may stop every thread.
GREEN_SECONDS = 3_540.0
#: Keys and lease of workers that renew nothing: older releases, and other people's.
_FOREIGN = ("unacked", "unacked_index", 3_600.0)
_FOREIGN_EVERY = 60.0
#: So many workers may die with a message whose task has not begun. One that waits for its turn dies
#: with a neighbour's worker, so these do not count as its own deliveries; one that ends each worker
#: as it is read must not do so for ever.
_MOST_UNBEGUN = 50


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
        self._told: set[str] = set()
        self._claim = self._client.register_script(CLAIM)
        self._restore = self._client.register_script(RESTORE)
        self._results_client: Untyped = None

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
        """Deliver one message again, or give it up; what is wrong with it concerns no other."""
        try:
            stored = cast("str | None", self._client.hget(HELD, tag))
            if stored is None:
                self._client.zrem(LEASES, tag)
                return
            item, queue = record_of(tag, stored)
        except (RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever stands there, it is no record
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
            return  # the next look is soon
        counter, most = (LAPSES, self._max_deliveries) if began else (UNBEGUN, _MOST_UNBEGUN)
        waits = began is None
        deliveries = _count(headers.get(counter)) + (0 if waits else 1)
        task_id, name = identity(message)
        what = f"{name or '?'}[{task_id or tag}]"
        if deliveries >= most:
            if self._claim(keys=[LEASES], args=[tag, f"{score:.6f}"]):
                logger.error("%s: given up, its worker died %d times", what, deliveries)
                # Beside the keeper: writing a result may wait as long as its Redis is away.
                arguments = (tag, queue, message, deliveries)
                threading.Thread(target=self._bury, args=arguments, daemon=True).start()
            return
        if not waits:
            headers[counter] = deliveries
        mark_redelivered(message)
        # A new tag: a holder that comes back sees that it is no longer the holder. Our fetch makes
        # one anyway; a worker of an older release, beside us in an update, takes the message's own.
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
        """Tell whether a task has begun in the delivery that has lapsed; None: it was not due yet.

        A task that begins stores that it has, with its tag, before anything of it runs. What is
        stored is asked before the clock: its worker's may be ahead of this one. A task that stores
        no start is taken to have begun when it was due.

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
        except (TypeError, ValueError):  # no record, or none of ours
            found = None
        # A record of another delivery says nothing of this one.
        if isinstance(found, dict) and found.get("celray_tag") == tag:
            return True
        return None if later else False

    def _results(self) -> Untyped:
        """Return a client of the result store that does not wait long."""
        if self._results_client is None:
            self._results_client = short_client(dict(self._app.backend.connparams), self._seconds)
        return self._results_client

    def _refuse(self, tag: str, score: float, queue: str, item: str, refused: Refused) -> None:
        # Never wait here: who renews no lease has its tasks run twice. The next look is soon.
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
        """Record the failure; False: the task has ended well. What goes wrong with others is told.

        Whom a failure is told is its sender's choice: an errback's queue need not exist, and to try
        again would call the other errbacks again, without end.
        """
        try:
            return record_failure(self._app, message, reason)
        except (RedisError, OSError):
            raise
        except Exception:
            logger.exception("%s: not all can be told that it was given up", tag)
            return True

    def _foreign(self, server_now: float) -> None:
        """Deliver again what a worker without leases has held for an hour.

        What cannot be read is another program's, and stays there; it is told once.
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
                except Exception as error:  # noqa: BLE001 - whatever stands there
                    unread[tag] = error
                    continue
                keys = [held, index, list_of(queue, message)]
                self._restore(keys=keys, args=[tag, text, "right", ""])
        except ResponseError as error:
            if disk_full(error):
                raise
            unread["?"] = error  # a key of another type: Redis is there all the same
        new = sorted(unread.keys() - self._told)
        self._told = set(unread)
        if new:
            logger.warning(
                "%d messages that older workers hold in %s cannot be read, and stay there "
                "(docs/troubleshoot.md says how to remove them); the first, %s: %s",
                len(new),
                held,
                new[0],
                str(unread[new[0]])[:MOST_REASON],
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
    try:
        moment = maybe_iso8601(eta)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return bool(aware > datetime.now(UTC))
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return False


def record_failure(app: Celery, message: dict[str, Any], reason: str) -> bool:
    """Return a task that nobody will run any more its FAILURE; False: it has succeeded already.

    Chords and errbacks learn of it too.
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
    """Give a task whose message was refused its FAILURE; whoever waits for it learns of it too.

    A success that is there stays: the id is its sender's choice.
    """
    if not refused.task_id or app.backend.get_state(refused.task_id) == SUCCESS:
        return
    error = InvalidTaskError(f"its message was refused: {refused.reason}")
    request = Context(context_of(refused))
    app.backend.mark_as_failure(refused.task_id, error, request=request)
    if request.group and not request.chord:
        # The body of a chord stands in each part's body; the other parts have left it.
        request.chord = app.backend.body_of(request.group)
        app.backend.on_chord_part_return(request, FAILURE, error)


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
            fencing.holds_until(safe_at + self._fence)

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
            leases.give_back_owed()
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
        for each in all_leases():
            each.ending = True
        fencing.kill(self._pool)
        if not leases.away:
            for tag in list(leases.held):
                leases.give_back(tag, first=True)
        fencing.end()


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
        background_calls.begin()
        refusals.answer_with(partial(answer_refusal, consumer.app))
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
