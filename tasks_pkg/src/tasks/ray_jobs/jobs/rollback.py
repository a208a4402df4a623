"""``python -m ray_jobs rollback``."""

from ..registry.rollback import main

__all__ = ["main"]
