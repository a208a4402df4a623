"""A change touches what it concerns and nothing else, and check says so beforehand."""

from __future__ import annotations

import copy

from celery import Celery
from deployment import Deployment, defaults
from redis import Redis


def check_then_deploy(deployment: Deployment, expected: dict[str, str]) -> None:
    """Check touches nothing and names exactly what the deploy then does, and no more happens."""
    before = deployment.look()
    announced = deployment.check()
    unchanged = deployment.look()
    assert unchanged.running() == before.running()
    assert (unchanged.files, unchanged.images) == (before.files, before.images)
    assert announced.actions == expected

    done = deployment.deploy()
    assert done.actions == expected
    after = deployment.look().running()
    differing = {
        name
        for name in before.running().keys() | after.keys()
        if before.running().get(name) != after.get(name)
    }
    assert differing == set(expected)


def test_concurrency_of_one_worker_recreates_that_container_alone(deployment: Deployment) -> None:
    workers = copy.deepcopy(defaults()["celery_workers"])
    next(worker for worker in workers if worker["name"] == "data")["concurrency"] = 3
    deployment.configure("workers", celery_workers=workers)
    check_then_deploy(deployment, {"celery-worker-data": "recreate"})
    command = deployment.look().containers["celery-worker-data"]["Config"]["Cmd"]
    assert command[command.index("-c") + 1] == "3"


def test_changed_mounted_file_recreates_what_mounts_it_alone(
    deployment: Deployment, operators_redis: Redis, operator: Celery, client: Celery
) -> None:
    """The broker's own file: queued work is there afterwards, and running workers come back."""
    operator.send_task("somebody.elses", queue="parked")
    deployment.configure("redis", redis_maxmemory="1gb")
    check_then_deploy(deployment, {"redis-celery": "recreate"})
    assert operators_redis.llen("parked") == 1
    operators_redis.delete("parked")
    assert client.send_task("tasks.simple_tasks.ping").get(timeout=60)["status"] == "pong"


def test_what_somebody_stopped_or_removed_comes_back(deployment: Deployment) -> None:
    deployment.docker("stop", "celery-beat")
    deployment.docker("rm", "--force", "flower")
    before = deployment.look().running()
    check_then_deploy(deployment, {"celery-beat": "start", "flower": "create"})
    after = deployment.look()
    assert after.running()["celery-beat"][0] == before["celery-beat"][0], "started, not replaced"
    assert {box["State"]["Status"] for box in after.containers.values()} == {"running"}
