"""Refused messages: one that cannot be decoded becomes a dead letter, and its caller is notified.

The dead letter holds the message's first bytes, the reason, the queue and the time. So the message
neither comes back nor vanishes without a trace. The number and the age of such letters are bounded,
because anybody who may publish can cause any number of them.

The work runs in a thread beside the worker's event loop. Until it is done the message is held on
its lease like any other, so that another worker takes it over if this one dies.
"""

import hashlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from tasks.broker.envelope import Refused
from tasks.broker.redis.scripts import COUNTS, DEAD, HELD, LEASES, REFUSE, REFUSED

logger = logging.getLogger(__name__)

#: How many bytes of a refused message are stored.
KEPT_BYTES: Final = 4 * 1024
#: The most letters of refused messages, and how long each is stored, in seconds.
MOST_LETTERS: Final = 1_000
KEPT_SECONDS: Final = 7 * 86_400
#: How many refused messages may wait for this thread; beyond that the event loop waits too.
_MOST_WAITING: Final = 64
#: Pause before the next attempt while Redis does not answer, in seconds.
_RETRY_SECONDS: Final = 1.0

Answer = Callable[[Refused], None]
#: Notifies the callers who wait for a refused task; set only in a worker.
_answer: list[Answer] = []


def answer_with(answer: Answer) -> None:
    """Set ``answer`` as what notifies the callers of a refused task, in this process."""
    _answer[:] = [answer]


def put_aside(broker: Redis, tag: str, queue_name: str, item: bytes, refused: Refused) -> str:
    """Turn a held message into a dead letter in one step, and return the letter's id.

    Args:
        broker: a client of the broker's database.
        tag: the delivery tag under which the message is held.
        queue_name: the queue in which it stood.
        item: its bytes.
        refused: the reason.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    letter_id = f"refused-{hashlib.sha256(item).hexdigest()[:16]}"
    letter = {
        "queue": queue_name,
        "reason": refused.reason,
        "deliveries": 0,
        "buried_at": time.time(),
        "task_id": refused.task_id,
        # Latin-1 has a character for every byte.
        "unreadable": item[:KEPT_BYTES].decode("latin-1"),
        "bytes": len(item),
    }
    broker.register_script(REFUSE)(
        keys=[HELD, LEASES, DEAD, REFUSED, COUNTS],
        args=[tag, letter_id, json.dumps(letter), MOST_LETTERS, KEPT_SECONDS],
    )
    return letter_id


class Refusals:
    """Puts aside the messages that this process has refused, one at a time, in its own thread.

    Args:
        broker: a client of the broker's database, with short time limits.
        done: called with a delivery tag when this process no longer holds its message.
    """

    def __init__(self, broker: Redis, done: Callable[[str], Any]) -> None:
        self._broker = broker
        self._done = done
        self._waiting: queue.Queue[tuple[str, str, bytes, Refused]] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def busy(self) -> bool:
        """Return whether so many wait that a caller who must not block should try again later."""
        return self._waiting.qsize() >= _MOST_WAITING // 2

    def refuse(self, tag: str, queue_name: str, item: bytes, refused: Refused) -> None:
        """Put a held message aside soon, without waiting for it; may be called from any thread."""
        logger.error(
            "a message of queue %s is refused: %s%s",
            queue_name,
            refused.reason,
            f" (task {refused.task_id})" if refused.task_id else "",
        )
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)
                self._thread.start()
        self._waiting.put((tag, queue_name, item, refused))

    def _run(self) -> None:
        while True:
            tag, queue_name, item, refused = self._waiting.get()
            if _answer and refused.task_id:
                try:
                    _answer[0](refused)
                except Exception:
                    logger.exception(
                        "task %s: cannot notify its caller of the refusal",
                        refused.task_id,
                    )
            # Forget it here first: a lease that is gone from Redis while this process still holds
            # it ends the worker. If the lease lapses before Redis answers, whoever finds it stores
            # the same letter.
            self._done(tag)
            while True:
                try:
                    put_aside(self._broker, tag, queue_name, item, refused)
                    break
                except (RedisError, OSError) as error:
                    logger.warning("a refused message waits to be put aside: %s", error)
                    time.sleep(_RETRY_SECONDS)
