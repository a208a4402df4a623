"""``python -m ray_jobs retrain``."""

from ..registry.retrain import main

__all__ = ["main"]
