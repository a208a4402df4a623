"""The settings of the deployment, typed; only this module reads the environment.

Values come from ``CELRAY_<NAME>`` or, for secrets, from a file ``celray_<name>`` in the secrets
directory (``/run/secrets``). A missing or wrong one stops the process at start with a
:class:`ConfigurationError` that names the value, its source and what to do.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tasks import catalogue_rules as rules
from tasks import schedules
from tasks.credentials import PREFIX, ConfigurationError, RedisUrl, Strict
from tasks.routes import ROUTES

DEFAULT_SECRETS_DIR = "/run/secrets"

#: The fields that are read from files because they hold a password or a token.
SECRET_FILES = frozenset({"broker_url", "result_backend_url", "redbeat_url", "notify_channels"})

#: What to edit for the fields that have another name in the inventory.
_WAYS_OUT = {
    "workers": "correct `celery_workers` in the inventory and deploy again",
    "worker_name": "correct `celery_workers` in the inventory and deploy again",
    "beat_schedule": "correct the beat schedule in the inventory and deploy again",
    "packages": "correct `celery_packages` in the inventory and deploy again",
    "ray_runtime_env": "correct `ray_runtime_env` in the inventory and deploy again",
    "notify_channels": "correct the notification channels in the inventory and deploy again",
}

#: A host that cannot exist (RFC 2606): it stands for Redis where there is none.
_NOWHERE = "no-broker.invalid"

#: Node names of replicas and of the stand-ins in a rolling update.
_REPLICA = re.compile(r"(.+)-(?:\d+|stand-in)")


def _name(value: str) -> str:
    if not rules.is_name(value):
        message = f"{value!r} must be letters, digits, '_', '.' or '-', and start with no sign"
        raise ValueError(message)
    return value


Name = Annotated[str, AfterValidator(_name)]


class WorkerSpec(Strict):
    """One worker of the catalogue: its name and the queues that it consumes."""

    name: Name
    queues: tuple[Name, ...] = Field(min_length=1)


class PackageSpec(Strict):
    """A third-party task package: its distribution's name, and the queue of each of its tasks.

    ``queues`` maps a task's name, or a pattern with ``*``, to a queue. A single queue applies to
    every task whose name begins with the package's name and a dot.
    """

    name: Annotated[Name, AfterValidator(rules.canonical)]
    queues: dict[str, Name] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _one_queue_for_all(cls, value: object) -> object:
        if isinstance(value, dict) and isinstance(value.get("queues"), str):
            return {**value, "queues": rules.routes_of(str(value.get("name")), value["queues"])}
        return value

    @model_validator(mode="after")
    def _own_names(self) -> Self:
        for pattern in self.queues:
            if rules.is_reserved(pattern, ROUTES):
                message = (
                    f"package {self.name!r} declares {pattern!r}: names that begin with "
                    f"{' or '.join(map(repr, rules.RESERVED))} are celray's and Celery's"
                )
                raise ValueError(message)
        return self

    def queue_of(self, task: str) -> str | None:
        """Return a task's queue; None if the package does not declare the task."""
        return rules.queue_of(task, self.queues)


class RayRuntimeEnv(Strict):
    """What every Ray job gets besides its code: packages that pip installs, and variables."""

    pip: tuple[str, ...] = ()
    env_vars: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it


class ScheduleSpec(Strict):
    """One entry of Beat's schedule: exactly one of ``every_seconds`` and ``cron`` (UTC).

    ``missed`` decides about runs that were due while Beat or Redis was unavailable: ``run`` sends
    one as soon as both are available, ``skip`` waits for the next time.
    """

    name: str = Field(min_length=1)
    task: str
    queue: Name | None = None
    every_seconds: float | None = None
    cron: str | None = None
    missed: Literal["run", "skip"] = "run"


@dataclass(frozen=True)
class Schedule:
    """The entries that Beat runs, and for each entry that it cannot run the reason."""

    entries: tuple[ScheduleSpec, ...]
    refused: Mapping[str, str]


class Settings(BaseSettings):
    """The settings of the deployment. Names carry the units; defaults are nowhere else."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True, defer_build=True
    )

    # Locations.
    broker_url: RedisUrl
    result_backend_url: RedisUrl
    redbeat_url: RedisUrl
    ray_address: str = Field(default="http://127.0.0.1:8265", pattern=r"^https?://[^/\s]+$")
    ray_auth_mode: Literal["token", "disabled"] = Field(
        default="token", validation_alias="RAY_AUTH_MODE"
    )
    ray_auth_token_path: Path = Field(
        default=Path(DEFAULT_SECRETS_DIR, "ray_auth_token"), validation_alias="RAY_AUTH_TOKEN_PATH"
    )
    ray_runtime_env: RayRuntimeEnv = RayRuntimeEnv()
    mlflow_tracking_uri: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    job_runner: Literal["jobs-api", "local-ray", "local-plain"] = "jobs-api"
    datasets_dir: Path = Path("/datasets")
    models_dir: Path = Path("/models")
    runs_dir: Path = Path("/models/.runs")
    # The spool for results that Redis has not taken; None: such a task runs again.
    outcomes_dir: Path | None = None
    code_version: str = "unknown"

    # Workers, packages and schedule.
    workers: tuple[WorkerSpec, ...] = Field(min_length=1)
    worker_name: str | None = None
    # The node's name before the @ if it is not the worker's: that of a replica or a stand-in.
    node_name: Name | None = None
    # The nodes that answer if all is well, such as data-2@host. `make status` and `make verify`
    # take them from the inventory; without them each worker of the catalogue is expected once.
    expected_nodes: tuple[str, ...] = ()
    packages: tuple[PackageSpec, ...] = ()
    # As given: `schedule` leaves out a wrong entry, so that it stops neither Beat nor other
    # entries.
    beat_schedule: tuple[Any, ...] = ()
    beat_max_interval_seconds: float = Field(default=5.0, gt=0)
    heartbeat_file: Path = Path("/tmp/heartbeat")  # noqa: S108 - the container's own tmpfs
    heartbeat_seconds: float = Field(default=5.0, gt=0)

    # Durations and limits.
    result_expires_seconds: int = Field(default=86_400, ge=60)
    visibility_timeout_seconds: int = Field(default=60, ge=5)
    max_deliveries: int = Field(default=3, ge=1)
    soft_shutdown_seconds: float = Field(default=20.0, ge=0)
    runs_max_age_days: float = Field(default=30.0, gt=0)

    # Notifications.
    notify_channels: dict[str, SecretStr] = {}
    notify_dedupe_seconds: int = Field(default=300, ge=0)
    notify_max_retries: int = Field(default=5, ge=0)
    notify_backoff_seconds: float = Field(default=5.0, gt=0)

    # Thresholds of the health check.
    health_timeout_seconds: float = Field(default=3.0, gt=0)
    health_min_ray_nodes: int = Field(default=1, ge=0)
    health_min_ray_cpus: float = Field(default=1.0, ge=0)
    health_max_queue_length: int = Field(default=1_000, ge=0)
    health_max_redis_memory_percent: float = Field(default=90.0, gt=0, le=100)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [worker.name for worker in self.workers]
        if twice := schedules.twice(names):
            message = f"workers: {', '.join(twice)} named more than once"
            raise ValueError(message)
        if self.worker_name is not None and self.worker_name not in names:
            message = f"worker_name: {self.worker_name!r} is not in workers ({', '.join(names)})"
            raise ValueError(message)
        for place in (self.models_dir, self.datasets_dir):
            if place.is_relative_to(self.runs_dir):
                message = f"runs_dir: {self.runs_dir} is cleaned up and must not hold {place}"
                raise ValueError(message)
        self._packages_are_told_apart()
        for task, queue in rules.unconsumed(self.routes, self.queues).items():
            message = (
                f"workers: task {task} is routed to queue {queue!r}, which no worker "
                f"consumes (queues: {', '.join(self.queues)})"
            )
            raise ValueError(message)
        return self

    def _packages_are_told_apart(self) -> None:
        if twice := schedules.twice(package.name for package in self.packages):
            message = f"packages: {twice[0]} is named more than once"
            raise ValueError(message)
        for pattern, first, second in rules.declared_twice(
            (package.name, package.queues) for package in self.packages
        ):
            message = f"packages: {pattern!r} is declared by {first} and by {second}"
            raise ValueError(message)

    @property
    def routes(self) -> dict[str, str]:
        """Return the queue of each task or pattern: celray's own, then those of the packages."""
        return {
            **ROUTES,
            **{task: queue for package in self.packages for task, queue in package.queues.items()},
        }

    @cached_property
    def schedule(self) -> Schedule:
        """Return the schedule; each entry is checked by itself and by the rules of preflight."""
        entries: dict[str, ScheduleSpec] = {}
        refused: dict[str, str] = {}
        for number, entry in enumerate(self.beat_schedule, 1):
            name = schedules.entry_name(entry)
            name = f"number {number}" if name == "?" else name
            wrong = [f"{what}; {fix}" for what, fix in schedules.problems(entry)]
            if not wrong:
                wrong = self._misplaced(entry)
            if not wrong and name in entries:
                wrong = ["another entry has that name, and runs; give each its own"]
            if wrong:
                refused[name if name not in entries else f"{name} (number {number})"] = wrong[0]
                continue
            try:
                entries[name] = ScheduleSpec.model_validate(entry)
            except ValidationError as error:
                refused[name] = error.errors()[0]["msg"]
        return Schedule(tuple(entries.values()), refused)

    def _misplaced(self, entry: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with an entry in relation to the other settings."""
        if not self.knows(str(entry["task"])):
            known = ", ".join(sorted(self.routes))
            return [f"task {entry['task']!r} does not exist; there are: {known}"]
        queue = entry.get("queue")
        if queue is not None and queue not in self.queues:
            known = ", ".join(self.queues)
            return [f"it goes to queue {queue!r}, which no worker consumes (queues: {known})"]
        return []

    def knows(self, task: str) -> bool:
        """Return whether a task is celray's own or declared by a package."""
        return task in ROUTES or any(package.queue_of(task) for package in self.packages)

    @property
    def without_broker(self) -> bool:
        """Return whether tasks run in the caller's own process: see :func:`local_settings`."""
        return urlsplit(self.broker_url.get_secret_value()).hostname == _NOWHERE

    @property
    def queues(self) -> tuple[str, ...]:
        """Return every queue that a worker of the catalogue consumes, in catalogue order."""
        return tuple(dict.fromkeys(queue for worker in self.workers for queue in worker.queues))

    def worker_of(self, node: str) -> str:
        """Return the catalogue's name for a node such as ``data-2@host``, a replica of ``data``.

        A node that is not in the catalogue keeps its name.
        """
        name = node.partition("@")[0]
        names = {worker.name for worker in self.workers}
        replica = _REPLICA.fullmatch(name)
        return replica[1] if replica and name not in names and replica[1] in names else name

    def missing_of(self, nodes: Iterable[str]) -> list[str]:
        """Return who is expected and not among these: nodes, or workers of the catalogue."""
        live = set(nodes)
        if self.expected_nodes:
            return [node for node in self.expected_nodes if node not in live]
        names = {self.worker_of(node) for node in live}
        return [worker.name for worker in self.workers if worker.name not in names]

    @property
    def own_queues(self) -> tuple[str, ...]:
        """Return the queues of this process's own catalogue entry; none in Beat and Flower."""
        return next((w.queues for w in self.workers if w.name == self.worker_name), ())

    def ray_headers(self) -> dict[str, str]:
        """Return the HTTP headers that Ray's dashboard requires.

        Raises:
            ConfigurationError: the token file cannot be read.
        """
        if self.ray_auth_mode == "disabled":
            return {}
        try:
            token = self.ray_auth_token_path.read_text(encoding="utf-8").strip()
        except OSError as error:
            message = (
                f"RAY_AUTH_TOKEN_PATH: cannot read {self.ray_auth_token_path}: {error.strerror}; "
                "deploy again, which writes the token"
            )
            raise ConfigurationError(message) from None
        return {"Authorization": f"Bearer {token}"}


def _source(field: str) -> str:
    if field in SECRET_FILES:
        return f"file {secrets_dir() / (PREFIX.lower() + field)}"
    return f"environment variable {PREFIX}{field.upper()}"


def _explain(error: ErrorDetails) -> str:
    """Return one clause for an error, without the value: it may hold a password."""
    location = [str(part) for part in error["loc"]]
    text = error["msg"].removeprefix("Value error, ")
    if not location:  # a model's own error starts with the field's name
        field, _, text = text.partition(": ")
    else:
        field, path = location[0], ".".join(location[1:])
        field = field.removeprefix(PREFIX).lower()
        if error["type"] == "missing":
            text = f"{path} is missing" if path else "is missing"
        elif path:
            text = f"{path}: {text}"
    if field.startswith("ray_auth"):
        return f"{field.upper()} (environment variable): {text}"
    way_out = _WAYS_OUT.get(field, "deploy again, which writes it")
    return f"{field} ({_source(field)}): {text}; {way_out}"


def secrets_dir() -> Path:
    """Return the directory that holds the secret files."""
    return Path(os.environ.get(f"{PREFIX}SECRETS_DIR", DEFAULT_SECRETS_DIR))


def load_settings() -> Settings:
    """Read the settings from the environment and the secret files.

    Raises:
        ConfigurationError: names every missing or wrong value, its source, and what to do.
    """
    directory = secrets_dir()
    try:
        # A missing directory is no error by itself: tests pass everything by environment.
        return Settings(_secrets_dir=directory if directory.is_dir() else None)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(e) for e in error.errors())) from None
    except SettingsError as error:  # a value that is not JSON; the message names only the field
        found = re.search(r'field "(\w+)"', str(error))
        field = found.group(1) if found else "settings"
        message = f"{field} ({_source(field)}): is not valid JSON; " + _WAYS_OUT.get(
            field, "deploy again, which writes it"
        )
        raise ConfigurationError(message) from None
    except PermissionError as error:
        message = f"cannot read {error.filename}: it must belong to the user the container runs as"
        raise ConfigurationError(message) from None


_IN_USE: list[Settings] = []


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the process's settings, read once; those of :func:`using` come first.

    Raises:
        ConfigurationError: see :func:`load_settings`.
    """
    return _IN_USE[-1] if _IN_USE else load_settings()


@contextmanager
def using(settings: Settings) -> Iterator[None]:
    """Make :func:`get_settings` return these settings meanwhile."""
    _IN_USE.append(settings)
    get_settings.cache_clear()
    try:
        yield
    finally:
        _IN_USE.pop()
        get_settings.cache_clear()


def local_settings(datasets_dir: Path, models_dir: Path, engine: str) -> Settings:
    """Return settings for tasks in the caller's own process: no broker, no worker, no service.

    Args:
        datasets_dir: stands for ``/datasets`` of a service.
        models_dir: stands for ``/models`` of a service.
        engine: ``ray`` runs jobs on their own Ray, ``plain`` without Ray.

    Raises:
        ConfigurationError: a ``CELRAY_`` variable of the environment is wrong.
    """
    nowhere = SecretStr(f"redis://{_NOWHERE}:1/0")
    models = models_dir.resolve()
    try:
        return Settings(
            broker_url=nowhere,
            result_backend_url=nowhere,
            redbeat_url=nowhere,
            job_runner="local-plain" if engine == "plain" else "local-ray",
            datasets_dir=datasets_dir.resolve(),
            models_dir=models,
            runs_dir=models / ".runs",
            code_version="local",
            workers=(WorkerSpec(name="local", queues=tuple(sorted(set(ROUTES.values())))),),
            worker_name=None,
            packages=(),
            beat_schedule=(),
            notify_dedupe_seconds=0,  # sent messages are recorded in Redis
        )
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(e) for e in error.errors())) from None
