"""What every stack has in front: a plain client, the load that it puts on, and the ledger."""

import gc
import itertools
import threading
import time
from pathlib import Path

from celery import Celery, chord
from celray_testing import wait_for
from redis import Redis

from .ledger import Ledger

#: The queue that everything here goes through.
QUEUE = "default"

#: The settings that docs/submit.md gives to callers.
CALLERS_SETTINGS = {
    "broker_transport_options": {"socket_timeout": 10, "socket_connect_timeout": 5},
    "redis_socket_timeout": 10.0,
    "redis_retry_on_timeout": True,
    "result_backend_always_retry": True,
    "task_publish_retry_policy": {"max_retries": 12, "interval_step": 0.5},
}


class Load:
    """Submits without a pause until it is stopped: short tasks, long ones, ETA tasks, chords."""

    def __init__(self, front: "Front") -> None:
        self._front = front
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Submit no more."""
        self._ended.set()
        self._thread.join(timeout=120)

    def _run(self) -> None:
        for number in itertools.count():
            self._front.submit_next(number)
            if self._ended.wait(self._front.pause):
                return


class Front:
    """A stack as its callers see it.

    Args:
        broker: URL of the broker's database.
        results: URL of the results' database.
        ledger: the file that the tasks write to, or a copy that follows it.
        lease: the stack's visibility timeout, in seconds.
        prefix: what the keys of this case's tasks begin with, where cases share one stack.
    """

    #: Seconds between two submissions of the load.
    pause = 0.1

    def __init__(
        self, broker: str, results: str, ledger: Path, lease: int, prefix: str = ""
    ) -> None:
        self.lease = lease
        self.client = Celery("outside", broker=broker, backend=results, set_as_current=False)
        self.ledger = Ledger(ledger, self.client, prefix)

    def close(self) -> None:
        """Let go of Redis."""
        self.ledger.close()
        # A result unsubscribes when it is collected, and complains without a Redis.
        self.ledger.submitted.clear()
        gc.collect()
        self.client.close()

    def admin(self) -> Redis:
        """Open a client of the broker's database that may do everything."""
        raise NotImplementedError

    def submit(self, key: str, seconds: float, countdown: float | None = None) -> None:
        """Submit one task; an error is the submitter's to see."""
        self.publish(key, "chaos.work", [seconds], countdown)

    def submit_poison(self, key: str, whom: str) -> None:
        """Submit a task that kills who runs it."""
        self.publish(key, "chaos.poison", [whom])

    def publish(
        self, key: str, task: str, args: list[object], countdown: float | None = None
    ) -> None:
        """Submit any task of ours, whose first argument is its key."""
        args = [self.ledger.prefix + key, *args]
        try:
            result = self.client.send_task(task, args=args, queue=QUEUE, countdown=countdown)
        except Exception as error:  # noqa: BLE001 - whatever a submitter is told
            self.ledger.refuse(error)
        else:
            self.ledger.note(key, result)

    def submit_chord(self, key: str) -> None:
        """Submit three tasks and one that waits for them."""

        def part(task: str, *args: object) -> object:
            return self.client.signature(task, args=args, queue=QUEUE, app=self.client)

        full = self.ledger.prefix + key
        header = [part("chaos.work", f"{full}.{i}", 0.05) for i in range(3)]
        try:
            body = part("chaos.join", full)
            result = chord(header, app=self.client)(body)
        except Exception as error:  # noqa: BLE001 - whatever a submitter is told
            self.ledger.refuse(error)
        else:
            self.ledger.note(key, result)

    def submit_next(self, number: int) -> None:
        """Submit the load's next task."""
        if number % 40 == 5:
            self.submit(f"long-{number}", 1.2 * self.lease)
        elif number % 40 == 15:
            self.submit(f"eta-{number}", 0.05, countdown=1.5 * self.lease)
        elif number % 40 == 25:
            self.submit_chord(f"chord-{number}")
        else:
            self.submit(f"short-{number}", 0.02)

    def load(self) -> Load:
        """Submit from now on."""
        return Load(self)

    def wait_for_start(self, key: str, number: int = 1, seconds: float = 60.0) -> float:
        """Wait for a task's n-th start; gives its time."""
        found = wait_for(
            lambda: [run for run in self.ledger.runs() if run.key == key][number - 1 :], seconds
        )
        return found[0].started

    def resumed_after(self, moment: float) -> float | None:
        """Return the seconds from ``moment`` to the next start of a task."""
        after = [run.started for run in self.ledger.runs() if run.started >= moment]
        return min(after) - moment if after else None


def now() -> float:
    """The ledger's clock."""
    return time.time()
