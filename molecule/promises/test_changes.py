"""A change affects only the containers that it concerns, and check predicts them."""

from __future__ import annotations

import copy
import re

from celery import Celery
from deployment import Deployment, Run, defaults
from redis import Redis


def check_then_deploy(deployment: Deployment, expected: dict[str, str]) -> Run:
    """Check changes nothing and names exactly what the deploy then does."""
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
    return done


def test_changes_touch_what_they_concern_and_nothing_else(
    deployment: Deployment, operators_redis: Redis, operator: Celery, client: Celery
) -> None:
    """One deploy with one change of each kind; each container's reason names its change."""
    workers = copy.deepcopy(defaults()["celery_workers"])
    next(worker for worker in workers if worker["name"] == "data")["concurrency"] = 3
    deployment.configure("workers", celery_workers=workers)
    # Redis' own file: queued tasks survive, and running workers reconnect.
    deployment.configure("redis", redis_maxmemory="1gb")
    operator.send_task("somebody.elses", queue="parked")
    # A stopped container is started, not replaced; a removed one is created again.
    deployment.docker("stop", "celery-beat")
    deployment.docker("rm", "--force", "flower")
    before = deployment.look().running()
    expected = {
        "celery-worker-data": "recreate",
        "redis-celery": "recreate",
        "celery-beat": "start",
        "flower": "create",
    }
    done = check_then_deploy(deployment, expected)

    assert re.search(r"celery-worker-data +recreate +command changed$", done.output, re.MULTILINE)
    assert re.search(
        r"redis-celery +recreate +files/redis.conf changed$", done.output, re.MULTILINE
    )
    after = deployment.look()
    command = after.containers["celery-worker-data"]["Config"]["Cmd"]
    assert command[command.index("-c") + 1] == "3"
    assert after.running()["celery-beat"][0] == before["celery-beat"][0]
    assert {box["State"]["Status"] for box in after.containers.values()} == {"running"}
    assert operators_redis.llen("parked") == 1
    operators_redis.delete("parked")
    assert client.send_task("tasks.simple_tasks.ping").get(timeout=60)["status"] == "pong"
