"""``make chaos``: real faults in a real stack under load, counted by a ledger outside Celery."""
