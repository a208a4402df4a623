"""The heartbeat file of a worker or Beat, which they touch as long as they work."""

from pathlib import Path

from celery.utils.log import get_logger

logger = get_logger(__name__)


def touch(path: Path) -> None:
    """Set the time of ``path`` to now; a full or missing disk is logged, never raised."""
    try:
        path.touch()
    except OSError as error:
        logger.warning("heartbeat: cannot touch %s: %s", path, error.strerror)
