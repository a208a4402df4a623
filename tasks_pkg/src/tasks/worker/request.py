"""Celery's request, with a dead letter for a task that killed its process too often."""

from typing import Any

from celery import signals
from celery.exceptions import WorkerLostError
from celery.utils.log import get_logger
from celery.worker.request import Request as CeleryRequest
from redis.exceptions import RedisError

from tasks.broker.redis import dead_letters
from tasks.broker.redis.leases import Leases, all_leases
from tasks.contracts import Untyped
from tasks.message_headers import LAPSES

logger = get_logger(__name__)


class Request(CeleryRequest):  # type: ignore[misc]  # celery has no types
    """One task in the worker's main process."""

    def on_failure(
        self, exc_info: Untyped, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Also store a dead letter for a task that lost its process for the last time."""
        tag = self.message.delivery_tag
        leases = next((le for le in all_leases() if tag in le.held), None)
        queue, message = leases.held[tag] if leases is not None else ("", None)
        lost: list[BaseException] = []

        def note(task_id: str = "", exception: BaseException | None = None, **_: object) -> None:
            # Celery sends this signal for a lost process only when it will not try again.
            if task_id == self.id and isinstance(exception, WorkerLostError):
                lost.append(exception)

        signals.task_failure.connect(note, weak=False)
        try:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        finally:
            signals.task_failure.disconnect(note)
        if lost and leases is not None and message is not None:
            self._bury(leases, (queue, message), str(lost[0]))

    def _bury(self, leases: Leases, held: tuple[str, dict[str, Any]], why: str) -> None:
        headers = held[1].get("headers") or {}
        deliveries = 1 + int(headers.get("retries") or 0) + int(headers.get(LAPSES) or 0)
        reason = f"it lost its process in each of {deliveries} deliveries: {why}"
        try:
            dead_letters.bury(leases.client, self.message.delivery_tag, held, reason, deliveries)
        except (RedisError, OSError) as error:
            logger.warning("%s[%s]: no dead letter was stored: %s", self.name, self.id, error)
