"""What a Celery worker of celray has beyond Celery's own: consumer, leases, fencing, shutdown."""
