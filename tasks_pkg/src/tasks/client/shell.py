"""The app for ``celray celery``: the service's if it is configured, otherwise a client's."""

from pathlib import Path

from celery import Celery

from tasks.client.connection import application
from tasks.credentials import ClientSettings, ConfigurationError, load_client_settings
from tasks.settings import load_settings

_chosen: list[ClientSettings] = []


def choose(credentials: Path | None) -> str:
    """Return the value for ``celery -A``.

    Raises:
        ConfigurationError: neither a service nor a client is configured.
    """
    if credentials is None:
        try:
            load_settings()
        except ConfigurationError:
            pass
        else:
            return "tasks"
    _chosen[:] = [load_client_settings(credentials)]
    return f"{__name__}:app"


def __getattr__(name: str) -> Celery:
    """Build the client's app when Celery's command line asks for it."""
    if name == "app" and _chosen:
        return application(_chosen[0])
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
