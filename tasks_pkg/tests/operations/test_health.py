"""The verdict names what is wrong, by part, and never raises."""

from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from celray_testing import Answer, HttpService, Process, RedisServer, http_service, ray_answers

from tasks.operations import health
from tasks.settings import Settings

Configure = Callable[..., Settings]


@pytest.fixture
def ray() -> Iterator[HttpService]:
    with http_service(ray_answers()) as service:
        yield service


def reasons(verdict: health.Verdict) -> dict[str, str]:
    return {reason.part: f"{reason.level}: {reason.message}" for reason in verdict.reasons}


def test_all_is_well_when_all_answer(
    alone: Process, app: Celery, configure: Configure, ray: HttpService
) -> None:
    assert alone.popen.poll() is None
    verdict = health.check(app, configure(ray_address=ray.url))
    assert reasons(verdict) == {}
    assert verdict.status == "healthy"
    # A dead node counts for nothing; one CPU of four is in use.
    assert verdict.cluster_data.nodes == 1
    assert verdict.cluster_data.available_cpus == 3.0
    assert verdict.redis is not None
    assert verdict.redis.aof_enabled
    assert verdict.queues == {"ml": 0, "data": 0, "default": 0, "celery": 0}


def test_a_node_that_is_wanted_and_not_alive_is_named(
    alone: Process, app: Celery, configure: Configure, ray: HttpService
) -> None:
    assert alone.popen.poll() is None
    verdict = health.check(app, configure(ray_address=ray.url), ["b9"])
    assert reasons(verdict) == {"ray node b9": "unhealthy: the head does not list it as alive"}
    assert verdict.status == "unhealthy"


def test_nobody_consumes(app: Celery, configure: Configure, ray: HttpService) -> None:
    verdict = health.check(app, configure(ray_address=ray.url))
    assert verdict.status == "unhealthy"
    assert verdict.workers.missing == ["ml", "data", "default"]
    assert reasons(verdict)["queue celery"] == "unhealthy: nobody consumes it"


def test_redis_is_down(app: Celery, configure: Configure, ray: HttpService) -> None:
    gone = "redis://127.0.0.1:1/0"
    verdict = health.check(app, configure(ray_address=ray.url, broker_url=gone))
    assert verdict.status == "unhealthy"
    assert verdict.redis is None
    assert verdict.queues is None
    assert "does not answer" in reasons(verdict)["redis"]
    assert verdict.ray is not None


def test_ray_is_down(app: Celery, configure: Configure) -> None:
    verdict = health.check(app, configure(ray_address="http://127.0.0.1:1"))
    assert reasons(verdict)["ray"] == "unhealthy: does not answer: connection refused or lost"
    assert verdict.cluster_data.nodes == 0


def test_ray_refuses_the_token(app: Celery, configure: Configure, ray: HttpService) -> None:
    ray.answers["/api/version"] = Answer(403)
    verdict = health.check(app, configure(ray_address=ray.url))
    assert reasons(verdict)["ray"] == "unhealthy: does not answer: HTTP 403"


def test_ray_answers_something_else(app: Celery, configure: Configure, ray: HttpService) -> None:
    ray.answers["/api/v0/nodes"] = Answer(body=["surprise"])
    verdict = health.check(app, configure(ray_address=ray.url))
    assert "unknown form" in reasons(verdict)["ray"]


def test_thresholds_are_the_deployments(
    app: Celery, configure: Configure, ray: HttpService, redis: RedisServer
) -> None:
    with redis.client(0) as broker:
        broker.rpush("data", *range(3))
        broker.rpush("data\x06\x163", *range(2))  # the same queue at another priority
    verdict = health.check(
        app,
        configure(
            ray_address=ray.url,
            health_max_queue_length=4,
            health_min_ray_cpus=8,
            health_min_ray_nodes=9,
            health_max_redis_memory_percent=0.01,
        ),
    )
    found = reasons(verdict)
    assert found["queue data"].startswith("unhealthy")  # nobody consumes it, which is worse
    told = {f"{reason.part}: {reason.message}" for reason in verdict.reasons}
    assert "queue data: 5 messages wait, more than 4" in told
    assert "ray: 1 nodes, fewer than 9" in told
    assert "ray: 4 CPUs, fewer than 8" in told
    assert any(text.startswith("redis: memory") for text in told)


def test_the_token_is_sent(
    app: Celery,
    configure: Configure,
    ray: HttpService,
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = f"{tmp_path}/token"
    with open(token, "w") as file:  # noqa: PTH123 - a plain string path, as in the environment
        file.write("abc\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", token)
    health.check(app, configure(ray_address=ray.url))
    assert {headers.get("Authorization") for _, _, headers in ray.seen} == {"Bearer abc"}
