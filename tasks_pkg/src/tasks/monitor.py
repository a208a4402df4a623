"""The app as Flower runs it: ``celery -A tasks.monitor flower``.

Flower chooses how to ask a broker by its URL's scheme, and knows none that is called ``celray``:
its broker page and its queue lengths would answer 404. It consumes no queue, so that it does not
need our fetch; here the scheme is kombu's own again.
"""

from tasks.app import app

app.conf.update(broker_transport=None)

__all__ = ["app"]
