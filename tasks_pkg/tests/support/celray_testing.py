"""Helpers that the tests share: a Redis server, workers as real processes, waiting."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from celray_programs import Program
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

T = TypeVar("T")

#: The list in Redis (database 5 of the broker) to which tasks of `extra_tasks` write their traces.
TRACES = "traces"

PACKAGE = Path(__file__).parents[2]
CATALOGUE = [
    {"name": "ml", "queues": ["ml"]},
    {"name": "data", "queues": ["data"]},
    {"name": "default", "queues": ["default", "celery"]},
]
#: Beat as it is deployed (compose/beat.yml.j2).
BEAT = ("-A", "tasks", "beat", "-S", "tasks.beat.scheduler:Scheduler", "--pidfile=", "-l", "INFO")
#: A catalogue with one worker that consumes all queues.
ALONE = [{"name": "all", "queues": ["ml", "data", "default", "celery"]}]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(question: Callable[[], T], seconds: float = 60.0) -> T:
    """Repeat a question until the answer is true, and return it; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return answer


@dataclass
class RedisServer:
    """A redis-server process on its own port, which can be stopped and started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None
    options: tuple[str, ...] = ()

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is missing: apt-get install redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        options += ["--appendonly", "yes", "--save", "", "--maxmemory", "200mb"]
        options += ["--maxmemory-policy", "noeviction"]
        self.process = subprocess.Popen(
            [program, *options, *self.options], stdout=subprocess.DEVNULL
        )
        wait_for(self.answers)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    def answers(self) -> bool:
        try:
            with self.client(0) as client:
                return bool(client.ping())
        except RedisConnectionError:
            return False

    def url(self, db: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    def client(self, db: int) -> Redis:
        return Redis(port=self.port, db=db, decode_responses=True)


@contextmanager
def full(redis: RedisServer, share: float = 0.98) -> Iterator[Redis]:
    """Set Redis' memory limit to a share of the memory that it uses; yield a client."""
    with redis.client(0) as broker:
        broker.setrange("ballast", 20_000_000, "x")
        used = int(broker.info("memory")["used_memory"])
        broker.config_set("maxmemory", int(share * used))
        try:
            with pytest.raises(OutOfMemoryError):
                broker.set("something", "more")
            yield broker
        finally:
            broker.delete("ballast")
            broker.config_set("maxmemory", "200mb")


def environment(redis: RedisServer, folder: Path, **extra: str) -> dict[str, str]:
    """Return the environment of one of our Celery processes, without the caller's variables."""
    for name in ("datasets", "models/.runs", "outcomes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": f"{PACKAGE / 'src'}:{PACKAGE / 'tests' / 'support'}",
        "PYTHONUNBUFFERED": "1",
        "CELRAY_SECRETS_DIR": str(folder / "secrets"),
        "CELRAY_BROKER_URL": redis.url(0),
        "CELRAY_RESULT_BACKEND_URL": redis.url(1),
        "CELRAY_REDBEAT_URL": redis.url(2),
        "CELRAY_WORKERS": json.dumps(CATALOGUE),
        "CELRAY_HEARTBEAT_FILE": str(folder / "heartbeat"),
        "CELRAY_HEARTBEAT_SECONDS": "0.2",
        "CELRAY_DATASETS_DIR": str(folder / "datasets"),
        "CELRAY_MODELS_DIR": str(folder / "models"),
        "CELRAY_RUNS_DIR": str(folder / "models" / ".runs"),
        "CELRAY_OUTCOMES_DIR": str(folder / "outcomes"),
        "CELRAY_RAY_ADDRESS": "http://127.0.0.1:1",
        "CELRAY_HEALTH_TIMEOUT_SECONDS": "1",
        "CELRAY_CODE_VERSION": "test",
        "RAY_AUTH_MODE": "disabled",
        **extra,
    }


@dataclass
class Process:
    """One of our Celery processes, with its log."""

    arguments: list[str]
    env: dict[str, str]
    log: Path
    popen: Program = field(init=False)

    def __post_init__(self) -> None:
        self.log.touch()
        self.popen = Program("celery", self.arguments, self.env, self.log)

    @property
    def text(self) -> str:
        return self.log.read_text()

    def says(self, words: str, seconds: float = 60.0) -> None:
        wait_for(lambda: words in self.text or self.popen.poll() is not None, seconds)
        assert words in self.text, self.text

    def terminate(self) -> float:
        """Send SIGTERM and wait for the end; return the seconds that it took."""
        clock = time.monotonic()
        self.popen.terminate()
        self.popen.wait(timeout=60)
        return time.monotonic() - clock

    def kill(self) -> None:
        if self.popen.poll() is None:
            with suppress(ProcessLookupError):  # it has no group yet, or has ended
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.kill()
        self.popen.wait(timeout=60)


class StartWorker(Protocol):
    """Start a worker that ends with the test."""

    def __call__(
        self,
        name: str = "default",
        queues: str = "default,celery",
        app: str = "tasks",
        **extra: str,
    ) -> Process: ...


def worker(
    env: dict[str, str], folder: Path, name: str, queues: str, app: str = "tasks"
) -> Process:
    """Start a worker as the deployment does, and wait until it is ready.

    The environment may say ``NODE_HOST``: the host that it says it is on.
    """
    node = f"{name}@{env.get('NODE_HOST', '%h')}"
    arguments = ["-A", app, "worker", "-n", node, "-Q", queues, "-E"]
    arguments += [f"--autoscale={size}"] if (size := env.get("CELERY_AUTOSCALE")) else ["-c", "4"]
    arguments += ["--loglevel", "INFO", "--without-gossip", "--without-mingle"]
    if pool := env.get("CELERY_POOL"):
        arguments += ["-P", pool]
    env = {**env, "CELRAY_WORKER_NAME": name, "REMAP_SIGTERM": "SIGQUIT"}
    log = folder / f"{name}.log"
    before = log.read_text().count(" ready.") if log.exists() else 0
    process = Process(arguments, env, log)
    try:
        wait_for(
            lambda: process.popen.poll() is not None or process.text.count(" ready.") > before, 60
        )
        # A worker that a message kills may have ended already.
        assert process.popen.poll() is None or " ready." in process.text, process.text
    except BaseException:
        process.kill()
        raise
    return process


@dataclass
class Answer:
    """The answer of a :func:`http_service` for a path."""

    status: int = 200
    body: object = None


@dataclass
class HttpService:
    """A small HTTP server that records its requests."""

    url: str
    answers: dict[str, Answer]
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def http_service(answers: dict[str, Answer]) -> Iterator[HttpService]:
    """Serve ``answers`` by path (without the query) on a free port of this machine."""
    service = HttpService("", answers)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode()
            path = self.path.partition("?")[0]
            service.seen.append((path, body, dict(self.headers)))
            answer = service.answers.get(path, Answer(404))
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(json.dumps(answer.body).encode())

        do_GET = _answer  # noqa: N815 - the base class's names
        do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ray_answers(cpus: float = 4.0, used: float = 1.0, jobs: object = ()) -> dict[str, Answer]:
    """Return the answers of a Ray 2.60 dashboard, recorded from a real head and shortened."""
    total = {"CPU": cpus, "memory": 1e10}
    node = {"node_id": "b2", "node_name": "b2", "state": "ALIVE", "resources_total": total}
    dead = {"node_id": "b3", "node_name": "b3", "state": "DEAD", "resources_total": {"CPU": 64.0}}
    report = {"usage": {"CPU": [used, cpus], "memory": [0.0, 1e10]}, "resourceDemand": []}
    return {
        "/api/version": Answer(body={"version": "4", "ray_version": "2.60.0"}),
        "/api/v0/nodes": Answer(body={"data": {"result": {"total": 2, "result": [node, dead]}}}),
        "/api/cluster_status": Answer(
            body={"data": {"clusterStatus": {"loadMetricsReport": report}}}
        ),
        "/api/jobs/": Answer(body=list(jobs) if isinstance(jobs, list | tuple) else jobs),
    }
