"""``python -m ray_jobs process_csv``."""

from ..large_csv.job import main

__all__ = ["main"]
