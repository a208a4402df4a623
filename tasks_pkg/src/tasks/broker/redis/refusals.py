"""What becomes of a message that cannot be understood: one dead letter, and an answer.

It is put aside once, with its first bytes, the reason, its queue and the time, so that it neither
comes back nor is lost without a word. Such letters are bounded in number and age: anybody who may
send can make any number of them.

The work is done beside the worker's loop. Until it is done the message is held on its lease like
any other, so that a worker that dies meanwhile leaves it to the next.
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

#: So many bytes of a refused message are kept.
KEPT_BYTES: Final = 4 * 1024
#: The most letters of refused messages, and the seconds that one is kept.
MOST_LETTERS: Final = 1_000
KEPT_SECONDS: Final = 7 * 86_400
#: So many may wait here to be put aside; then the loop waits too.
_WAITING: Final = 64
#: Seconds until another try, where Redis does not answer.
_TRY_AGAIN: Final = 1.0

Answer = Callable[[Refused], None]
#: Tells who waits for a task that its message was refused; set where there is a worker.
_answer: list[Answer] = []


def answer_with(answer: Answer) -> None:
    """Have whoever waits for a refused task told by ``answer``, in this process."""
    _answer[:] = [answer]


def put_aside(broker: Redis, tag: str, queue_name: str, item: bytes, refused: Refused) -> str:
    """Make a held message a dead letter, in one step; returns the letter's id.

    Args:
        broker: a client of the broker's database.
        tag: under which the message is held.
        queue_name: where it stood.
        item: its bytes.
        refused: why.

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
        # Latin-1 gives each byte a character, whatever it is.
        "unreadable": item[:KEPT_BYTES].decode("latin-1"),
        "bytes": len(item),
    }
    broker.register_script(REFUSE)(
        keys=[HELD, LEASES, DEAD, REFUSED, COUNTS],
        args=[tag, letter_id, json.dumps(letter), MOST_LETTERS, KEPT_SECONDS],
    )
    return letter_id


class Refusals:
    """Puts aside what this process has refused, one after the other, in a thread of its own.

    Args:
        broker: a client of the broker's database, with short time limits.
        done: called with a delivery tag when this process no longer holds its message.
    """

    def __init__(self, broker: Redis, done: Callable[[str], Any]) -> None:
        self._broker = broker
        self._done = done
        self._waiting: queue.Queue[tuple[str, str, bytes, Refused]] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def busy(self) -> bool:
        """Return whether many wait, so that who must not stand still leaves his for later."""
        return self._waiting.qsize() >= _WAITING // 2

    def refuse(self, tag: str, queue_name: str, item: bytes, refused: Refused) -> None:
        """Put a held message aside as soon as may be; may be called from any thread."""
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
                    logger.exception("task %s cannot be told that it was refused", refused.task_id)
            # First: a lease that is gone from Redis while it is still held here ends the worker. If
            # it lapses before Redis answers, whoever finds it puts the same letter aside.
            self._done(tag)
            while True:
                try:
                    put_aside(self._broker, tag, queue_name, item, refused)
                    break
                except (RedisError, OSError) as error:
                    logger.warning("a refused message waits to be put aside: %s", error)
                    time.sleep(_TRY_AGAIN)
