"""The services that clients and people reach over the network, from the control node."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from deployment import Deployment, defaults, eventually, in_default_alone
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from testinfra.host import Host


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Request a URL without a proxy; return status and body."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - http, ours
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


# --- Redis, as every existing client uses it


def test_client_with_nothing_but_the_url_gets_a_result(client: Celery) -> None:
    """A client that names no queue uses Celery's own default queue (P3)."""
    result = client.send_task("tasks.simple_tasks.ping").get(timeout=60)
    assert result["status"] == "pong"
    assert result["worker"]


@pytest.mark.parametrize("queue", ["ml", "data", "default"])
def test_every_queue_is_served_by_its_own_worker(client: Celery, queue: str) -> None:
    result = client.send_task("tasks.simple_tasks.ping", queue=queue).get(timeout=60)
    assert str(result["worker"]).startswith(f"{queue}@")


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET requirepass",
        "KEYS *",
        "SHUTDOWN NOSAVE",
        "ACL LIST",
        "DEBUG SLEEP 0",
        "MONITOR",
        "BGREWRITEAOF",
        "REPLICAOF NO ONE",
        "MODULE LIST",
        "SCRIPT FLUSH",
        "CLIENT KILL TYPE normal",
        "RPOP ml",
        "LRANGE ml 0 -1",
        "SCRIPT LOAD return",
        "PUBLISH /0.celery.pidbox x",
    ],
)
def test_default_user_may_not_do_what_is_dangerous(redis: Redis, command: str) -> None:
    # Redis 8 refuses DEBUG to everybody, before it checks the user's rights.
    with pytest.raises(ResponseError, match=r"has no permissions|^DEBUG command not allowed"):
        redis.execute_command(*command.split())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("login", ["", "default:wrong@", ":wrong@", "celray:wrong@", "admin:x@"])
def test_nobody_gets_in_without_the_password(deployment: Deployment, login: str) -> None:
    with (
        Redis.from_url(f"redis://{login}{deployment.address}:6380/0") as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.llen("celery")


def test_health_user_may_do_nothing_but_ping(deployment: Deployment) -> None:
    with Redis.from_url(f"redis://health:health@{deployment.address}:6380/0") as health:
        assert health.execute_command("PING")
        for command in ("LLEN celery", "GET x", "PUBLISH x y", "INFO"):
            with pytest.raises(NoPermissionError):
                health.execute_command(*command.split())


# --- Flower and Ray


def test_flower_asks_for_the_password_and_knows_the_workers(deployment: Deployment) -> None:
    url = f"http://{deployment.address}:5555/api/workers"
    assert get(url)[0] == 401
    assert get(url, basic("admin", "wrong"))[0] == 401
    login = basic("admin", deployment.canaries["flower_password"])

    def knows_all() -> bool:
        code, body = get(f"{url}?refresh=1", login)
        names = {node.split("@")[0] for node in json.loads(body)} if code == 200 else set()
        return names >= {"ml", "data", "default"}

    eventually(knows_all, 40, "Flower lists the three workers")


def test_ray_answers_the_token_and_nobody_else(deployment: Deployment) -> None:
    url = f"http://{deployment.address}:8265/api/jobs/"
    assert get(url)[0] == 401
    assert get(url, {"Authorization": "Bearer wrong"})[0] in (401, 403)
    token = deployment.canaries["ray_auth_token"]
    assert get(url, {"Authorization": f"Bearer {token}"})[0] == 200


def test_services_listen_on_the_promised_addresses_only(deployment: Deployment, host: Host) -> None:
    listening = defaultdict(set)
    for line in host.check_output("ss -Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        listening[int(port)].add(address.strip("[]").removeprefix("::ffff:"))
    promised = {deployment.address, "127.0.0.1", "::1"}
    for name in ("redis", "flower", "ray_dashboard", "ray_client", "ray_agent_http"):
        addresses = listening[defaults()[f"celray_port_{name}"]]
        assert addresses, f"nothing listens for {name}"
        assert addresses <= promised, f"{name} listens on {addresses}"

    # sshd belongs to the host; 127.0.0.11 is the name server of the test host's network.
    elsewhere = {port for port, where in listening.items() if where - promised - {"127.0.0.11"}}
    # Ray binds its ports to every address if its node has one that is not loopback.
    pinned = {port for name, port in defaults().items() if name.startswith("celray_port_ray_")}
    for name in ("ray_gcs", "ray_metrics", "ray_autoscaler_metrics", "ray_dashboard_metrics"):
        assert listening[defaults()[f"celray_port_{name}"]], f"{name} is not on its port"
    unpinned = elsewhere - pinned - {22}
    workers = range(
        defaults()["celray_port_ray_workers_first"], defaults()["celray_port_ray_workers_last"] + 1
    )
    assert not [port for port in unpinned if port not in workers]


# --- failures


def test_killed_worker_comes_back_by_itself(deployment: Deployment, client: Celery) -> None:
    def inspect() -> dict[str, Any]:
        return deployment.look().containers["celery-worker-default"]

    pid = inspect()["State"]["Pid"]
    deployment.ssh("sudo", "kill", "-KILL", str(pid))
    eventually(lambda: inspect()["RestartCount"] > 0, 30, "the engine restarts the worker")
    result = client.send_task("tasks.simple_tasks.ping", queue="default").get(timeout=60)
    assert result["status"] == "pong"


def test_what_redis_took_is_there_after_its_container_was_killed(
    deployment: Deployment, client: Celery, operators_redis: Redis
) -> None:
    with operators_redis.pipeline(transaction=True) as pipe:
        pipe.lpush("celray-promise", "a")
        pipe.expire("celray-promise", 600)
        pipe.execute()
    later = client.send_task("tasks.simple_tasks.ping", queue="default", countdown=10)
    eventually(lambda: operators_redis.hlen("celray:held") > 0, 20, "a worker holds the task")
    # everysec: a write waits up to 2 s for the previous sync, and is lost if the process ends.
    time.sleep(3)
    pid = deployment.look().containers["redis-celery"]["State"]["Pid"]
    deployment.ssh("sudo", "kill", "-KILL", str(pid))

    def is_back() -> bool:
        with suppress(RedisConnectionError):
            return bool(operators_redis.ping())
        return False

    eventually(is_back, 60, "Redis is back")
    assert operators_redis.lrange("celray-promise", 0, -1) == [b"a"]
    assert later.get(timeout=60)["status"] == "pong"
    assert "NOPERM" not in deployment.docker("logs", "--tail", "200", "redis-celery")


@in_default_alone("the same image and health check in every scenario; takes a minute")
def test_worker_that_does_not_consume_is_unhealthy(
    deployment: Deployment, operator: Celery
) -> None:
    def health() -> str:
        box = deployment.look().containers["celery-worker-ml"]
        return str(box["State"]["Health"]["Status"])

    eventually(lambda: health() == "healthy", 60, "the worker is healthy at first")
    operator.control.cancel_consumer("ml", reply=True, timeout=5)
    eventually(lambda: health() == "unhealthy", 120, "a worker without its queue is unhealthy")
    # For this worker only: without a destination every worker would consume ml from then on.
    node = f"ml@{deployment.ssh('hostname').strip()}"
    operator.control.add_consumer("ml", destination=[node], reply=True, timeout=5)
    eventually(lambda: health() == "healthy", 60, "with its queue it is healthy again")
