"""The entry points: ``python -m ray_jobs NAME`` runs the ``main`` of the module NAME in here."""
