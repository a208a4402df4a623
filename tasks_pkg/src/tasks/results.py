"""Celery's Redis result store, which goes on while Redis is full and waits while it is away.

A full Redis (``noeviction``) refuses submitters. Workers may use a reserve above ``maxmemory``, so
that what was accepted ends with its result, and the queues become shorter (ADR 0023). While its
disk is full, everybody waits. A state is stored in one round trip (ADR 0019).
"""

from functools import cached_property

from celery.backends.redis import (
    CHORD_CLAIM_EXTEND_LUA,
    CHORD_CLEANUP_LUA,
    CHORD_PART_RETURN_LUA,
    RedisBackend,
)
from celery.exceptions import BackendStoreError
from celery.states import FAILURE, SUCCESS
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import OutOfMemoryError

from tasks import duplicates, outcomes
from tasks.broker.leases import disk_full
from tasks.broker.scripts import STATE, STATE_WITHIN_RESERVE, STORE, SUCCEEDED, within_reserve
from tasks.contracts import Untyped


class ResultStore(RedisBackend):  # type: ignore[misc]  # celery has no types
    """With ``result_backend_always_retry``, a refused write is tried again until it is taken.

    Otherwise a task that could not say that it had started would fail, and its failure could not
    be stored either.
    """

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Say whether a write that failed so may be repeated."""
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
        """Store a success, and tell its chord; kept on disk meanwhile if that takes long."""
        with outcomes.kept(task_id, result, request):
            super().mark_as_done(task_id, result, request, store_result, state)

    def store_success(self, task_id: str, result: Untyped, request: Untyped) -> None:
        """Store a success that was kept on disk, and tell its chord."""
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
        """Store a state, unless a success is there; in one step.

        Celery reads what is there, decodes it, and writes and publishes in a transaction: two
        round trips for STARTED and two for the result, and another's success in between is
        overwritten.
        """
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        stamp = duplicates.stamp(request, state)
        meta |= stamp
        value = self.encode(meta)
        if len(value) > self._MAX_STR_VALUE_SIZE:
            message = "value too large for Redis backend"
            raise BackendStoreError(message, state=state, task_id=task_id)
        seconds = self.failure_expires if state == FAILURE else self.expires
        task = self.app.tasks.get(getattr(request, "task", None))
        asked = duplicates.asked(request, state, stamp, late=getattr(task, "acks_late", False))
        arguments = [value, int(seconds or 0), SUCCEEDED, *asked]
        if self.ensure(self._store_state, (self.get_key_for_task(task_id), arguments)):
            duplicates.note(request)
        return result

    def _store_state(self, key: Untyped, arguments: list[Untyped]) -> Untyped:
        try:
            return self._state_script(keys=[key], args=arguments, client=self.client)
        except OutOfMemoryError:
            script = self._state_script_within_reserve
            return script(keys=[key], args=arguments, client=self.client)

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
