"""A single verdict over all parts. A part that is down is named in it and raises nothing."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import requests
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import BaseModel
from redis.exceptions import RedisError

from tasks.broker.redis.busy import BusyScriptError
from tasks.credentials import ConfigurationError
from tasks.operations import probes
from tasks.operations.probes import RayState, RedisState
from tasks.settings import Settings

T = TypeVar("T")
Level = Literal["degraded", "unhealthy"]
Status = Literal["healthy", "degraded", "unhealthy"]


class Reason(BaseModel):
    """Why the verdict is not healthy: which part, how bad, and what was seen."""

    part: str
    level: Level
    message: str


class ClusterData(BaseModel):
    """Ray's state, with the keys that existing callers read."""

    nodes: int = 0
    total_cpus: float = 0.0
    available_cpus: float = 0.0
    available_memory_bytes: float = 0.0


class WorkersData(BaseModel):
    """The expected workers compared with those that answer: nodes, or names of the catalogue."""

    expected: list[str]
    live: dict[str, list[str]]
    missing: list[str]


class Verdict(BaseModel):
    """The state of the whole service; parts that do not answer are None."""

    status: Status
    reasons: list[Reason]
    cluster_data: ClusterData
    redis: RedisState | None
    results: RedisState | None
    queues: dict[str, int] | None
    workers: WorkersData
    ray: RayState | None


class _Findings:
    """Collects reasons; records a part that does not answer as a reason."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def add(self, part: str, level: Level, message: str) -> None:
        self.reasons.append(Reason(part=part, level=level, message=message))

    def ask(self, part: str, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except (RedisError, OSError, OperationalError, requests.RequestException) as error:
            self.add(part, "unhealthy", f"does not answer: {_error_text(error)}")
        except ConfigurationError as error:
            self.add(part, "unhealthy", str(error))
        except (KeyError, TypeError, ValueError) as error:
            self.add(part, "unhealthy", f"answers in an unknown form: {error!r}")
        return None

    @property
    def status(self) -> Status:
        levels = {reason.level for reason in self.reasons}
        return "unhealthy" if "unhealthy" in levels else "degraded" if levels else "healthy"


def _error_text(error: Exception) -> str:
    """Return the error's own text; for HTTP only the status, since the rest repeats the URL."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "connection refused or lost"
    if isinstance(error, BusyScriptError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _judge_redis(found: _Findings, part: str, redis: RedisState, settings: Settings) -> None:
    if redis.memory_max_bytes:
        percent = 100 * redis.memory_used_bytes / redis.memory_max_bytes
        if redis.memory_used_bytes >= redis.memory_max_bytes:
            found.add(part, "unhealthy", "memory is full: submitters are refused, workers go on")
        elif percent > settings.health_max_redis_memory_percent:
            limit = settings.health_max_redis_memory_percent
            found.add(part, "degraded", f"memory {percent:.0f} % of its limit, more than {limit:g}")
    if redis.evicted_keys:
        message = f"{redis.evicted_keys} keys evicted since its start: it is too small"
        found.add(part, "degraded", message)
    if not redis.aof_enabled:
        found.add(part, "degraded", "append-only file is off: a crash loses queued tasks")
    if not redis.aof_last_write_ok:
        found.add(part, "unhealthy", "cannot write its append-only file: is the disk full?")


def _judge_workers(found: _Findings, live: dict[str, list[str]], settings: Settings) -> WorkersData:
    expected = [*settings.expected_nodes] or [worker.name for worker in settings.workers]
    missing = settings.missing_of(live)
    for name in missing:
        found.add(f"worker {name}", "degraded", "does not answer")
    consumed = {queue for queues in live.values() for queue in queues}
    for queue in settings.queues:
        if queue not in consumed:
            found.add(f"queue {queue}", "unhealthy", "nobody consumes it")
    return WorkersData(expected=expected, live=live, missing=missing)


def _judge_ray(found: _Findings, ray: RayState, settings: Settings) -> None:
    if ray.nodes < settings.health_min_ray_nodes:
        found.add(
            "ray", "degraded", f"{ray.nodes} nodes, fewer than {settings.health_min_ray_nodes}"
        )
    if ray.total_cpus < settings.health_min_ray_cpus:
        found.add(
            "ray",
            "degraded",
            f"{ray.total_cpus:g} CPUs, fewer than {settings.health_min_ray_cpus:g}",
        )


def _judge_nodes(found: _Findings, settings: Settings, wanted: Sequence[str]) -> None:
    timeout = settings.health_timeout_seconds
    missing = found.ask("ray", lambda: probes.missing_ray_nodes(settings, wanted, timeout))
    for name in missing or ():
        found.add(f"ray node {name}", "unhealthy", "the head does not list it as alive")


def check(app: Celery, settings: Settings, ray_nodes: Sequence[str] = ()) -> Verdict:
    """Query every part at once and judge the answers by the thresholds in ``settings``.

    Args:
        app: ours.
        settings: the thresholds, and where the parts are.
        ray_nodes: the nodes, by name, that Ray has to have beside its head.
    """
    found = _Findings()
    timeout = settings.health_timeout_seconds
    broker = settings.broker_url.get_secret_value()
    backend = settings.result_backend_url.get_secret_value()
    with ThreadPoolExecutor(max_workers=5) as pool:
        asked_redis = pool.submit(found.ask, "redis", lambda: probes.redis_state(broker, timeout))
        asked_results = pool.submit(
            found.ask, "results", lambda: probes.redis_state(backend, timeout)
        )
        asked_queues = pool.submit(
            found.ask, "queues", lambda: probes.queue_lengths(broker, settings.queues, timeout)
        )
        asked_workers = pool.submit(
            found.ask, "workers", lambda: probes.live_workers(app, settings, timeout)
        )
        asked_ray = pool.submit(found.ask, "ray", lambda: probes.ray_state(settings, timeout))
    redis, results, ray = asked_redis.result(), asked_results.result(), asked_ray.result()
    queues = asked_queues.result()
    if redis is not None:
        _judge_redis(found, "redis", redis, settings)
        refused = found.ask("schedule", lambda: probes.refused_entries(settings, timeout))
        for name, why in (refused or {}).items():
            found.add(f"schedule {name}", "degraded", f"does not run: {why}")
    if results is not None and backend.rpartition("/")[0] != broker.rpartition("/")[0]:
        _judge_redis(found, "results", results, settings)
    for name, length in (queues or {}).items():
        if length > settings.health_max_queue_length:
            limit = settings.health_max_queue_length
            found.add(f"queue {name}", "degraded", f"{length} messages wait, more than {limit}")
    workers = _judge_workers(found, asked_workers.result() or {}, settings)
    if ray is not None:
        _judge_ray(found, ray, settings)
        if ray_nodes:
            _judge_nodes(found, settings, ray_nodes)
    cluster = (
        ClusterData()
        if ray is None
        else ClusterData(**ray.model_dump(include=set(ClusterData.model_fields)))
    )
    return Verdict(
        status=found.status,
        reasons=found.reasons,
        cluster_data=cluster,
        redis=redis,
        results=results,
        queues=queues,
        workers=workers,
        ray=ray,
    )
