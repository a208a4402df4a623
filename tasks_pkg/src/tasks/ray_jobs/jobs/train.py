"""``python -m ray_jobs train``."""

from ..training.job import main

__all__ = ["main"]
