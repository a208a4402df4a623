"""The Celery app: ``celery -A tasks``; :mod:`tasks.celery_config` holds its settings."""

import socket
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from celery import Celery, Task, signals
from celery.app.amqp import AMQP
from kombu import compression
from kombu.entity import DELIVERY_MODES

from tasks import plugins
from tasks.beat.schedule_store import keep_schedule
from tasks.beat.settings import beat_configuration
from tasks.broker.redis import busy
from tasks.celery_config import TASK_MODULES, configuration
from tasks.contracts import Untyped
from tasks.credentials import ConfigurationError
from tasks.message_headers import PUBLISHED_AT
from tasks.results import deduplication
from tasks.results.spool import SpoolStep
from tasks.routes import ROUTES
from tasks.settings import Settings, get_settings
from tasks.worker import fencing
from tasks.worker import revocations as worker_revocations
from tasks.worker.draining import DrainedStep
from tasks.worker.heartbeat import ConsumerHeartbeat
from tasks.worker.info import CodeVersion
from tasks.worker.lease_keeper import LeaseKeeperStep
from tasks.worker.shutdown import drain_on_sigterm, end_on_sigterm

#: From sysexits.h: the configuration is wrong, and a restart will not help.
EX_CONFIG = 78


class CelrayTask(Task):  # type: ignore[misc]  # celery has no types
    """The base class of every task: it bounds the number of retries.

    With ``task_retry_on_worker_lost`` these bounds also apply to a task that kills its own process,
    which would otherwise be requeued without end.
    """

    abstract = True
    Request = "tasks.worker.request:Request"
    max_retries = 2
    default_retry_delay = 5
    #: Whether a task that stores no start asks Redis before it begins if it was cancelled, which
    #: costs one round trip. Without it, only the revocations that its worker has received count.
    looks_for_cancellation = True

    def before_start(self, *_: Untyped) -> None:
        """Refuse to run a task that was cancelled, or published twice."""
        worker_revocations.refuse(self)
        deduplication.refuse(self.request)


class CelrayAMQP(AMQP):  # type: ignore[misc]  # celery has no types
    """What sends messages: it refuses options that Celery would take for a lost connection.

    A callback's options come from whoever sent the task. kombu raises KeyError for an unknown name,
    which its Redis transport counts as a lost connection: Celery would publish again for a minute,
    and the process would run nothing else meanwhile.
    """

    def _create_task_sender(self) -> Untyped:
        send = super()._create_task_sender()

        def send_task_message(*args: Untyped, **options: Untyped) -> Untyped:
            _require_known("compression", options.get("compression"), compression.get_encoder)
            _require_known("delivery_mode", options.get("delivery_mode"), _delivery_mode)
            return send(*args, **options)

        return send_task_message


def _delivery_mode(value: Untyped) -> Untyped:
    return value if isinstance(value, int) else DELIVERY_MODES[value]


def _require_known(name: str, value: Untyped, find: Callable[[Untyped], Untyped]) -> None:
    """Refuse an option of a message that kombu knows nothing of.

    Raises:
        ValueError: names the option and its value.
    """
    if value is None:
        return
    try:
        find(value)
    except (KeyError, TypeError):
        message = f"the message was not sent: its {name} is {repr(value)[:100]}; leave it out"
        raise ValueError(message) from None


def create_app(settings: Settings) -> Celery:
    """Build the app for ``settings``; add the worker's own consumer steps."""
    busy.count_busy_as_away()
    celery = Celery("tasks", amqp=CelrayAMQP, task_cls=CelrayTask)
    celery.conf.update({**configuration(settings), **beat_configuration(settings)})
    keep_schedule(celery, settings)
    celery.loader.override_backends = dict.fromkeys(
        ("redis", "rediss"), "tasks.results.backend:ResultStore"
    )
    celery.steps["consumer"].add(DrainedStep)
    celery.steps["consumer"].add(ConsumerHeartbeat)
    celery.steps["consumer"].add(CodeVersion)
    celery.steps["consumer"].add(LeaseKeeperStep)
    celery.steps["consumer"].add(SpoolStep)
    celery.steps["consumer"].add(worker_revocations.Revocations)
    signals.before_task_publish.connect(_stamp)
    signals.celeryd_init.connect(_registered_as_routed)
    signals.celeryd_init.connect(fencing.share)
    signals.beat_init.connect(_registered_as_routed)
    signals.import_modules.connect(_load_packages, sender=celery)
    signals.worker_ready.connect(drain_on_sigterm)
    signals.worker_process_init.connect(end_on_sigterm)
    signals.worker_process_init.connect(fencing.guard)
    return celery


def fail(error: ConfigurationError) -> SystemExit:
    """Print ``error`` in one line for the operator; return the exception to raise."""
    print(f"celray: configuration error on {socket.gethostname()}: {error}", file=sys.stderr)  # noqa: T201
    return SystemExit(EX_CONFIG)


def _stamp(headers: dict[str, Any] | None = None, **_: object) -> None:
    if headers is not None:
        headers[PUBLISHED_AT] = time.time()


def _registered_as_routed(**_: object) -> None:
    """Refuse to start if the registered tasks are not exactly the routed ones."""
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
    """Load the task packages wherever Celery imports its tasks: worker, Beat, Flower, shell.

    celray's own tasks come first, so that a name collision is the package's mistake.
    """
    settings = get_settings()
    for module in TASK_MODULES:
        sender.loader.import_task_module(module)
    try:
        plugins.load(sender, settings)
    except ConfigurationError as error:
        raise fail(error) from None


#: The service's app, built on first use: a client has no settings for it.
app: Celery


@lru_cache(maxsize=1)
def _service() -> Celery:
    try:
        return create_app(get_settings())
    except ConfigurationError as error:
        raise fail(error) from None


def __getattr__(name: str) -> Celery:
    """Build :data:`app` on first use; end the process if the settings are wrong."""
    if name == "app":
        return _service()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
