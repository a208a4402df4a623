"""A package of tasks that is not ours; importing it needs what Ray does not have."""

import celery  # noqa: F401
