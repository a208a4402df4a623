"""Use every part for real, and report what was observed and how long it took."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import requests
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from tasks import plugins
from tasks.beat.scheduler import Entry
from tasks.broker.redis.connection import connect
from tasks.credentials import ConfigurationError
from tasks.operations import probes
from tasks.operations.report import Check, Container, Report
from tasks.routes import ROUTES
from tasks.samples import SAMPLES, Sample
from tasks.settings import Settings
from tasks.worker.info import WorkerInfo, ask_workers

PING = "tasks.simple_tasks.ping"
HEALTH = "tasks.simple_tasks.check_cluster_health"

#: How long a ping may wait behind other tasks, in seconds.
_PING_SECONDS = 60.0
#: How long Flower, which learns by events, may take to show a task, in seconds.
_FLOWER_SECONDS = 20.0
#: Beat ticks every 5 s; a last tick older than this, in seconds, means that it does not run.
_TICK_LIMIT_SECONDS = 30.0
#: How late an entry may be before it counts as overdue, in seconds.
_LATE_LIMIT_SECONDS = 60.0
#: Attempts of the health check if it finds something: a busy host may have been slow to answer.
_HEALTH_TRIES = 3


class FailedError(Exception):
    """An observation differs from what is expected."""


class Flower(BaseModel):
    """Flower's address and credentials."""

    url: str
    user: str
    password: str


class Request(BaseModel):
    """The input of `verify` on standard input."""

    model_config = ConfigDict(extra="forbid")

    flower: Flower | None = None
    containers: list[Container] = []
    ray_nodes: list[str] = []
    host: dict[str, Any] = {}


def _need(condition: object, message: str) -> None:
    if not condition:
        raise FailedError(message)


@dataclass
class Verification:
    """One run of all checks."""

    app: Celery
    settings: Settings
    request: Request
    checks: list[Check] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    workers: dict[str, WorkerInfo] = field(default_factory=dict)
    last_ping: str | None = None
    tasks: set[str] = field(default_factory=set)
    samples: dict[str, Sample] = field(default_factory=dict)

    def run(self) -> Report:
        """Run all checks; one that fails does not stop the others, unless Redis is unavailable."""
        started, clock = datetime.now(UTC), time.monotonic()
        if self.check("redis", self._redis):
            # Sent first, so that the long ones run during the other checks.
            self._load()
            sent = {
                name: self._send(name, sample.kwargs)
                for name, sample in self.samples.items()
                if sample.after is None
            }
            self.check("ray", self._ray)
            self.check("workers answer", self._workers)
            self.check("tasks registered", self._registered)
            self.check("queues consumed", self._consumed)
            for queue in self.settings.queues:
                self.check(f"queue {queue}", partial(self._queue, queue))
            self.check("result round trip", self._round_trip)
            self.check("code versions", self._code)
            self.check("beat", self._beat)
            if self.request.flower:
                flower = self.request.flower
                self.check("flower access", partial(self._flower_access, flower))
                self.check("flower shows tasks", partial(self._flower_tasks, flower))
            for name in sorted(self.tasks):
                short = name.rpartition(".")[2] if name in ROUTES else name
                self.check(f"task {short}", partial(self._task, name, sent))
        if self.request.containers:
            self.check("containers", self._containers)
        return Report(
            ok=all(check.ok for check in self.checks),
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 2),
            host=self.request.host,
            versions=self.versions,
            containers=self.request.containers,
            checks=self.checks,
        )

    def _load(self) -> None:
        """Load the tasks that must exist, and the samples that may be sent at any time."""
        self.app.loader.import_default_modules()
        loaded = plugins.load(self.app, self.settings)
        self.tasks = plugins.expected(self.settings, loaded)
        self.samples = {**SAMPLES, **plugins.samples(self.settings)}

    def check(self, name: str, question: Callable[[], str]) -> bool:
        """Run a check, and record its outcome and its duration."""
        clock = time.monotonic()
        try:
            detail, ok = question(), True
        except FailedError as error:
            detail, ok = str(error), False
        except CeleryTimeoutError:
            detail, ok = f"no answer in {time.monotonic() - clock:.0f} s", False
        except (RedisError, OSError, OperationalError, ConfigurationError) as error:
            detail, ok = f"{type(error).__name__}: {error}", False
        except (KeyError, TypeError, ValueError) as error:
            detail, ok = f"an answer in an unknown form: {error!r}", False
        seconds = round(time.monotonic() - clock, 3)
        self.checks.append(Check(name=name, ok=ok, seconds=seconds, detail=detail))
        return ok

    # -- Redis --------------------------------------------------------------------------------

    def _redis(self) -> str:
        url, limit = (
            self.settings.broker_url.get_secret_value(),
            self.settings.health_timeout_seconds,
        )
        state = probes.redis_state(url, limit)
        self.versions["redis"] = state.version
        _need(state.aof_enabled, "the append-only file is off: a crash loses queued tasks")
        _need(state.aof_last_write_ok, "the append-only file cannot be written: is the disk full?")
        _need(
            state.memory_policy in {"volatile-lru", "noeviction"},
            f"maxmemory-policy is {state.memory_policy}: it can evict a queue",
        )
        _need(state.memory_max_bytes, "maxmemory is not set: Redis can grow into the memory limit")
        used, most = state.memory_used_bytes / 2**20, state.memory_max_bytes / 2**20
        return (
            f"append-only file on, {state.memory_policy}, {used:.1f} of {most:.0f} MiB, "
            f"{state.evicted_keys} evicted, up {state.uptime_seconds} s"
        )

    # -- workers and queues -------------------------------------------------------------------

    def _workers(self) -> str:
        self.workers = ask_workers(self.app, self.settings.health_timeout_seconds)
        missing = self.settings.missing_of(self.workers)
        _need(not missing, f"no answer from {', '.join(missing)}")
        parts = (f"{node} ({info['processes']} processes)" for node, info in self.workers.items())
        return ", ".join(parts)

    def _registered(self) -> str:
        for node, info in self.workers.items():
            mine = {name for name in info["tasks"] if self._is_ours(name)}
            _need(
                mine == self.tasks,
                f"{node} lacks {sorted(self.tasks - mine)}, has in addition "
                f"{sorted(mine - self.tasks)}",
            )
        names = ", ".join(["celray", *(package.name for package in self.settings.packages)])
        return (
            f"{len(self.tasks)} tasks on each of {len(self.workers)} workers, as declared: {names}"
        )

    def _is_ours(self, name: str) -> bool:
        return name.startswith("tasks.") or self.settings.knows(name)

    def _consumed(self) -> str:
        queues = {worker.name: set(worker.queues) for worker in self.settings.workers}
        drained = sorted(node for node, info in self.workers.items() if info.get("drained"))
        _need(not drained, f"drained: {', '.join(drained)}; make undrain lets them consume again")
        for node, info in self.workers.items():
            expected = queues.get(self.settings.worker_of(node), set())
            _need(
                set(info["queues"]) == expected,
                f"{node} consumes {sorted(info['queues'])}, the catalogue says {sorted(expected)}",
            )
        lengths = probes.queue_lengths(
            self.settings.broker_url.get_secret_value(),
            self.settings.queues,
            self.settings.health_timeout_seconds,
        )
        return ", ".join(f"{name}: {length} waiting" for name, length in lengths.items())

    def _queue(self, queue: str) -> str:
        answer = self._ping(queue)
        owners = {worker.name for worker in self.settings.workers if queue in worker.queues}
        worker = str(answer["worker"])
        _need(
            self.settings.worker_of(worker) in owners,
            f"{worker} answered, the catalogue says {', '.join(sorted(owners))}",
        )
        _need(answer["queue"] == queue, f"it came through queue {answer['queue']!r}")
        for name, value in answer["versions"].items():
            self.versions.setdefault(name, value)
        waited = answer["queue_seconds"]
        return f"{worker} answered" + ("" if waited is None else f", {waited * 1000:.0f} ms queued")

    def _ping(self, queue: str) -> dict[str, Any]:
        result = self.app.send_task(PING, queue=queue)
        self.last_ping = result.id
        answer: dict[str, Any] = result.get(timeout=_PING_SECONDS)
        return answer

    def _round_trip(self) -> str:
        clock = time.monotonic()
        result = self.app.send_task(PING)
        result.get(timeout=_PING_SECONDS)
        took = time.monotonic() - clock
        with connect(
            self.settings.result_backend_url.get_secret_value(),
            self.settings.health_timeout_seconds,
        ) as store:
            life = int(str(store.ttl(f"celery-task-meta-{result.id}")))
        expires = self.settings.result_expires_seconds
        _need(0 < life <= expires, f"the result lives {life} s, it should live {expires} s")
        return f"{took * 1000:.0f} ms, the result expires in {life} s"

    def _code(self) -> str:
        seen: dict[str, list[str]] = {}
        for node, info in self.workers.items():
            seen.setdefault(info["versions"]["code"], []).append(node)
        for box in self.request.containers:
            if box.code:
                seen.setdefault(box.code, []).append(box.place)
        seen.setdefault(self.settings.code_version, []).append("this container")
        text = "; ".join(f"{code}: {', '.join(who)}" for code, who in seen.items())
        _need(len(seen) == 1, f"different code runs: {text}")
        return f"{self.settings.code_version} everywhere"

    # -- tasks --------------------------------------------------------------------------------

    def _send(self, name: str, kwargs: dict[str, Any]) -> AsyncResult | None:
        try:
            return self.app.send_task(name, kwargs=kwargs)
        except (RedisError, OSError, OperationalError):
            return None  # its own check says so

    def _task(self, name: str, sent: dict[str, AsyncResult | None]) -> str:
        if name not in self.samples:
            return "not sent: it has no safe sample"
        sample = self.samples[name]
        if sample.after is None:
            pending = sent[name]
        else:
            first = sent[sample.after]
            _need(first is not None, f"{sample.after}, whose result it needs, could not be sent")
            earlier = self._outcome(first, self.samples[sample.after])
            taken = {argument: earlier[key] for argument, key in sample.takes.items()}
            pending = self._send(name, {**sample.kwargs, **taken})
        if pending is None:
            message = "could not be sent"
            raise FailedError(message)
        result = self._outcome(pending, sample)
        for _ in range(_HEALTH_TRIES - 1):
            if name != HEALTH or result.get("status") in sample.statuses:
                break
            result = self._outcome(self.app.send_task(name, kwargs=sample.kwargs), sample)
        status = result.get("status")
        told = "; ".join(f"{r['part']}: {r['message']}" for r in result.get("reasons", []))
        _need(status in sample.statuses, f"status {status!r}" + (f" ({told})" if told else ""))
        keys = (
            "avg_score",
            "total_samples",
            "total_predictions",
            "reused",
            "results_deleted",
            "files_deleted",
        )
        facts = ", ".join(f"{key} {result[key]}" for key in keys if key in result)
        return f"status {status!r}" + (f", {facts}" if facts else "")

    def _outcome(self, pending: AsyncResult, sample: Sample) -> dict[str, Any]:
        pending.get(timeout=sample.seconds, propagate=False)
        if not pending.successful():
            message = f"{pending.state}: {type(pending.result).__name__}: {pending.result}"
            raise FailedError(message)
        _need(isinstance(pending.result, dict), f"result {pending.result!r} is no mapping")
        result: dict[str, Any] = pending.result
        return result

    # -- Ray, Beat, Flower, containers ----------------------------------------------------------

    def _ray(self) -> str:
        try:
            ray = probes.ray_state(self.settings, self.settings.health_timeout_seconds)
        except requests.HTTPError as error:
            message = f"{self.settings.ray_address} answers HTTP {error.response.status_code}"
            raise FailedError(message) from None
        self.versions["ray head"] = ray.version
        client = self._client_version()
        _need(ray.version == client, f"the head runs Ray {ray.version}, workers have {client}")
        _need(ray.nodes >= 1, "no node is alive")
        wanted, limit = self.request.ray_nodes, self.settings.health_timeout_seconds
        gone = probes.missing_ray_nodes(self.settings, wanted, limit) if wanted else []
        _need(not gone, f"nodes that are not alive: {', '.join(gone)}")
        refused = requests.get(
            self.settings.ray_address + "/api/version",
            timeout=self.settings.health_timeout_seconds,
        ).status_code
        if self.settings.ray_auth_mode == "token":
            _need(refused == requests.codes.unauthorized, f"HTTP {refused} without a token")
        return (
            f"{ray.nodes} nodes, {ray.available_cpus:g} of {ray.total_cpus:g} CPUs free, "
            f"HTTP {refused} without a token"
        )

    def _client_version(self) -> str:
        from tasks.versions import versions  # noqa: PLC0415 - reads the settings

        return versions()["ray"]

    def _beat(self) -> str:
        state = probes.beat_state(self.app, self.settings, self.settings.health_timeout_seconds)
        ago = state.last_tick_seconds_ago
        _need(ago is not None, "it has never ticked")
        _need(state.lock_held, "nobody holds its lock")
        if ago is not None:
            _need(ago < _TICK_LIMIT_SECONDS, f"its last tick was {ago:.0f} s ago")
        broken = "; ".join(f"{name}: {why}" for name, why in state.refused.items())
        _need(not broken, f"entries that do not run: {broken}")
        late = sorted(self._overdue(state.last_runs))
        _need(not late, f"overdue: {', '.join(late)}")
        runs = ", ".join(f"{name} last ran {state.said_of(name)}" for name in state.last_runs)
        return f"ticked {ago} s ago; " + (runs or "nothing is scheduled")

    def _overdue(self, names: Iterable[str]) -> Iterable[str]:
        prefix = self.app.conf.redbeat_key_prefix
        for name in names:
            with suppress(KeyError):
                entry = Entry.from_key(prefix + name, app=self.app)
                if entry.last_run_at is None:
                    continue
                remaining = entry.schedule.remaining_estimate(entry.last_run_at).total_seconds()
                if remaining < -_LATE_LIMIT_SECONDS:
                    yield f"{name} by {-remaining:.0f} s"

    def _flower_get(self, flower: Flower, path: str, password: str | None) -> requests.Response:
        auth = None if password is None else (flower.user, password)
        return requests.get(flower.url.rstrip("/") + path, auth=auth, timeout=10)

    def _flower_access(self, flower: Flower) -> str:
        for words, password, expected in (
            ("without a password", None, 401),
            ("with a wrong password", flower.password + "x", 401),
            ("with the password", flower.password, 200),
        ):
            got = self._flower_get(flower, "/api/workers", password).status_code
            _need(got == expected, f"its API answers HTTP {got} {words}, it should be {expected}")
        page = self._flower_get(flower, "/tasks", flower.password)
        _need(page.ok and "<html" in page.text.lower(), f"its task page: HTTP {page.status_code}")
        return "API: 401 without or with a wrong password, 200 with it; the task page loads"

    def _flower_tasks(self, flower: Flower) -> str:
        _need(self.last_ping, "no ping was answered that it could show")
        deadline = time.monotonic() + _FLOWER_SECONDS
        seen = "nothing"
        while time.monotonic() < deadline:
            answer = self._flower_get(flower, f"/api/task/info/{self.last_ping}", flower.password)
            if answer.ok:
                info = answer.json()
                seen = info.get("state", "?")
                if seen == "SUCCESS":
                    return f"{info.get('name')} on {info.get('worker')}: SUCCESS"
            time.sleep(0.5)
        message = f"it shows {seen} of a ping that was answered: do the workers send events?"
        raise FailedError(message)

    def _containers(self) -> str:
        bad = [
            f"{box.place} is {box.state}" + (f" and {box.health}" if box.health else "")
            for box in self.request.containers
            if box.state != "running" or box.health not in {"healthy", None}
        ]
        _need(not bad, "; ".join(bad))
        return f"{len(self.request.containers)} run, and are healthy where they have a check"
