"""Celery's Redis result store; it works while Redis is full and waits while Redis is unavailable.

A full Redis (``noeviction``) refuses submitters. Workers may use a reserve above ``maxmemory``, so
that accepted tasks end with their results and the queues become shorter (ADR 0023). While the disk
of Redis is full, everybody waits. A state is stored in one round trip (ADR 0019).
"""

from functools import cached_property, partial

from celery.backends.redis import (
    CHORD_CLAIM_EXTEND_LUA,
    CHORD_CLEANUP_LUA,
    CHORD_PART_RETURN_LUA,
    RedisBackend,
)
from celery.exceptions import BackendStoreError, NotRegistered, TaskRevokedError
from celery.states import FAILURE, REVOKED, STARTED, SUCCESS
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import OutOfMemoryError

from tasks import background_calls
from tasks.broker import sizes
from tasks.broker.envelope import MOST_BYTES
from tasks.broker.redis import revocations
from tasks.broker.redis.leases import disk_full
from tasks.broker.redis.scripts import (
    CHORD,
    STATE,
    STATE_WITHIN_RESERVE,
    STORE,
    SUCCEEDED,
    within_reserve,
)
from tasks.contracts import Untyped
from tasks.results import deduplication, spool

#: The script's answers for a start that it has not stored.
_COPY = 1
_CANCELLED = 2


class ResultStore(RedisBackend):  # type: ignore[misc]  # celery has no types
    """Retries a refused write until Redis takes it, with ``result_backend_always_retry``.

    Otherwise a task whose start could not be stored would fail, and its failure could not be stored
    either.
    """

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return whether a write that failed with this error may be repeated."""
        full = isinstance(exc, OutOfMemoryError) or disk_full(exc)
        return full or bool(super().exception_safe_to_retry(exc))

    def mark_as_done(
        self,
        task_id: Untyped,
        result: Untyped,
        request: Untyped = None,
        store_result: bool = True,
        state: str = SUCCESS,
    ) -> None:
        """Store a success, and notify its chord; spool it on disk if that takes long."""
        with spool.spooled(task_id, result, request):
            super().mark_as_done(task_id, result, request, store_result, state)

    def store_success(self, task_id: str, result: Untyped, request: Untyped) -> None:
        """Store a success from the spool, and notify its chord."""
        super().mark_as_done(task_id, result, request)

    def _store_result(
        self,
        task_id: Untyped,
        result: Untyped,
        state: str,
        traceback: Untyped = None,
        request: Untyped = None,
        **_: object,
    ) -> Untyped:
        """Store a state in one step, unless a success is stored already.

        Celery reads the stored state, decodes it, and writes and publishes in a transaction. That
        takes two round trips for STARTED and two for the result, and overwrites another process's
        success that is stored in between.
        """
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        stamp = deduplication.stamp(request, state)
        meta |= stamp
        value = sizes.encoded(meta, self.encode)
        if len(value) > MOST_BYTES:
            message = (
                f"a result of {sizes.mib(len(value))} is not kept, at most {sizes.mib(MOST_BYTES)} "
                "is: write it into a file and return its path"
            )
            raise BackendStoreError(message, state=state, task_id=task_id)
        seconds = self.failure_expires if state == FAILURE else self.expires
        task = self.app.tasks.get(getattr(request, "task", None))
        asked = deduplication.asked(request, state, stamp, late=getattr(task, "acks_late", False))
        begins = meta["task_id"] if state == STARTED and request is not None else ""
        arguments = [value, int(seconds or 0), SUCCEEDED, *asked, begins]
        keys = [self.get_key_for_task(task_id), revocations.KEY]
        verdict = self.ensure(self._store_state, (keys, arguments))
        if verdict == _COPY:
            deduplication.note(request)
        elif verdict == _CANCELLED:
            revocations.note(request)
        return result

    def mark_as_revoked(
        self,
        task_id: Untyped,
        reason: str = "",
        request: Untyped = None,
        store_result: bool = True,
        state: str = REVOKED,
    ) -> None:
        """Store that a task was cancelled, and notify all that wait for it.

        Celery notifies only its chord; the rest of a chain would wait forever.
        """
        super().mark_as_revoked(task_id, reason, request, store_result, state)
        if request is None:
            return
        error = TaskRevokedError(reason)
        self._fail_chain(getattr(request, "chain", None), error, state=state)
        if getattr(request, "errbacks", None):
            self._call_task_errbacks(request, error, None)

    def _call_task_errbacks(self, request: Untyped, exc: Untyped, traceback: Untyped) -> None:
        """Publish errbacks; call those that Celery calls in place in a thread beside the loop.

        Celery calls an errback with more parameters than a task id where it records the failure.
        For a task that never began (expired, cancelled, unknown, refused, given up) that is the
        worker's main process, which would send no heartbeat while the errback runs.
        """
        if not background_calls.wanted():
            super()._call_task_errbacks(request, exc, traceback)
            return
        called = [errback for errback in request.errbacks if self._is_called(errback)]
        others = [errback for errback in request.errbacks if errback not in called]
        for errback in called:
            one = _WithErrbacks(request, [errback])
            what = f"errback {errback.get('task')} of task {request.id}"
            background_calls.call(what, partial(super()._call_task_errbacks, one, exc, traceback))
        if others:
            super()._call_task_errbacks(_WithErrbacks(request, others), exc, traceback)

    def _is_called(self, errback: Untyped) -> bool:
        """Return whether Celery calls an errback in place, by Celery's own rule."""
        signature = self.app.signature(errback)
        try:
            header = getattr(signature.type, "__header__", None)
        except NotRegistered:
            return False
        if header is None or isinstance(header, partial):
            return False
        return bool(self._errback_arity_greater(signature, 1))

    def on_chord_part_return(
        self,
        request: Untyped,
        state: str,
        result: Untyped,
        propagate: Untyped = None,
        **kwargs: Untyped,
    ) -> None:
        """Count a finished part of a chord, and run the body after the last.

        A refused part knows only its group, so each part stores the body for the others. Clients
        before Celery 5.1 do not store the number of parts but write it into each part.
        """
        group, chord = getattr(request, "group", None), getattr(request, "chord", None)
        if group and chord:
            size = chord.get("chord_size")
            keys = [self._body_key(group), self.get_key_for_group(group, ".s")]
            known = size if isinstance(size, int) and not isinstance(size, bool) else 0
            body = self.encode(dict(chord))
            if len(body) > MOST_BYTES:  # larger than a message; Redis took it compressed
                # Only a refused part needs the body, to fail it; that takes no arguments.
                body = self.encode({**chord, "args": [], "kwargs": {}})
            if len(body) <= MOST_BYTES:
                self.ensure(self._leave_body, (keys, [body, known, int(self.chord_expires or 0)]))
        super().on_chord_part_return(request, state, result, propagate=propagate, **kwargs)

    def _leave_body(self, keys: list[Untyped], arguments: list[Untyped]) -> None:
        self._chord_script(keys=keys, args=arguments, client=self.client)

    @cached_property
    def _chord_script(self) -> Untyped:
        return self.client.register_script(within_reserve(CHORD))

    def body_of(self, group: str) -> dict[str, Untyped] | None:
        """Return the body of a chord of which a part has already ended."""
        found = self.client.get(self._body_key(group))
        return None if found is None else dict(self.decode(found))

    def _body_key(self, group: str) -> Untyped:
        return self.get_key_for_group(group, ".body")

    def _store_state(self, keys: list[Untyped], arguments: list[Untyped]) -> Untyped:
        try:
            return self._state_script(keys=keys, args=arguments, client=self.client)
        except OutOfMemoryError:
            script = self._state_script_within_reserve
            return script(keys=keys, args=arguments, client=self.client)

    @cached_property
    def _state_script(self) -> Untyped:
        return self.client.register_script(STATE)

    @cached_property
    def _state_script_within_reserve(self) -> Untyped:
        return self.client.register_script(STATE_WITHIN_RESERVE)

    def _set(self, key: str, value: str, expires: int | None = None) -> None:
        try:
            super()._set(key, value, expires)
        except OutOfMemoryError:
            seconds = self.expires if expires is None else expires
            self._store_script(keys=[key], args=[seconds or 0, value], client=self.client)

    @cached_property
    def _store_script(self) -> Untyped:
        return self.client.register_script(STORE)

    @cached_property
    def _chord_part_return_script(self) -> Untyped:
        return self.client.register_script(within_reserve(CHORD_PART_RETURN_LUA))

    @cached_property
    def _chord_cleanup_script(self) -> Untyped:
        return self.client.register_script(within_reserve(CHORD_CLEANUP_LUA))

    @cached_property
    def _chord_claim_extend_script(self) -> Untyped:
        return self.client.register_script(within_reserve(CHORD_CLAIM_EXTEND_LUA))


class _WithErrbacks:
    """A request with only some of its errbacks."""

    def __init__(self, request: Untyped, errbacks: list[Untyped]) -> None:
        self._request = request
        self.errbacks = errbacks

    def __getattr__(self, name: str) -> Untyped:
        return getattr(self._request, name)
