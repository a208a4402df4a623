"""Between a Celery task and Ray: submit, attach to, follow and stop one job."""
