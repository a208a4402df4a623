"""The same task for five task queues: it adds one to a counter in Redis, and has a result.

Imported by each queue's own worker, in that queue's own environment. ``python contenders.py NAME
NUMBER`` submits. The Redis is named by BENCH_REDIS, as redis://host:port.
"""

import os
import sys

from redis import Redis

URL = os.environ["BENCH_REDIS"]
DONE = "bench:done"
_counter: list[Redis] = []


def count() -> int:
    """Do the task's work."""
    if not _counter:
        _counter.append(Redis.from_url(f"{URL}/9"))
    return int(str(_counter[0].incr(DONE)))


def celery_task(app: object) -> object:
    """Register the task with a Celery app."""
    return app.task(name="bench.count")(count)  # type: ignore[attr-defined]


def celery_client(databases: tuple[int, int]) -> object:
    """Return a stock Celery app on two databases."""
    from celery import Celery  # noqa: PLC0415 - only where it is installed

    broker, backend = databases
    return Celery("bench", broker=f"{URL}/{broker}", backend=f"{URL}/{backend}")


if os.environ.get("BENCH_IN") == "celray":
    from tasks.app import app as celray

    celery_task(celray)
elif os.environ.get("BENCH_IN") == "celery":
    celery = celery_client((2, 3))
    celery_task(celery)
elif os.environ.get("BENCH_IN") == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=f"{URL}/4")
    broker.add_middleware(Results(backend=RedisBackend(url=f"{URL}/4")))
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(store_results=True, queue_name="bench")(count)
elif os.environ.get("BENCH_IN") == "taskiq":
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

    taskiq = ListQueueBroker(f"{URL}/5").with_result_backend(RedisAsyncResultBackend(f"{URL}/5"))
    kicked = taskiq.task(task_name="bench.count")(count)


def submit(name: str, number: int) -> None:
    """Put ``number`` tasks into the queue of ``name``."""
    if name in {"celery", "celray"}:
        client = celery_client((2, 3) if name == "celery" else (0, 1))
        queue = {} if name == "celery" else {"queue": "default"}
        for _ in range(number):
            client.send_task("bench.count", **queue)  # type: ignore[attr-defined]
    elif name == "dramatiq":
        for _ in range(number):
            actor.send()
    elif name == "rq":
        from rq import Queue  # noqa: PLC0415 - only where it is installed

        queue = Queue(connection=Redis.from_url(f"{URL}/6"))
        for _ in range(number):
            queue.enqueue("contenders.count")
    elif name == "taskiq":
        import asyncio  # noqa: PLC0415 - beside its only use

        async def kick() -> None:
            await taskiq.startup()
            for _ in range(number):
                await kicked.kiq()
            await taskiq.shutdown()

        asyncio.run(kick())


if __name__ == "__main__":
    submit(sys.argv[1], int(sys.argv[2]))
