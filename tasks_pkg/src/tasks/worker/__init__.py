"""What celray adds to a Celery worker: consumer, leases, fencing, heartbeat, shutdown."""
