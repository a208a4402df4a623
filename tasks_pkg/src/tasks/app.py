"""The Celery app: ``celery -A tasks``. Every setting has its reason beside it."""

import socket
import sys
import time
from functools import lru_cache
from typing import Any

from celery import Celery, Task, signals
from celery.schedules import schedule
from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

from tasks import duplicates, fence, packages, revocations
from tasks.broker import busy
from tasks.contracts import Untyped
from tasks.cron_schedule import CronSchedule
from tasks.deployed import CodeVersion
from tasks.headers import PUBLISHED_AT
from tasks.heartbeat import ConsumerHeartbeat
from tasks.keeper import KeeperStep
from tasks.outcomes import OutcomesStep
from tasks.routes import ROUTES
from tasks.schedule_store import keep_schedule
from tasks.settings import ConfigurationError, ScheduleSpec, Settings, get_settings
from tasks.shutdown import drain_on_sigterm, end_on_sigterm

#: sysexits.h: the configuration is wrong, and a restart will not help.
EX_CONFIG = 78

#: What travels: JSON alone, everywhere; pickle is code execution by message.
SERIALIZATION: dict[str, Any] = {
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "timezone": "UTC",
    "enable_utc": True,
}

#: Our way of fetching from Redis; a name of its own, because kombu shows it in URLs.
TRANSPORT = "celray"
TRANSPORT_ALIASES[TRANSPORT] = "tasks.broker.transport:Transport"

#: The modules that hold tasks. Listed, because a module that nobody imports registers nothing.
TASK_MODULES = ("tasks.simple_tasks", "tasks.ml_tasks", "tasks.data_tasks")


class CelrayTask(Task):  # type: ignore[misc]  # celery has no types
    """The base of every task here: a bounded number of new starts.

    With ``task_retry_on_worker_lost`` these bounds also hold for a task that kills its own
    process, which would otherwise be requeued without end.
    """

    abstract = True
    Request = "tasks.worker_request:Request"
    max_retries = 2
    default_retry_delay = 5
    #: Whether a task that stores no start asks Redis before it begins if it was cancelled: one
    #: round trip. Without, what its worker has heard decides.
    looks_for_cancellation = True

    def before_start(self, *_: Untyped) -> None:
        """Do not run what was cancelled, or published twice."""
        revocations.refuse(self)
        duplicates.refuse(self.request)


def _schedule_entry(spec: ScheduleSpec) -> dict[str, Any]:
    rhythm: Any = schedule(spec.every_seconds) if spec.cron is None else CronSchedule(spec.cron)
    return {
        "task": spec.task,
        "schedule": rhythm,
        "options": {"queue": spec.queue} if spec.queue else {},
    }


def configuration(settings: Settings) -> dict[str, Any]:
    """The Celery configuration that follows from ``settings``."""
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
        "imports": (*TASK_MODULES, "tasks.remote"),
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
        # -- stopping: tasks.shutdown waits for what runs; Celery's own wait stops the loop
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
        "worker_consumer": "tasks.consumer:Consumer",
        "task_send_sent_event": True,
        "worker_hijack_root_logger": True,
        # -- Beat (RedBeat): the lock lives five ticks, so that one slow tick costs no restart
        "beat_schedule": {spec.name: _schedule_entry(spec) for spec in settings.schedule.entries},
        "beat_max_loop_interval": settings.beat_max_interval_seconds,
        # Its URL holds a password, and stays in the settings (tasks.schedule_store).
        "redbeat_redis_options": {
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        "redbeat_key_prefix": "redbeat:",
        "redbeat_lock_timeout": 5 * settings.beat_max_interval_seconds,
    }


def create_app(settings: Settings) -> Celery:
    """Build the app for ``settings``; registers the consumer's heartbeat."""
    busy.count_busy_as_away()
    celery = Celery("tasks", task_cls=CelrayTask)
    celery.conf.update(configuration(settings))
    keep_schedule(celery, settings)
    celery.loader.override_backends = dict.fromkeys(
        ("redis", "rediss"), "tasks.results:ResultStore"
    )
    celery.steps["consumer"].add(ConsumerHeartbeat)
    celery.steps["consumer"].add(CodeVersion)
    celery.steps["consumer"].add(KeeperStep)
    celery.steps["consumer"].add(OutcomesStep)
    celery.steps["consumer"].add(revocations.Revocations)
    signals.before_task_publish.connect(_stamp)
    signals.celeryd_init.connect(_registered_as_routed)
    signals.celeryd_init.connect(fence.share)
    signals.beat_init.connect(_registered_as_routed)
    signals.import_modules.connect(_load_packages, sender=celery)
    signals.worker_ready.connect(drain_on_sigterm)
    signals.worker_process_init.connect(end_on_sigterm)
    signals.worker_process_init.connect(fence.guard)
    return celery


def fail(error: ConfigurationError) -> SystemExit:
    """Print ``error`` as the one line that an operator needs; returns what to raise."""
    print(f"celray: configuration error on {socket.gethostname()}: {error}", file=sys.stderr)  # noqa: T201
    return SystemExit(EX_CONFIG)


def _stamp(headers: dict[str, Any] | None = None, **_: object) -> None:
    if headers is not None:
        headers[PUBLISHED_AT] = time.time()


def _registered_as_routed(**_: object) -> None:
    """Refuse to start when the tasks that exist are not exactly those that are routed."""
    app = _service()
    app.loader.import_default_modules()
    registered = {name for name in app.tasks if name.startswith("tasks.")}
    if registered != set(ROUTES):
        message = (
            f"tasks and routes.py differ: only registered {sorted(registered - set(ROUTES))}, "
            f"only routed {sorted(set(ROUTES) - registered)}; correct routes.py"
        )
        raise fail(ConfigurationError(message))


def _load_packages(sender: Untyped, **_: object) -> None:
    """Load the packages of others wherever Celery imports its tasks: worker, Beat, Flower, shell.

    Ours come first, so that a collision is the package's mistake.
    """
    settings = get_settings()
    for module in TASK_MODULES:
        sender.loader.import_task_module(module)
    try:
        packages.load(sender, settings)
    except ConfigurationError as error:
        raise fail(error) from None


#: The service's app, built when it is first asked for: a client has no settings for it.
app: Celery


@lru_cache(maxsize=1)
def _service() -> Celery:
    try:
        return create_app(get_settings())
    except ConfigurationError as error:
        raise fail(error) from None


def __getattr__(name: str) -> Celery:
    """Build :data:`app` for the first who imports it; ends the process on wrong settings."""
    if name == "app":
        return _service()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
