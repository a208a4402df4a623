"""Probe the running parts, each with a time limit: Redis, queues, workers, Ray, Beat."""

import json
import time
from collections.abc import Iterable
from typing import Any, cast

import requests
from celery import Celery
from pydantic import BaseModel
from redbeat.decoder import RedBeatJSONDecoder
from redbeat.schedulers import ensure_conf

from tasks.beat.records import LAST_TICK_KEY, MISSED_KEY, REFUSED_KEY
from tasks.broker.redis import queues
from tasks.broker.redis.connection import connect
from tasks.settings import Settings


class RedisState(BaseModel):
    """The state from INFO, in bytes and seconds; ``memory_max_bytes`` 0 means no limit."""

    version: str
    uptime_seconds: int
    memory_used_bytes: int
    memory_peak_bytes: int
    memory_max_bytes: int
    memory_policy: str
    evicted_keys: int
    clients: int
    aof_enabled: bool
    aof_last_write_ok: bool
    last_save_ok: bool


def redis_state(url: str, timeout: float) -> RedisState:
    """Read the state of one Redis.

    Raises:
        redis.exceptions.RedisError: it does not answer, or does not permit INFO.
    """
    with connect(url, timeout) as client:
        client.ping()
        info = cast("dict[str, Any]", client.info())
    return RedisState(
        version=str(info["redis_version"]),
        uptime_seconds=info["uptime_in_seconds"],
        memory_used_bytes=info["used_memory"],
        memory_peak_bytes=info["used_memory_peak"],
        memory_max_bytes=info["maxmemory"],
        memory_policy=info["maxmemory_policy"],
        evicted_keys=info["evicted_keys"],
        clients=info["connected_clients"],
        aof_enabled=bool(info["aof_enabled"]),
        aof_last_write_ok=info.get("aof_last_write_status", "ok") == "ok",
        last_save_ok=info.get("rdb_last_bgsave_status", "ok") == "ok",
    )


def queue_lengths(url: str, names: Iterable[str], timeout: float) -> dict[str, int]:
    """Count the messages that wait in each queue, over all priorities.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    with connect(url, timeout) as client:
        return queues.lengths(client, names)


def live_workers(app: Celery, settings: Settings, timeout: float) -> dict[str, list[str]]:
    """Return the queues that each live worker consumes, by node name.

    The first request ends after as many answers as there are workers that listen. One that was
    killed is still counted; then the request waits the whole time. If an expected worker is
    missing, so does a second request: a busy machine answers late.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    with connect(settings.broker_url.get_secret_value(), timeout) as client:
        listening = queues.listeners(client)
    found: dict[str, list[dict[str, Any]]] = {}
    for limit in (listening, None) if listening else ():
        inspect = app.control.inspect(timeout=timeout, limit=limit)
        found |= inspect.active_queues() or {}
        if not settings.missing_of(found):
            break
    return {node: [queue["name"] for queue in known] for node, known in sorted(found.items())}


class RayState(BaseModel):
    """Ray's live nodes, and its CPUs and memory (bytes)."""

    version: str
    nodes: int
    total_cpus: float
    available_cpus: float
    total_memory_bytes: float
    available_memory_bytes: float
    pending_demands: int


def ray_get(settings: Settings, path: str, timeout: float) -> Any:  # noqa: ANN401 - JSON
    """Read one of the Ray dashboard's JSON documents.

    Raises:
        requests.RequestException: Ray does not answer, or not with 200.
        ConfigurationError: the token cannot be read.
    """
    response = requests.get(
        settings.ray_address + path, headers=settings.ray_headers(), timeout=timeout
    )
    response.raise_for_status()
    return response.json()


def ray_state(settings: Settings, timeout: float) -> RayState:
    """Read Ray's state over HTTP; a worker never joins the cluster.

    Nodes and totals come from the state API, which lists a new node at once. The use comes from the
    autoscaler's report, which Ray renews every few seconds.

    Raises:
        requests.RequestException: Ray does not answer, or not with 200.
        ConfigurationError: the token cannot be read.
    """
    version = ray_get(settings, "/api/version", timeout)["ray_version"]
    listing = ray_get(settings, "/api/v0/nodes?detail=True&limit=1000", timeout)
    alive = [node for node in listing["data"]["result"]["result"] if node["state"] == "ALIVE"]
    status = ray_get(settings, "/api/cluster_status", timeout)["data"]["clusterStatus"] or {}
    report = status.get("loadMetricsReport") or {}
    usage = report.get("usage") or {}

    def total(resource: str) -> float:
        return float(sum(node["resources_total"].get(resource, 0.0) for node in alive))

    def used(resource: str) -> float:
        return float((usage.get(resource) or [0.0])[0])

    return RayState(
        version=version,
        nodes=len(alive),
        total_cpus=total("CPU"),
        available_cpus=max(0.0, total("CPU") - used("CPU")),
        total_memory_bytes=total("memory"),
        available_memory_bytes=max(0.0, total("memory") - used("memory")),
        pending_demands=len(report.get("resourceDemand") or []),
    )


def missing_ray_nodes(settings: Settings, wanted: Iterable[str], timeout: float) -> list[str]:
    """Return those of the wanted nodes, by name, that the head does not list as alive.

    Raises:
        requests.RequestException: Ray does not answer, or not with 200.
        ConfigurationError: the token cannot be read.
    """
    listing = ray_get(settings, "/api/v0/nodes?limit=10000", timeout)["data"]["result"]["result"]
    alive = {node["node_name"] for node in listing if node["state"] == "ALIVE"}
    return [name for name in wanted if name not in alive]


class BeatState(BaseModel):
    """Beat's last tick, whether it holds its lock, and when each entry last ran (ISO, UTC).

    An entry that has never run counts from the moment when it was made: ``never_ran`` names it.
    ``missed`` tells for each entry how the last run that an outage prevented was handled.
    ``refused`` tells for each entry that cannot run what is wrong with it.
    """

    last_tick_seconds_ago: float | None
    lock_held: bool
    last_runs: dict[str, str | None]
    never_ran: list[str] = []
    missed: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}

    def said_of(self, name: str) -> str:
        """Return when an entry last ran, in words."""
        return "never" if name in self.never_ran else self.last_runs[name] or "never"


def refused_entries(settings: Settings, timeout: float) -> dict[str, str]:
    """Return the schedule's entries that Beat cannot run: name and reason.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    with connect(settings.redbeat_url.get_secret_value(), timeout) as client:
        return cast("dict[str, str]", client.hgetall(REFUSED_KEY))


def beat_state(app: Celery, settings: Settings, timeout: float) -> BeatState:
    """Read the records of Beat in Redis.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    conf = ensure_conf(app)
    with connect(settings.redbeat_url.get_secret_value(), timeout) as client:
        tick = cast("str | None", client.get(LAST_TICK_KEY))
        locked = bool(client.exists(conf.lock_key))
        runs: dict[str, str | None] = {}
        never: list[str] = []
        for key in cast("list[str]", client.zrange(conf.schedule_key, 0, -1)):
            raw = cast("str | None", client.hget(key, "meta"))
            meta = json.loads(raw, cls=RedBeatJSONDecoder) if raw else {}
            last = meta.get("last_run_at")
            name = key.removeprefix(conf.key_prefix)
            runs[name] = last.isoformat() if last else None
            if not meta.get("total_run_count"):
                never.append(name)
        missed = cast("dict[str, str]", client.hgetall(MISSED_KEY))
        refused = cast("dict[str, str]", client.hgetall(REFUSED_KEY))
    return BeatState(
        last_tick_seconds_ago=round(time.time() - float(tick), 1) if tick else None,
        lock_held=locked,
        last_runs=runs,
        never_ran=never,
        missed={name: json.loads(text) for name, text in missed.items() if name in runs},
        refused=refused,
    )
