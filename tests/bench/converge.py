"""Deploys: one that changes nothing against its floor, a fresh one, and one after an edit."""

import json
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from celery.exceptions import TimeoutError as NoAnswer

from tests.bench import operations as do
from tests.bench.operations import REPO, BenchError, Sample

EDITED = REPO / "tasks_pkg/src/tasks/simple_tasks.py"
PING = "tasks.simple_tasks.ping"


@dataclass(frozen=True)
class NoChange:
    """A deploy that changes nothing, and the floor, measured in turns."""

    where: str
    deploy: Sample
    floor: Sample

    @property
    def ratio(self) -> float:
        """Deploy over floor, by medians."""
        return self.deploy.median / self.floor.median


def no_change(where: str, times: int, extra: Mapping[str, str] | None = None) -> NoChange:
    """Measure a deploy without changes and its floor, in turns, after one of each to warm up.

    Raises:
        BenchError: a deploy changed something, so that this is no measurement of it.
    """
    projects = {box["project"]: box["file"] for box in do.containers().values()}
    variables = {
        "floor_compose": do.compose_command(),
        "floor_projects": [{"name": name, "file": path} for name, path in sorted(projects.items())],
        "floor_become": False,
    }
    playbook = [".venv/bin/ansible-playbook", "-i", "inventory/single", "tests/bench/floor.yml"]
    playbook += (extra or {}).get("ARGS", "").split()
    config = {"ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "LC_ALL": "C.UTF-8", **(extra or {})}
    deploys, floors = [], []
    for _ in range(times + 1):
        seconds, output = do.timed("make", "deploy", extra=extra)
        if do.changes(output):
            message = f"a deploy over {where} changed something:\n{output[-3000:]}"
            raise BenchError(message)
        deploys.append(seconds)
        seconds, _ = do.timed(*playbook, "-e", json.dumps(variables), extra=config)
        floors.append(seconds)
    return NoChange(where, Sample(tuple(deploys[1:])), Sample(tuple(floors[1:])))


def fresh() -> tuple[float, dict[str, float]]:
    """A deploy from nothing: its seconds, and the seconds of each role."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder, "parts.json")
        extra = {
            "BENCH_PARTS": str(parts),
            "ANSIBLE_CALLBACK_PLUGINS": str(REPO / "tests/bench/callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "parts",
        }
        seconds, _ = do.timed("make", "deploy", extra=extra)
        rows = json.loads(parts.read_text(encoding="utf-8"))
    roles: dict[str, float] = {}
    for row in rows:
        name = f"{row['role']}: {row['task']}" if row["seconds"] > 3 else row["role"]
        roles[name] = roles.get(name, 0.0) + row["seconds"]
    return seconds, roles


@dataclass(frozen=True)
class Edit:
    """One line of one task file changed, then ``make deploy``."""

    until_new_code_answers: float
    deploy: float
    replaced: list[str]


class _Watcher(threading.Thread):
    """Pings until a worker answers with a code version other than the old one."""

    def __init__(self, app: Celery, old: str) -> None:
        super().__init__(daemon=True)
        self.app, self.old, self.answered = app, old, 0.0

    def run(self) -> None:
        while not self.answered:
            try:
                answer = self.app.send_task(PING, expires=5).get(timeout=2)
            except NoAnswer:
                continue
            if answer["versions"]["code"] != self.old:
                self.answered = time.monotonic()
            time.sleep(0.1)


def client(urls: Mapping[str, str]) -> Celery:
    """A client that knows nothing of this project but its two URLs."""
    return Celery(broker=urls["CELERY_BROKER_URL"], backend=urls["CELERY_RESULT_BACKEND"])


def edit_one_line(urls: Mapping[str, str]) -> Edit:
    """Add a line to a task file, deploy, see the new code answer; put the file back and deploy."""
    original = EDITED.read_bytes()
    app = client(urls)
    old = app.send_task(PING).get(timeout=10)["versions"]["code"]
    before = do.containers()
    try:
        EDITED.write_bytes(original + f"# bench {time.time()}\n".encode())
        started = time.monotonic()
        watcher = _Watcher(app, old)
        watcher.start()
        deploy, _ = do.timed("make", "deploy")
        watcher.join(timeout=60)
        after = do.containers()
    finally:
        EDITED.write_bytes(original)
        do.run("make", "deploy")
    if not watcher.answered:
        message = "no worker answered with the new code within a minute of the deploy's end"
        raise BenchError(message)
    return Edit(watcher.answered - started, deploy, do.restarted(before, after))
