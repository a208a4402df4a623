"""The file whose age says whether a worker or Beat still works: touched while it does."""

from pathlib import Path

from celery.utils.log import get_logger

logger = get_logger(__name__)


def touch(path: Path) -> None:
    """Make ``path`` as young as now; a full or vanished disk is logged, never raised."""
    try:
        path.touch()
    except OSError as error:
        logger.warning("heartbeat: cannot touch %s: %s", path, error.strerror)
