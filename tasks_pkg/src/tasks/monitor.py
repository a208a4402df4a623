"""The app as Flower runs it: ``celery -A tasks.monitor flower``.

Flower chooses by the scheme of the broker's URL how to query it, and knows no scheme ``celray``:
its broker page and its queue lengths would answer 404. Flower consumes no queue and does not need
celray's transport, so here the scheme is kombu's own again.
"""

from tasks.app import app

app.conf.update(broker_transport=None)

__all__ = ["app"]
