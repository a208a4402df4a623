"""Celery's consumer, with batched events and with work that outlives a lost connection."""

import time
from collections import ChainMap
from functools import partial
from typing import Any

from celery.app.task import Context
from celery.exceptions import NotRegistered
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.utils.json import dumps
from redis import Redis
from redis.exceptions import DataError, RedisError

from tasks import code_version
from tasks.broker.envelope import Refused, is_name, require_shallow
from tasks.broker.redis.leases import all_leases
from tasks.broker.task_message import check, is_naive, request_of
from tasks.contracts import Untyped
from tasks.message_headers import PASSED_ON
from tasks.settings import get_settings
from tasks.worker.lease_keeper import is_to_come
from tasks.worker.waiting import WaitingTasks

logger = get_logger(__name__)

#: How long events gather before they are sent together, in seconds.
_GATHER_SECONDS = 0.1
#: Pauses between attempts to reach a lost broker, in seconds: the first, and all later ones.
_LOOK_AGAIN = {"interval_start": 1, "interval_step": 3, "interval_max": 4}
#: Errors that kombu and redis-py count as connection errors but whose cause is the message: a queue
#: or a kind of signature that does not exist, or a value of the wrong type.
_OF_MESSAGES = (KeyError, DataError)
#: How often an old worker passes on a task that it does not know, and the pause before each time in
#: seconds: long enough for workers with newer code to take it first.
_PASSES = 10
_PASS_AFTER_SECONDS = 1.0


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types
    """Sends events in batches, a moment later.

    Celery publishes each event at the loop's next turn, before the task that caused it reaches
    a child process; measured in one run, that made a ping's round trip 0.9 ms (8 %) longer.
    Flower shows a task 0.1 s later instead.

    When the connection is lost, Celery requeues all messages that it holds, and forgets those that
    its pool has not begun: tasks that child processes run would run twice. This consumer keeps what
    was given to the pool.

    Celery tries a lost broker less and less often, finally every 30 s; this consumer every 4 s.

    Celery fails a task that it does not know. So does this consumer, unless its own code is out of
    date. Then another worker may know the task. Failing a task is quicker than running one, so a
    single old worker among new ones would otherwise fail most of them.
    """

    def __init__(self, *args: Untyped, **kwargs: Untyped) -> None:
        self._flush_at = 0.0
        self._began_at = time.time()
        self._waiting = WaitingTasks()
        super().__init__(*args, **kwargs)

    def ensure_connected(self, conn: Untyped) -> Untyped:
        """Try the broker until it answers; Celery has no setting for how often."""
        conn.ensure_connection = partial(conn.ensure_connection, **_LOOK_AGAIN)
        return super().ensure_connected(conn)

    def on_send_event_buffered(self) -> None:
        """Schedule one flush for all events that gather until then.

        Compare times, not a flag: a lost connection may drop the scheduled call.
        """
        now = time.monotonic()
        if self.hub and now >= self._flush_at:
            self._flush_at = now + _GATHER_SECONDS
            self.timer.call_after(_GATHER_SECONDS, self._flush_events)

    def shutdown(self) -> None:
        """Send the gathered events, then stop."""
        self._flush_events()
        super().shutdown()

    def create_task_handler(self, *args: Untyped, **kwargs: Untyped) -> Untyped:
        """Check each message before Celery reads it; an error in one affects no other."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Untyped) -> None:
            try:
                payload = _payload(message)
                check(message.headers, payload)
                _warn_of_local_times(message.headers, payload)
                self._require_room(message, payload)
                handle(message)
            except Refused as refused:
                refused.task_id = refused.task_id or _known(message)[0]
                self._refuse(message, refused)
            except Exception as error:
                if isinstance(error, (RedisError, *self.connection_errors)) and not isinstance(
                    error, _OF_MESSAGES
                ):
                    raise
                if any(one.message is message for one in state.requests.values()):
                    raise  # the task has already begun; Celery handles the error
                if message.acknowledged:
                    logger.exception("an error after a message was handled")
                    return
                logger.exception("a message cannot be taken")
                reason = f"it cannot be taken: {type(error).__name__}: {error}"
                self._refuse(message, Refused(reason, *_known(message)))

        return on_task_received

    def _require_room(self, message: Untyped, payload: Untyped) -> None:
        """Refuse a message with an ETA that would not fit beside those that already wait."""
        fields = message.headers if "task" in message.headers else payload  # protocol 2, or 1
        eta = fields.get("eta")
        if eta is None or not is_to_come(eta):
            return
        held = ChainMap(*(leases.held for leases in all_leases()))
        try:
            self._waiting.add(message.delivery_tag, len(dumps(message._raw)), held)
        except Refused as refused:
            refused.context = request_of(message._raw)  # its chord and its errbacks are told too
            refused.task_id = refused.context.get("id")
            raise

    def _refuse(self, message: Untyped, refused: Refused) -> None:
        """Put a message aside; Redis forgets it once its dead letter is stored."""
        tag = message.delivery_tag
        item = dumps(message._raw).encode()
        leases = next((leases for leases in all_leases() if tag in leases.held), None)
        if leases is None:  # another process holds it already
            message.reject_log_error(logger, self.connection_errors)
            return
        queue, _ = leases.held[tag]
        leases.refuse(tag, queue, item, refused)
        # It no longer counts against the prefetch limit; its lease ends when it is put aside.
        message.channel.qos.forget(tag)
        message._state = "REJECTED"

    def on_unknown_message(self, body: Untyped, message: Untyped) -> None:  # noqa: ARG002
        """Refuse a message that is no task."""
        self._refuse(message, Refused("it is no task", *_known(message)))

    def on_decode_error(self, message: Untyped, exc: Exception) -> None:
        """Refuse a message that cannot be decoded."""
        self._refuse(message, Refused(f"it cannot be decoded: {exc}", *_known(message)))

    def on_invalid_task(self, body: Untyped, message: Untyped, exc: Exception) -> None:  # noqa: ARG002
        """Refuse a task that Celery cannot read."""
        self._refuse(message, Refused(f"it is no valid task: {exc}", *_known(message)))

    def on_unknown_task(self, body: Untyped, message: Untyped, exc: Exception) -> None:
        """Leave an unknown task to a worker with newer code, or fail it.

        The failure also reaches its chord and its errbacks. Celery only fails the task, and a chord
        would wait for it forever.
        """
        if self._pass_on(message):
            return
        super().on_unknown_task(body, message, exc)
        request = Context(request_of(message._raw))
        self.app.backend.mark_as_failure(request.id, NotRegistered(request.task), request=request)

    def _pass_on(self, message: Untyped) -> bool:
        """Give a message back after a pause if this worker's code is old; only so many times."""
        tag = message.delivery_tag
        leases = next((leases for leases in all_leases() if tag in leases.held), None)
        if leases is None:
            return False
        held = leases.held[tag][1]
        if held is None:
            return False
        headers = held["headers"]
        passed = headers.get(PASSED_ON, 0)
        if passed not in range(_PASSES) or not self._is_old(leases.client):
            return False
        headers[PASSED_ON] = passed + 1
        what = f"{headers.get('task')}[{headers.get('id')}]"
        logger.warning("%s is not known here, and is left to a worker of newer code", what)
        # As for an ETA: a waiting message takes no room from tasks that can run.
        self.qos.increment_eventually()
        self.timer.call_after(_PASS_AFTER_SECONDS, self._give_back, (message,))
        return True

    def _give_back(self, message: Untyped) -> None:
        message.reject_log_error(logger, self.connection_errors, requeue=True)
        self.qos.decrement_eventually()

    def _is_old(self, broker: Redis) -> bool:
        try:
            found = code_version.read(broker)
        except (RedisError, OSError):
            return True  # unknown; passing on is limited to `_PASSES` times anyway
        return code_version.judge(get_settings().code_version, self._began_at, found) == "old"

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Keep the pool's messages; the others return to their queues as the connection closes."""
        working = frozenset(request.message.delivery_tag for request in _in_pool())
        for leases in all_leases():
            leases.working = working
        try:
            super().on_connection_error_after_connected(exc)
        finally:
            for leases in all_leases():
                leases.working = frozenset()
        _watch_ended_children(self.pool)

    def on_close(self) -> None:
        """Forget only the messages that were given back."""
        going_on = _in_pool()
        pool: Untyped = self.pool
        self.pool: Untyped = None  # its `flush` drops what was sent to a child process
        try:
            super().on_close()
        finally:
            self.pool = pool
        for request in going_on:
            state.requests[request.id] = request
            state.reserved_requests.add(request)


def _watch_ended_children(pool: Untyped) -> None:
    """Let the next event loop watch pool processes that have ended and are not replaced yet.

    Celery stops to watch a process when it ends, and replaces it up to five seconds later. An event
    loop that begins meanwhile cannot watch what has no file descriptor, and its error ends the
    whole worker (celery#9250). Without the attribute, Celery takes the descriptor anew.
    """
    for process in getattr(getattr(pool, "_pool", None), "_pool", ()):
        if getattr(process, "_sentinel_poll", 0) is None:
            del process._sentinel_poll


def _warn_of_local_times(headers: dict[str, Any], payload: object) -> None:
    """Log a warning for a date without a time zone: its sender may have meant local time."""
    for fields in (headers, payload):
        if not isinstance(fields, dict):
            continue
        for name in ("eta", "expires"):
            if fields.get(name) is not None and is_naive(fields[name]):
                logger.warning(
                    "%s[%s]: its %s %s has no time zone and is taken as UTC; a client should have "
                    "enable_utc on (docs/submit.md)",
                    fields.get("task"),
                    fields.get("id"),
                    name,
                    fields[name],
                )


def _payload(message: Untyped) -> object:
    """Return a message's decoded body, the same object that Celery reads.

    Raises:
        Refused: it is not JSON, or nested too deep.
    """
    try:
        found: object = message.payload
        require_shallow(message.body, found)
    except Refused as refused:
        raise Refused(refused.reason, *_known(message)) from None
    except Exception as error:  # noqa: BLE001 - kombu's decoders raise what they like
        reason = f"its body cannot be decoded: {str(error)[:200]}"
        raise Refused(reason, *_known(message)) from None
    return found


def _known(message: Untyped) -> tuple[str | None, dict[str, Any]]:
    """Return a task's id and headers, where they can be read."""
    headers = message.headers
    for found in (headers.get("id"), message.properties.get("correlation_id")):
        if is_name(found):
            return found, headers
    return None, headers


def _in_pool() -> list[Untyped]:
    """Return the requests that a child process has, or is about to have."""
    known = {*state.reserved_requests, *state.active_requests}
    return [request for request in known if request._apply_result is not None]
