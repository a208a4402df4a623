"""Which code answers: our own, and what it stands on."""

import platform
from functools import lru_cache
from importlib.metadata import version

from tasks.settings import get_settings


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Give the versions of Python, celery, kombu and Ray's client, and of our own code."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("celery", "kombu", "ray")},
        "code": get_settings().code_version,
    }
