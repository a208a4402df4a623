"""A client's Celery app: it sends, reads results, and queries workers; it consumes nothing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from tasks.broker.redis import busy
from tasks.celery_config import SERIALIZATION
from tasks.client.errors import NotPermittedError, ServiceUnavailableError
from tasks.credentials import OPERATOR_NAMES, ClientSettings
from tasks.message_headers import PUBLISHED_AT
from tasks.routes import ROUTES

#: Time limit of a client for a connection or an answer, in seconds: a person is waiting.
PATIENCE_SECONDS = 5.0


def application(settings: ClientSettings) -> Celery:
    """Build the app without connecting."""
    busy.count_busy_as_away()
    # Celery prefers CELERY_BROKER_URL and CELERY_RESULT_BACKEND of the environment to its own
    # settings, although the credentials may come from a file or be an operator's. These three
    # settings take precedence over both.
    broker, backend = settings.broker_url, settings.result_backend_url
    app = Celery("celray-client", set_as_current=False)
    app.backend_cls = backend.get_secret_value()
    sockets: dict[str, Any] = {
        "socket_timeout": PATIENCE_SECONDS,
        "socket_connect_timeout": PATIENCE_SECONDS,
        "socket_keepalive": True,
    }
    app.conf.update(
        {
            **SERIALIZATION,
            "broker_url": broker.get_secret_value(),
            "broker_read_url": broker.get_secret_value(),
            "broker_write_url": broker.get_secret_value(),
            "broker_connection_timeout": PATIENCE_SECONDS,
            "broker_transport": "tasks.broker.redis.full:Transport",
            # The scheme selects TLS only where it also selects the transport.
            "broker_use_ssl": {"ssl_cert_reqs": "required"}
            if broker.get_secret_value().startswith("rediss:")
            else None,
            "broker_transport_options": {**sockets, "client_name": "celray-cli"},
            "broker_connection_retry": False,
            "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.2},
            "result_backend": backend.get_secret_value(),
            "redis_socket_timeout": PATIENCE_SECONDS,
            "redis_socket_connect_timeout": PATIENCE_SECONDS,
            "redis_retry_on_timeout": False,
            "result_backend_always_retry": False,
            "result_backend_transport_options": {"retry_policy": {"max_retries": 1}},
            "task_routes": dict(ROUTES),
            "task_default_queue": "default",
            "task_default_exchange_type": "direct",
            # An additional event, which a user who may only send tasks may not send; workers report
            # the arrival.
            "task_send_sent_event": False,
            "result_extended": True,
            "imports": (),
        }
    )
    return app


def stamped() -> dict[str, float]:
    """Return the headers for a message that is published now."""
    return {PUBLISHED_AT: time.time()}


@contextmanager
def answering(settings: ClientSettings) -> Iterator[None]:
    """Turn a connection error into one line that names the part and the origin of its address."""
    where = place(settings.broker_url.get_secret_value())
    try:
        yield
    except NoPermissionError as error:
        raise _not_permitted(settings, error) from None
    except AuthenticationError as error:
        message = f"Redis at {where} refuses this user ({error}); credentials: {settings.origin}"
        raise ServiceUnavailableError(message) from None
    except (OperationalError, RedisConnectionError, RedisError, OSError) as error:
        if "no permissions" in str(error):  # kombu wraps every error in the same words
            raise _not_permitted(settings, error) from None
        if "WRONGPASS" in str(error) or "NOAUTH" in str(error):
            why = "refuses the password"
        else:
            why = f"does not answer ({one_line(error)})"
        message = f"Redis at {where} {why}; credentials: {settings.origin}"
        raise ServiceUnavailableError(message) from None


def _not_permitted(settings: ClientSettings, error: Exception) -> NotPermittedError:
    names = " and ".join(OPERATOR_NAMES.values())
    return NotPermittedError(
        f"Redis at {place(settings.broker_url.get_secret_value())} does not let this user do that "
        f"({one_line(error)}); credentials: {settings.origin}. An operator's may: {names} of "
        "`make credentials`"
    )


def place(url: str) -> str:
    """Return the parts of an address that are never secret: scheme, host, port, database number."""
    unknown = "an address that is no URL"
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            return unknown
    except ValueError:  # such as a port that is no number, but may be half a password
        return unknown
    database = parts.path if parts.path[1:].isdecimal() else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{database}"


def one_line(error: BaseException) -> str:
    """Return an error's own text as one line of limited length."""
    return " ".join(str(error).split())[:200] or type(error).__name__
