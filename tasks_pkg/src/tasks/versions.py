"""The versions of the running code: celray's own, and those of its libraries."""

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from tasks.settings import get_settings


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of Python, celery, kombu and Ray's client, and of celray's code."""
    return {
        "python": platform.python_version(),
        **{name: _installed(name) for name in ("celery", "kombu", "ray")},
        "code": get_settings().code_version,
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a task that runs without a broker needs no Ray
        return "none"
