"""The short tasks of the default worker."""

import socket
import time
from dataclasses import asdict
from typing import Annotated

from annotated_types import Gt, Len
from celery import shared_task
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tasks.broker.redis.connection import connect
from tasks.contracts import InvalidArgumentsError, Untyped, validated
from tasks.maintenance import cleanup, notifications
from tasks.message_headers import PUBLISHED_AT
from tasks.operations import health
from tasks.settings import Settings, get_settings
from tasks.versions import versions

#: Time limit for one answer of the result store, in seconds.
_STORE_TIMEOUT_SECONDS = 10.0

#: Errors that are temporary and worth another attempt.
_TRANSIENT = (RedisConnectionError, RedisTimeoutError)


@shared_task(  # type: ignore[untyped-decorator]  # celery has no types
    name="tasks.simple_tasks.ping",
    bind=True,
    throws=(InvalidArgumentsError,),
    # It ends within a millisecond; storing STARTED first would take longer than the task.
    track_started=False,
    looks_for_cancellation=False,
)
@validated
def ping(self: Untyped) -> dict[str, object]:
    """Answer, and tell which worker answered.

    Returns:
        ``status`` ("pong"), ``worker`` (node name), ``host``, ``queue``, ``versions`` and
        ``queue_seconds``: from publishing to this start, by the clocks of both machines; None if
        the client does not stamp its messages, or if the clocks disagree.
    """
    started = time.time()
    request = self.request
    published = request.get(PUBLISHED_AT)
    waited = started - published if isinstance(published, int | float) else None
    return {
        "status": "pong",
        "worker": request.hostname,
        "host": socket.gethostname(),
        "queue": (request.delivery_info or {}).get("routing_key"),
        "queue_seconds": None if waited is None or waited < 0 else round(waited, 6),
        "versions": versions(),
    }


@shared_task(  # type: ignore[untyped-decorator]  # celery has no types
    name="tasks.simple_tasks.check_cluster_health", bind=True, throws=(InvalidArgumentsError,)
)
@validated
def check_cluster_health(self: Untyped) -> dict[str, object]:
    """Check Redis, queues, workers and Ray against the deployment's thresholds.

    Returns:
        :class:`tasks.operations.health.Verdict`: ``status`` (healthy, degraded, unhealthy),
        ``reasons``, ``cluster_data`` (``nodes``, ``available_cpus``, ...), ``redis``, ``results``,
        ``queues``, ``workers``, ``ray``. A part that is down is a reason, never an exception.
    """
    return health.check(self.app, get_settings()).model_dump(mode="json")


def _backoff(settings: Settings, retries: int) -> float:
    """Return the seconds until the next attempt: doubling, at most ten minutes."""
    return min(settings.notify_backoff_seconds * 2.0**retries, 600.0)


@shared_task(  # type: ignore[untyped-decorator]  # celery has no types
    name="tasks.simple_tasks.send_notification",
    bind=True,
    throws=(InvalidArgumentsError, notifications.ChannelError, notifications.DeliveryError),
)
@validated
def send_notification(
    self: Untyped, message: Annotated[str, Len(1, 16_384)], channel: str = "default"
) -> dict[str, object]:
    """Send ``message`` to a channel of the inventory, once per deduplication window.

    Args:
        self: the bound task.
        message: the text.
        channel: a name from ``celray_notify_channels`` of the inventory.

    Returns:
        ``status``, ``channel``, ``message``, and ``detail`` in words. The status is "sent",
        "duplicate" (the same message went to the same channel a moment ago) or "not_configured"
        (no such channel; ``detail`` says which there are and where to add one).

    Raises:
        DeliveryError: not delivered in ``notify_max_retries`` + 1 attempts.
        ChannelError: the channel's URL is wrong.
    """
    settings = get_settings()

    def result(status: str, detail: str) -> dict[str, object]:
        return {"status": status, "channel": channel, "message": message, "detail": detail}

    url = settings.notify_channels.get(channel)
    if url is None:
        there = ", ".join(sorted(settings.notify_channels)) or "none"
        return result(
            "not_configured",
            f"channel {channel!r} is not configured (there are: {there}); "
            "add it to celray_notify_channels in the inventory and deploy again",
        )
    retry_in = _backoff(settings, self.request.retries)
    try:
        store = connect(settings.result_backend_url.get_secret_value(), _STORE_TIMEOUT_SECONDS)
        once = notifications.Once(store, settings, channel, message, self.request.id)
        if not once.taken():
            return result("duplicate", f"sent less than {settings.notify_dedupe_seconds} s ago")
        try:
            notifications.deliver(url.get_secret_value(), channel, message)
        except (notifications.ChannelError, notifications.DeliveryError):
            once.release()
            raise
    except (notifications.DeliveryError, *_TRANSIENT) as error:
        raise self.retry(
            exc=error, countdown=retry_in, max_retries=settings.notify_max_retries
        ) from None
    return result("sent", f"taken by the service behind {channel!r}")


@shared_task(  # type: ignore[untyped-decorator]  # celery has no types
    name="tasks.simple_tasks.cleanup_old_results", bind=True, throws=(InvalidArgumentsError,)
)
@validated
def cleanup_old_results(
    self: Untyped, max_age_days: Annotated[float, Gt(0)] | None = None, dry_run: bool = False
) -> dict[str, object]:
    """Delete old results, and the folders of runs that ended long ago.

    Args:
        self: the bound task.
        max_age_days: remove what is older than this many days; by default results by
            ``result_expires_seconds`` and run folders by ``runs_max_age_days`` of the settings.
        dry_run: count, and delete nothing.

    Returns:
        ``status`` ("completed", or "partial" with ``problems``), ``files_deleted``,
        ``space_freed`` (bytes), ``results_deleted``, ``results_given_ttl``, ``runs_deleted``,
        ``runs_kept_active``, ``problems``, ``dry_run``.
    """
    settings = get_settings()
    try:
        with connect(
            settings.result_backend_url.get_secret_value(), _STORE_TIMEOUT_SECONDS
        ) as store:
            removed = cleanup.clean(store, settings, max_age_days, dry_run=dry_run)
    except _TRANSIENT as error:
        raise self.retry(exc=error) from None
    status = "partial" if removed.problems else "completed"
    return {"status": status, "dry_run": dry_run, **asdict(removed)}
