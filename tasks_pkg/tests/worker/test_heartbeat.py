"""The heartbeat file is fresh while the worker really consumes, and only then."""

import time
from pathlib import Path

import pytest
from celery import Celery
from celray_testing import RedisServer, environment, wait_for, worker

#: The workers here beat every 0.2 s.
_STALE = 2.0


def age(file: Path) -> float:
    return time.time() - file.stat().st_mtime if file.exists() else float("inf")


@pytest.mark.slow
def test_it_grows_old_without_consumption_and_without_a_broker(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    process = worker(environment(own_redis, tmp_path), tmp_path, "default", "default,celery")
    client = Celery("outside", broker=own_redis.url(0), backend=own_redis.url(1))
    file = tmp_path / "heartbeat"
    try:
        wait_for(lambda: age(file) < 1)

        # One of its two queues is no longer consumed: the process lives, the work does not.
        client.control.cancel_consumer("celery", reply=True, timeout=5, limit=1)
        wait_for(lambda: age(file) > _STALE)
        process.says("does not consume celery")
        client.control.add_consumer("celery", reply=True, timeout=5, limit=1)
        wait_for(lambda: age(file) < 1)
        process.says("heartbeat: healthy again")

        own_redis.stop()
        wait_for(lambda: age(file) > _STALE)
        assert process.popen.poll() is None

        own_redis.start()
        wait_for(lambda: age(file) < 1, 30)
        assert client.send_task("tasks.simple_tasks.ping").get(timeout=60)["status"] == "pong"
    finally:
        process.kill()
        client.close()


def test_a_busy_worker_is_healthy(own_redis: RedisServer, tmp_path: Path) -> None:
    env = environment(own_redis, tmp_path)
    process = worker(env, tmp_path, "default", "default,celery", "extra_tasks")
    client = Celery("outside", broker=own_redis.url(0), backend=own_redis.url(1))
    try:
        for number in range(12):  # more than it has children
            client.send_task("extra.nap", args=[number, 3])
        process.says("received")
        for _ in range(10):
            time.sleep(0.3)
            assert age(tmp_path / "heartbeat") < _STALE
    finally:
        process.kill()
        client.close()
