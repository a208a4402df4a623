"""``python -m ray_jobs inbox``."""

from ..inbox.job import main

__all__ = ["main"]
