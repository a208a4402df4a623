"""Celery's result store, a spool for results that Redis has not taken, and deduplication."""
