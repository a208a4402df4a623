"""What celray's look at a message takes, beside reading it as kombu does; prints one JSON object.

Runs in the worker's environment; no Redis, no worker: microseconds of one process.
"""

import json
import statistics
import timeit
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu.utils import json as kombu_json
from tasks.broker import envelope, sizes, task_message

#: Repetitions of one timing, and timings.
NUMBER, TURNS = 2000, 15

dumps: Callable[[Any], str] = kombu_json.dumps
loads: Callable[[bytes], Any] = kombu_json.loads


def message() -> bytes:
    """Return what stands in a queue for one ping."""
    found: list[bytes] = []
    app = Celery(broker="memory://")
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        channel._put = lambda queue, message, **_: found.append(dumps(message).encode())  # noqa: ARG005
        app.send_task("tasks.simple_tasks.ping", connection=connection, queue="default")
    return found[0]


def as_kombu(item: bytes) -> Any:
    """Decode a message and its body without a look at either."""
    found = loads(item)
    return loads(b64decode(found["body"]))


def as_celray(item: bytes) -> Any:
    """Decode the same as a worker of celray does."""
    found = envelope.read(item, "tag")
    payload = envelope.payload_of(found)
    task_message.check(found["headers"], payload)
    return payload


def microseconds(call: Callable[[], object]) -> float:
    """Time ``call``: the median of some timings, in microseconds of one call."""
    taken = timeit.repeat(call, repeat=TURNS, number=NUMBER)
    return 1e6 * statistics.median(taken) / NUMBER


def main() -> None:
    """Time both ways of reading, and both of writing a result."""
    item = message()
    meta = {"status": "SUCCESS", "result": {"status": "pong"}, "args": [], "kwargs": {}}
    medians = {
        "kombu": microseconds(lambda: as_kombu(item)),
        "celray": microseconds(lambda: as_celray(item)),
        "encode": microseconds(lambda: dumps(meta)),
        "encoded": microseconds(lambda: sizes.encoded(meta, dumps)),
    }
    checks = medians["celray"] - medians["kombu"] + medians["encoded"] - medians["encode"]
    print(json.dumps({**medians, "checks": checks}))


if __name__ == "__main__":
    main()
