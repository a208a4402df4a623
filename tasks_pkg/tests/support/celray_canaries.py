"""A worker and Flower whose secrets are canaries: words that no reply may contain."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from celray_testing import (
    ALONE,
    Process,
    RedisServer,
    environment,
    free_port,
    wait_for,
    worker,
)

#: The secrets of a deployment, each with a value that occurs nowhere else.
CANARIES = {
    "broker": "canary-broker-7Qx",
    "results": "canary-results-9Zk",
    "redbeat": "canary-redbeat-3Lm",
    "flower": "canary-flower-5Rt",
    "ray": "canary-ray-token-8Wv",
    "channels": "canary-channel-2Bn",
}


def found_in(text: str) -> list[str]:
    """Return the names of the secrets that a text contains."""
    return [name for name, word in CANARIES.items() if word in text]


@dataclass
class Watched:
    """The running processes and the addresses to reach them."""

    redis: RedisServer
    env: dict[str, str]
    worker: Process
    node: str
    flower: Process
    url: str

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:  # noqa: ANN401
        """Send a request to Flower with a login; ``options`` are those of requests."""
        login = ("admin", CANARIES["flower"])
        return requests.request(method, self.url + path, auth=login, timeout=30, **options)


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Start Redis with a user per purpose, one worker that consumes all queues, and Flower."""
    with ExitStack() as stack:
        (folder / "redis").mkdir()
        (folder / "secrets").mkdir()
        server = RedisServer(folder / "redis")
        server.start()
        stack.callback(server.stop)
        with server.client(0) as admin:
            for user in ("broker", "results", "redbeat"):
                admin.execute_command(
                    "ACL", "SETUSER", user, "on", f">{CANARIES[user]}", "~*", "&*", "+@all"
                )

        def url(user: str, db: int) -> str:
            return f"redis://{user}:{CANARIES[user]}@127.0.0.1:{server.port}/{db}"

        token = folder / "secrets" / "ray_auth_token"
        token.write_text(CANARIES["ray"])
        env = environment(
            server,
            folder,
            CELRAY_BROKER_URL=url("broker", 0),
            CELRAY_RESULT_BACKEND_URL=url("results", 1),
            CELRAY_REDBEAT_URL=url("redbeat", 0),
            CELRAY_WORKERS=json.dumps(ALONE),
            CELRAY_NOTIFY_CHANNELS=json.dumps(
                {"ops": f"json://user:{CANARIES['channels']}@127.0.0.1:1/"}
            ),
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
        )
        process = worker(env, folder, "all", "ml,data,default,celery")
        stack.callback(process.kill)
        port = free_port()
        conf = folder / "secrets" / "flowerconfig.py"
        conf.write_text(
            f"address = '127.0.0.1'\nport = {port}\n"
            f"basic_auth = ['admin:{CANARIES['flower']}']\nmax_tasks = 100\nread_only = False\n"
        )
        # As compose/flower.yml.j2 starts it.
        arguments = ["-A", "tasks.monitor", "flower", f"--conf={conf}"]
        flower = Process(arguments, env, folder / "flower.log")
        stack.callback(flower.kill)
        yield Watched(
            server, env, process, _node(process), flower, _ready(f"http://127.0.0.1:{port}", flower)
        )


def _node(process: Process) -> str:
    line = next(line for line in process.text.splitlines() if " ready." in line)
    return line.split()[-2]


def _ready(url: str, flower: Process) -> str:
    def answers() -> bool:
        assert flower.popen.poll() is None, flower.text
        try:
            return requests.get(f"{url}/healthcheck", timeout=5).ok
        except requests.ConnectionError:
            return False

    wait_for(answers, 60)
    return url
