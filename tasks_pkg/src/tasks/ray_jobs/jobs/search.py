"""``python -m ray_jobs search``."""

from ..search.job import main

__all__ = ["main"]
