"""What a stock Celery client of any version does with a service: one JSON document of outcomes.

Runs in an environment of its own, with a version of Celery that is not ours:
``python client.py BROKER BACKEND``.
"""

import inspect
import json
import sys
from datetime import UTC, datetime, timedelta

if not hasattr(inspect, "formatargspec"):  # Celery 4.4 was written for Pythons that had it
    vars(inspect)["formatargspec"] = lambda *_, **__: ""
    vars(inspect)["getargspec"] = inspect.getfullargspec

from celery import Celery, Signature, chain, chord, group

PING = "tasks.simple_tasks.ping"
NAP = "extra.nap"
WAIT = 60

app = Celery("old", broker=sys.argv[1], backend=sys.argv[2])
app.conf.update(task_default_queue="default", task_serializer="json", accept_content=["json"])


def nap(number: int) -> Signature:
    """Return a signature that gives back its number."""
    return app.signature(NAP, args=(number, 0.1), immutable=True, queue="default")


outcomes = {
    "version": __import__("celery").__version__,
    "send": app.send_task(PING, queue="default").get(timeout=WAIT)["status"],
    "priority": nap(1).apply_async(priority=6).get(timeout=WAIT),
    "group": group([nap(2), nap(3)]).apply_async().get(timeout=WAIT),
    "chain": chain(nap(4), nap(5)).apply_async().get(timeout=WAIT),
    "chord": chord([nap(6), nap(7), nap(8)])(nap(9)).get(timeout=WAIT),
    "countdown": nap(10).apply_async(countdown=1).get(timeout=WAIT),
    "eta": nap(11).apply_async(eta=datetime.now(UTC) + timedelta(seconds=1)).get(timeout=WAIT),
}
late = nap(12).apply_async(countdown=3600)
late.revoke()
late.get(timeout=WAIT, propagate=False)
outcomes["revoke"] = late.state
failing = app.send_task(PING, kwargs={"loud": 1}, queue="default")
failing.get(timeout=WAIT, propagate=False)
outcomes["failure"] = failing.state
refused = app.send_task(PING, queue="default", serializer="pickle")
refused.get(timeout=WAIT, propagate=False)
outcomes["pickle"] = str(refused.result)
print(json.dumps(outcomes))  # noqa: T201
