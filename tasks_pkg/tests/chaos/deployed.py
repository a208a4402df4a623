"""A really deployed stack on a test host, with the load from outside."""

import json
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from celray_testing import wait_for
from redis import Redis
from redis.exceptions import RedisError

from . import package
from .front import CALLERS_SETTINGS, Front
from .host import CONTAINER, HOME, USER, Host, HostError

PORT = 6380
LEDGER = f"{HOME}/datasets/chaos/ledger"
WORKERS = ("celery-worker-default", "celery-worker-default-2")


class Follower:
    """Copies the host's ledger into a file here while it grows; outlives the host's absences."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        copy.write_bytes(b"")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            with self._copy.open("wb") as copy:
                self._process = subprocess.Popen(
                    ["docker", "exec", CONTAINER, "tail", "-n", "+1", "-F", LEDGER],  # noqa: S607
                    stdout=copy,
                    stderr=subprocess.DEVNULL,
                )
                self._process.wait()
            time.sleep(0.3)

    def end(self) -> None:
        """Stop to follow."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
        self._thread.join(timeout=10)


class Deployment:
    """celray on the host: deployed once, looked after between cases."""

    def __init__(self, host: Host, lease: int) -> None:
        self.host, self.lease = host, lease
        self.source = host.state / "package"
        self.secrets: dict[str, str] = {}

    def prepare(self, *, deploy: bool) -> None:
        """Deploy; a second time nothing changes."""
        self.host.up()
        package.write(self.source)
        package.inventory(self.host.state / "inventory", self.source, self.lease)
        if deploy:
            self.deploy()
        self.secrets = json.loads(self.host.sh(f"cat {HOME}/secrets/secrets.json"))
        self.host.sh(f"install -d -o {USER} -g {USER} {HOME}/datasets/chaos")

    def deploy(self) -> None:
        """Run ``make deploy``.

        Raises:
            HostError: with the end of what it said.
        """
        said = self.host.make("deploy")
        if said.code:
            message = f"make deploy: {said.text[-3000:]}"
            raise HostError(message)

    def url(self, user: str, secret: str, db: int) -> str:
        """Return a URL of its Redis."""
        return f"redis://{user}:{self.secrets[secret]}@{self.host.address}:{PORT}/{db}"

    def healthy(self) -> bool:
        """Return whether every container of ours runs and is well."""
        with suppress(HostError):
            boxes = self.host.inspect()
            ours = [b for b in boxes if b["Config"]["Labels"].get("celray.project")]
            states = {b["State"].get("Health", {}).get("Status", "healthy") for b in ours}
            return len(ours) >= len(WORKERS) + 4 and states == {"healthy"}
        return False

    def settle(self) -> None:
        """Wait until all is well; deploy again where it does not become so by itself."""
        try:
            wait_for(self.healthy, 90)
        except AssertionError:
            self.deploy()
            wait_for(self.healthy, 90)


class Deployed(Front):
    """The deployed stack in one case."""

    pause = 0.2

    def __init__(self, deployment: Deployment, folder: Path, prefix: str) -> None:
        folder.mkdir(parents=True)
        self.deployment, self.host = deployment, deployment.host
        self.host.sh(f"install -o {USER} -g {USER} -m 0644 /dev/null {LEDGER}")
        self._follower = Follower(folder / "ledger")
        # Chords are sent, and tasks revoked, by operators alone (ADR 0028).
        user = ("operator", "redis_operator_password")
        broker, results = (deployment.url(*user, db) for db in (0, 1))
        super().__init__(broker, results, folder / "ledger", deployment.lease, prefix)
        self.client.conf.update(CALLERS_SETTINGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.end()
        self.close()

    def admin(self) -> Redis:
        url = self.deployment.url("admin", "redis_admin_password", 0)
        return Redis.from_url(url, socket_timeout=5, decode_responses=True)

    def submit_next(self, number: int) -> None:
        """Submit the load's next task; a Ray job among the first."""
        if number % 200 == 10:
            self.submit_job(f"job-{number}", 3.0)
        else:
            super().submit_next(number)

    def submit_job(self, key: str, seconds: float) -> None:
        """Submit a task that stands for a Ray job."""
        self.publish(key, "chaos.job", [seconds])

    def container_of(self, key: str) -> str:
        """Return the container in which a task runs now."""
        result = self.ledger.submitted[key]
        return str(wait_for(lambda: _node(result.info), 20))

    def redis_answers(self) -> bool:
        """Return whether Redis takes commands."""
        with suppress(RedisError, OSError), self.admin() as admin:
            return bool(admin.ping())
        return False

    def copy(self, container: str, name: str, *more: str, **environment: str) -> None:
        """Run a second container like ``container``, with ``more`` options for ``docker run``."""
        (box,) = self.host.inspect(container)
        config, limits = box["Config"], box["HostConfig"]
        words = ["docker run --detach --init --read-only --network host --cap-drop ALL"]
        words += ["--security-opt no-new-privileges", f"--name {name}", f"--user {config['User']}"]
        words += [f"--memory {limits['Memory']}", "--tmpfs /tmp:size=256m", *more]
        words += [f"--volume {bind}" for bind in limits["Binds"]]
        pairs = dict(pair.split("=", 1) for pair in config["Env"]) | environment
        self.host.sh("cat >/root/copied.env", "".join(f"{k}={v}\n" for k, v in pairs.items()))
        command = [*(config["Entrypoint"] or []), *config["Cmd"]]
        if "-n" in command:
            command[command.index("-n") + 1] = f"{environment['CELRAY_NODE_NAME']}@%h"
        words += ["--env-file /root/copied.env", f"--entrypoint {command[0]}", config["Image"]]
        self.host.sh(" ".join([*words, *(f"'{word}'" for word in command[1:])]))


def _node(told: Any) -> str:  # noqa: ANN401 - a result's meta
    """Return the container of a started task's worker."""
    name = told.get("hostname") if isinstance(told, dict) else None
    return f"celery-worker-{name.partition('@')[0]}" if name else ""
