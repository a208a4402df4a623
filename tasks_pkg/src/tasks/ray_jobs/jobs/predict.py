"""``python -m ray_jobs predict``."""

from ..prediction.job import main

__all__ = ["main"]
