"""Celery's settings, each with its reason."""

from typing import TYPE_CHECKING, Any

from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

if TYPE_CHECKING:
    from tasks.settings import Settings

#: JSON is the only serialisation, everywhere: pickle allows a message to execute code.
SERIALIZATION: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "timezone": "UTC",
    "enable_utc": True,
}

#: celray's own transport for Redis; it has its own name because kombu shows it in URLs.
TRANSPORT = "celray"
TRANSPORT_ALIASES[TRANSPORT] = "tasks.broker.redis.transport:Transport"

#: The modules that hold tasks, listed because a module that is never imported registers nothing.
TASK_MODULES = ("tasks.simple_tasks", "tasks.ml_tasks", "tasks.data_tasks")


def configuration(settings: "Settings") -> dict[str, Any]:
    """Return Celery's configuration for ``settings``, without Beat's part."""
    return {
        **SERIALIZATION,
        # -- which queues: the catalogue's, and a typo in a queue's name is an error
        "task_queues": [
            Queue(  # type: ignore[no-untyped-call]  # kombu types no constructor
                name,
                Exchange(name, type="direct"),  # type: ignore[no-untyped-call]
                routing_key=name,
            )
            for name in settings.queues
        ],
        "task_routes": settings.routes,
        "task_default_queue": "default",
        "task_create_missing_queues": False,
        "imports": (*TASK_MODULES, "tasks.worker.info"),
        # -- running work survives: acknowledged when done, one message per child at a time
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        # A lost child's task runs again, but as a counted retry: by rejection alone a task
        # that kills its process loops (30 runs in 8 s).
        "task_reject_on_worker_lost": True,
        "task_retry_on_worker_lost": True,
        # Cancelling on a lost connection dropped tasks in flight (4 of 40); going on and
        # retrying the result write lost none.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A task whose result is there, but whose acknowledgement was lost, is not run again.
        "worker_deduplicate_successful_tasks": True,
        "result_backend_always_retry": True,
        # -- stopping: tasks.worker.shutdown waits for what runs; Celery's own wait stops the loop
        "worker_soft_shutdown_timeout": 0.0,
        "worker_enable_soft_shutdown_on_idle": False,
        # -- nothing waits for ever, nothing gives up after a second
        "broker_url": settings.broker_url.get_secret_value(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 5,
        # Pops and records in one step, and holds on leases (ADR 0018, 0019).
        "broker_transport": TRANSPORT,
        # The scheme chooses TLS only where it also chooses the transport.
        "broker_use_ssl": {"ssl_cert_reqs": "required"}
        if settings.broker_url.get_secret_value().startswith("rediss:")
        else None,
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout_seconds,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "client_name": f"celray-{settings.worker_name or 'client'}",
        },
        "task_publish_retry_policy": {
            "max_retries": 12,
            "interval_start": 0.2,
            "interval_step": 0.5,
            "interval_max": 5,
        },
        "result_backend": settings.result_backend_url.get_secret_value(),
        "redis_socket_timeout": 30.0,
        "redis_socket_connect_timeout": 5.0,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "result_expires": settings.result_expires_seconds,
        # -- what can be seen: name, arguments and worker in results, events for Flower
        "result_extended": True,
        "task_track_started": True,
        "worker_send_task_events": True,
        "worker_consumer": "tasks.worker.consumer:Consumer",
        "task_send_sent_event": True,
        "worker_hijack_root_logger": True,
    }
