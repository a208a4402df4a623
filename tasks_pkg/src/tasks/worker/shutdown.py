"""Stopping a worker: what runs may finish for a while, what cannot goes back to its queue.

Celery's own soft shutdown sleeps inside its signal handler. The loop stands still meanwhile:
a task that ends is not acknowledged and may run again, and with
``worker_enable_soft_shutdown_on_idle`` an idle worker waits the whole time (measured: 8.2 s for
a soft timeout of 6 s). A warm shutdown acknowledges, but has no limit. Here SIGTERM stops the
consumer, the loop goes on acknowledging, and a cold shutdown, which requeues, follows as soon as
nothing runs or the time is up. Where Redis is away, what is left to do waits for it (events do, on
the loop): there is nothing that Redis could be told, the leases lapse, and the worker ends.
"""

import atexit
import gc
import os
import signal
import threading
import time

from celery import signals
from celery.utils.log import get_logger
from celery.worker import state
from redis.exceptions import RedisError, ResponseError

from tasks.broker.redis.leases import Leases, all_leases
from tasks.contracts import Untyped
from tasks.settings import get_settings
from tasks.worker import fencing

logger = get_logger(__name__)

#: How often the drain looks, in seconds.
_LOOK = 0.1
#: A read of the queue may be under way for a second; it must end before the look counts.
_CANCEL_TAKES = 2.0
#: A cold shutdown that takes longer than so many seconds may be waiting for Redis.
_END_TAKES = 3.0
#: So many times in a row it does not answer.
_SILENT = 2


class Drain:
    """What SIGTERM does to a worker that is ready."""

    def __init__(self, consumer: Untyped, seconds: float) -> None:
        self._consumer = consumer
        self._seconds = seconds
        self._begun = False

    def __call__(self, *_: object) -> None:
        """Handle SIGTERM; a second one ends the waiting.

        The work is done in a thread: what the signal interrupted may hold the loop's locks.
        """
        if self._begun:
            os.kill(os.getpid(), signal.SIGQUIT)
            return
        self._begun = True
        threading.Thread(target=self._run, name="drain", daemon=True).start()

    def _run(self) -> None:
        if state.reserved_requests:
            logger.warning("stop: running tasks have %g s to finish", self._seconds)
            deadline = time.monotonic() + self._seconds
            self._stop_reading()
            while state.reserved_requests and time.monotonic() < deadline:
                time.sleep(_LOOK)
            if state.reserved_requests:
                logger.warning("stop: requeueing what still runs")
        os.kill(os.getpid(), signal.SIGQUIT)
        self._end_without_redis()

    def _end_without_redis(self) -> None:
        silent = 0
        while silent < _SILENT:
            time.sleep(_END_TAKES)
            there = all_leases()
            silent = 0 if not there or any(map(_answers, there)) else silent + 1
        logger.warning("stop: Redis does not answer; what still runs comes back with its lease")
        fencing.kill(self._consumer.pool)
        fencing.end()

    def _stop_reading(self) -> None:
        stopped = threading.Event()

        def cancel() -> None:
            if self._consumer.task_consumer:
                self._consumer.task_consumer.cancel()
            stopped.set()

        self._consumer.call_soon(cancel)
        stopped.wait(_CANCEL_TAKES)


def _answers(leases: Leases) -> bool:
    try:
        return bool(leases.client.ping())
    except ResponseError:  # it is busy
        return True
    except (RedisError, OSError):
        return False


def drain_on_sigterm(sender: Untyped = None, **_: object) -> None:
    """Replace Celery's SIGTERM handler; ``sender`` is the consumer."""
    # A worker that held many tasks would look for garbage among them for a minute at its end.
    atexit.register(gc.freeze)
    signal.signal(signal.SIGTERM, Drain(sender, get_settings().soft_shutdown_seconds))


def end_on_sigterm(**_: object) -> None:
    """Let SIGTERM, which is what ``revoke(terminate=True)`` sends, end a child process.

    With ``REMAP_SIGTERM`` Celery has its children ignore it, so that a revoked task ran on, and
    wrote its progress, and its failure at the end, over the state REVOKED. The worker's own stop
    uses SIGQUIT then, and nobody else signals a container's children.

    Sent when a child begins; billiard sets its signals up once more after that, so the first task
    is waited for.
    """
    signals.task_prerun.connect(_take_sigterm)


def _take_sigterm(**_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
