import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery
from celray_testing import ALONE, Process, RedisServer, StartWorker, environment, worker
from hypothesis import HealthCheck
from hypothesis import settings as examples

from tasks.settings import Settings, get_settings, load_settings

# No deadlines for hypothesis: on a shared machine any example may take a second.
examples.register_profile("celray", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("celray")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a Redis server for this test run, on a free port."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisServer:
    """Return the run's Redis, emptied."""
    redis_server.client(0).flushall()
    return redis_server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Yield a Redis that a test may stop."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def env(redis: RedisServer, tmp_path: Path) -> dict[str, str]:
    """Return the environment variables of one Celery process."""
    return environment(redis, tmp_path)


@pytest.fixture(autouse=True)
def no_new_tasks() -> Iterator[None]:
    """Fail a test that leaves a task in our app: later tests in this process would see it."""
    yield
    loaded = sys.modules.get("tasks.app")
    # To ask for the app makes it, of settings that most tests do not have.
    if loaded and loaded._service.cache_info().currsize:
        names = {name.split(".")[0] for name in loaded.app.tasks}
        assert names <= {"tasks", "celery"}, names


@pytest.fixture
def in_process(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Set the variables of ``env`` for code that runs in the tests' own process."""
    for name, value in env.items():
        if name.startswith(("CELRAY_", "RAY_")):
            monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield env
    get_settings.cache_clear()


@pytest.fixture
def configure(
    in_process: dict[str, str],  # noqa: ARG001 - sets the environment
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Settings]:
    """Return a function that changes settings by field name, and returns all settings."""

    def change(**values: object) -> Settings:
        for name, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"CELRAY_{name.upper()}", text)
        get_settings.cache_clear()
        return get_settings()

    return change


@pytest.fixture
def settings(in_process: dict[str, str]) -> Settings:  # noqa: ARG001 - sets the environment
    """Return the settings of the tests' own process."""
    return load_settings()


@pytest.fixture
def app(in_process: dict[str, str]) -> Celery:  # noqa: ARG001 - sets the environment
    """Return our app in the tests' own process, on this test's Redis."""
    from tasks.app import app as ours  # noqa: PLC0415 - needs the environment

    return ours


@pytest.fixture
def start_worker(env: dict[str, str], tmp_path: Path) -> Iterator[StartWorker]:
    """Yield a function that starts workers; they end with the test in any case."""
    with ExitStack() as stack:

        def start(
            name: str = "default", queues: str = "default,celery", app: str = "tasks", **extra: str
        ) -> Process:
            process = worker({**env, **extra}, tmp_path, name, queues, app)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def client(redis: RedisServer) -> Iterator[Celery]:
    """Yield a client that knows only two URLs, like callers outside."""
    stock = Celery("outside", broker=redis.url(0), backend=redis.url(1), set_as_current=False)
    yield stock
    stock.close()


@pytest.fixture
def alone(
    in_process: dict[str, str],  # noqa: ARG001 - sets the environment
    monkeypatch: pytest.MonkeyPatch,
    start_worker: StartWorker,
) -> Process:
    """Return one worker that consumes all queues."""
    catalogue = json.dumps(ALONE)
    monkeypatch.setenv("CELRAY_WORKERS", catalogue)
    get_settings.cache_clear()
    return start_worker("all", "ml,data,default,celery", CELRAY_WORKERS=catalogue)
