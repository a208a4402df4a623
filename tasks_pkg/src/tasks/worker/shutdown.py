"""Stop a worker: running tasks may finish within a limit, the others go back to their queues.

Celery's own soft shutdown sleeps inside its signal handler, which blocks the event loop. A task
that ends meanwhile is not acknowledged and may run again. With
``worker_enable_soft_shutdown_on_idle`` an idle worker waits the whole time (measured: 8.2 s for a
soft timeout of 6 s). A warm shutdown acknowledges but has no limit. Here SIGTERM stops the consumer
while the loop continues to acknowledge. A cold shutdown, which requeues, follows as soon as nothing
runs or the limit is reached. While Redis is unavailable, the cold shutdown itself blocks on it
(events are sent on the loop). Nothing can be stored then, so the worker ends and its leases lapse.
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

#: Interval at which the drain checks for running tasks, in seconds.
_LOOK_SECONDS = 0.1
#: A read of the queue may take a second; it must end before the check for running tasks counts.
_CANCEL_SECONDS = 2.0
#: A cold shutdown that takes longer than this, in seconds, may be waiting for Redis.
_END_SECONDS = 3.0
#: Consecutive pings without an answer after which Redis counts as unavailable.
_SILENT_PINGS = 2


class Drain:
    """The SIGTERM handler of a worker that is ready."""

    def __init__(self, consumer: Untyped, seconds: float) -> None:
        self._consumer = consumer
        self._seconds = seconds
        self._begun = False

    def __call__(self, *_: object) -> None:
        """Handle SIGTERM; a second one ends the waiting.

        The work runs in a thread: the interrupted code may hold the loop's locks.
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
                time.sleep(_LOOK_SECONDS)
            if state.reserved_requests:
                logger.warning("stop: requeueing what still runs")
        os.kill(os.getpid(), signal.SIGQUIT)
        self._end_without_redis()

    def _end_without_redis(self) -> None:
        silent = 0
        while silent < _SILENT_PINGS:
            time.sleep(_END_SECONDS)
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
        stopped.wait(_CANCEL_SECONDS)


def _answers(leases: Leases) -> bool:
    try:
        return bool(leases.client.ping())
    except ResponseError:  # it is busy
        return True
    except (RedisError, OSError):
        return False


def drain_on_sigterm(sender: Untyped = None, **_: object) -> None:
    """Replace Celery's SIGTERM handler; ``sender`` is the consumer."""
    # At exit, a worker that held many tasks would spend a minute in garbage collection.
    atexit.register(gc.freeze)
    signal.signal(signal.SIGTERM, Drain(sender, get_settings().soft_shutdown_seconds))


def end_on_sigterm(**_: object) -> None:
    """Let SIGTERM, which ``revoke(terminate=True)`` sends, end a child process.

    With ``REMAP_SIGTERM`` Celery makes its child processes ignore SIGTERM. A revoked task then ran
    on, and overwrote the state REVOKED with its progress and finally its failure. The worker's own
    shutdown uses SIGQUIT, and nothing else signals a container's child processes.

    The signal is sent when a child process starts. billiard installs its handlers once more after
    that, so this waits for the first task.
    """
    signals.task_prerun.connect(_take_sigterm)


def _take_sigterm(**_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
