"""Celery's Redis result store, which goes on while Redis is full and waits while it is away.

A full Redis (``noeviction``) refuses submitters. Workers may use a reserve above ``maxmemory``, so
that what was accepted ends with its result, and the queues become shorter (ADR 0023).
"""

from functools import cached_property

from celery.backends.redis import (
    CHORD_CLAIM_EXTEND_LUA,
    CHORD_CLEANUP_LUA,
    CHORD_PART_RETURN_LUA,
    RedisBackend,
)
from redis.exceptions import OutOfMemoryError

from tasks.broker.scripts import STORE, within_reserve
from tasks.contracts import Untyped


class ResultStore(RedisBackend):  # type: ignore[misc]  # celery has no types
    """With ``result_backend_always_retry``, a refused write is tried again until it is taken.

    Otherwise a task that could not say that it had started would fail, and its failure could not
    be stored either.
    """

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Say whether a write that failed so may be repeated."""
        return isinstance(exc, OutOfMemoryError) or bool(super().exception_safe_to_retry(exc))

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
