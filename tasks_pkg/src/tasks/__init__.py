"""celray's Celery tasks: ``celery -A tasks worker | beat | flower``."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return the app for ``celery -A tasks``, built when it is first asked for.

    Celery looks for ``tasks.app``, finds a module, and goes on to ``tasks.celery``. Building
    it lazily lets ``tasks.settings`` and ``tasks.routes`` be imported without an environment.
    """
    if name == "celery":
        from tasks.app import app  # noqa: PLC0415 - the point of this function

        return app
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
