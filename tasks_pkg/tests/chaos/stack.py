"""One stack as processes: Redis, workers, load; celray's or stock Celery's settings."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, Self

from celray_testing import RedisServer, environment, free_port, wait_for
from redis import Redis

from .front import CALLERS_SETTINGS, QUEUE, Front

Kind = Literal["celray", "stock"]


class Proxy:
    """A TCP hop to Redis that can swallow everything, as a network does that has gone."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Pass nothing on; close nothing either."""
        self._open.clear()

    def thaw(self) -> None:
        """Pass on again."""
        self._open.set()

    def close(self) -> None:
        """Stop listening."""
        self._ended = True
        self._open.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        self._open.wait()
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            while not self._ended:
                ready, _, _ = select.select([near, far], [], [], 0.5)
                self._open.wait()
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    (far if end is near else near).sendall(data)


class Worker:
    """One worker with its children, a process group of its own: a container's stand-in."""

    def __init__(self, stack: "Stack", name: str, port: int, concurrency: int) -> None:
        self._stack, self.name, self._port, self._concurrency = stack, name, port, concurrency
        self.log = stack.folder / f"{name}.log"
        self.restarts = True
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        stack = self._stack
        url = f"redis://127.0.0.1:{self._port}"
        env = environment(stack.redis, stack.folder)
        outcomes = stack.folder / f"outcomes-{self.name}"  # a host of its own
        outcomes.mkdir(exist_ok=True)
        env |= {
            "CELRAY_OUTCOMES_DIR": str(outcomes),
            "CELRAY_BROKER_URL": f"{url}/0",
            "CELRAY_RESULT_BACKEND_URL": f"{url}/1",
            "CELRAY_VISIBILITY_TIMEOUT_SECONDS": str(stack.lease),
            "CELRAY_SOFT_SHUTDOWN_SECONDS": "2",
            "CELRAY_HEARTBEAT_FILE": str(stack.folder / f"heartbeat-{self.name}"),
            "CHAOS_LEDGER": str(stack.ledger.file),
            "CHAOS_URLS": str(stack.folder / f"urls-{self.name}"),
        }
        (stack.folder / f"urls-{self.name}").write_text(f"{url}/0 {url}/1")
        arguments = ["worker", "-Q", QUEUE, "-c", str(self._concurrency), "-l", "INFO"]
        arguments += ["-n", f"{self.name}@%h"]
        if stack.kind == "celray":
            env |= {"CELRAY_WORKER_NAME": "default", "REMAP_SIGTERM": "SIGQUIT"}
            arguments += ["-E", "--without-gossip", "--without-mingle"]
        app = "chaos_tasks:ours" if stack.kind == "celray" else "chaos_tasks:stock"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", app, *arguments],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Wait until it consumes."""
        wait_for(lambda: " ready." in self.log.read_text(), 60)

    def children(self) -> list[int]:
        """Return its pool's processes."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def stop_group(self) -> None:
        """SIGSTOP all its processes."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL all its processes at once, as the end of its container does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=20)

    def end(self, grace: float) -> None:
        """As ``docker stop`` does: SIGTERM, a time of grace, SIGKILL."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=grace)
        self.kill()

    def start_again(self) -> None:
        """As the container's restart policy does."""
        self.process = self._start()


class Stack(Front):
    """Redis, workers, a plain client with celray's or stock settings, and the ledger."""

    def __init__(self, kind: Kind, folder: Path, lease: int) -> None:
        self.kind: Kind = kind
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "redis").mkdir()
        self.redis = RedisServer(folder / "redis")
        super().__init__(self.redis.url(0), self.redis.url(1), folder / "ledger", lease)
        if kind == "celray":
            self.client.conf.update(CALLERS_SETTINGS)
        self.workers: dict[str, Worker] = {}
        self.proxies: list[Proxy] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self.redis.start()
        self._undo.callback(self.redis.stop)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.process.pid, signal.SIGCONT)
            worker.kill()
        for proxy in self.proxies:
            proxy.close()
        self.close()
        self._undo.close()

    def worker(self, name: str, concurrency: int = 4, proxied: bool = False) -> Worker:
        """Start a worker and wait until it consumes."""
        port = self.redis.port
        if proxied:
            proxy = Proxy(port)
            self.proxies.append(proxy)
            port = proxy.port
        made = self.workers[name] = Worker(self, name, port, concurrency)
        made.ready()
        return made

    def admin(self) -> Redis:
        """Open a client of the broker's database."""
        return self.redis.client(0)
