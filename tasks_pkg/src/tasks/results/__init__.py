"""What tasks return: Celery's result store, a spool for results, one run per published task."""
