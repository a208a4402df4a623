"""Celery's Redis result store, which waits while Redis is full as it does while Redis is away."""

from celery.backends.redis import RedisBackend
from redis.exceptions import OutOfMemoryError


class ResultStore(RedisBackend):  # type: ignore[misc]  # celery has no types
    """With ``result_backend_always_retry``, a refused write is tried again until it is taken.

    Otherwise a task that could not say that it had started would fail, and its failure could not
    be stored either.
    """

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Say whether a write that failed so may be repeated."""
        return isinstance(exc, OutOfMemoryError) or bool(super().exception_safe_to_retry(exc))
