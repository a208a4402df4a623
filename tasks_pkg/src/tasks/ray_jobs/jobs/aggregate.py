"""``python -m ray_jobs aggregate``."""

from ..aggregation.job import main

__all__ = ["main"]
