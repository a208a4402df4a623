"""`pip install ./tasks_pkg`, with each extra, into an empty environment, and used.

The kind of fault: the locks named what the metadata did not. So nothing here is locked: the newest
versions that the metadata allows are installed, they agree with each other, and they work.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from parts import REPO

METADATA = tomllib.loads((REPO / "tasks_pkg/pyproject.toml").read_text())["project"]
#: `client` stands for no extra as well: it adds nothing, which the test below holds.
EXTRAS = tuple(METADATA["optional-dependencies"])
UV = REPO / ".venv-uv"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program without what this shell tells Python and Celery."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "CELERY", "RAY", "CELRAY", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        env={**kept, **environment},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Installed:
    """An environment with the package and one extra in it."""

    python: Path
    celray: Path


@pytest.fixture(scope="module", params=EXTRAS)
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """As pip would install it, with pip's settings; uv takes seconds for it."""
    if not (UV / "bin/uv").exists():
        run(".ci/uv", sys.executable, UV)
    env = tmp_path_factory.mktemp("install") / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env)
    extra = "" if request.param == "client" else f"[{request.param}]"
    what = f"{REPO}/tasks_pkg{extra}"
    uv = (".ci/pip-settings", sys.executable, UV / "bin/uv", "pip")
    run(*uv, "install", "--quiet", "--python", env / "bin/python", what)
    run(*uv, "check", "--python", env / "bin/python")
    return Installed(env / "bin/python", env / "bin/celray")


@pytest.mark.slow
def test_uv_is_installed_while_an_environment_of_its_own_lock_is_made(tmp_path: Path) -> None:
    # In a new clone `make .venv-dev/stamp` comes first, holds this file, and asks for uv.
    with (REPO / "requirements-dev.txt").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(".ci/uv", sys.executable, tmp_path / "uv")
    assert (tmp_path / "uv/bin/uv").exists()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Redis of this test's own, as a client is told of it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen(
        [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "::1",
            "--save",
            "",
            "--dir",
            folder,
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert server.poll() is None, "redis-server ended"
                time.sleep(0.05)
        url = f"redis://127.0.0.1:{port}"
        yield {"CELERY_BROKER_URL": f"{url}/0", "CELERY_RESULT_BACKEND": f"{url}/1"}
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_ping_is_sent_from_an_empty_environment(
    installed: Installed, redis: dict[str, str]
) -> None:
    sent = run(installed.celray, "submit", "ping", **redis).stdout.split()[0]
    shown = run(installed.celray, "status", sent, **redis)
    assert "tasks.simple_tasks.ping" in shown.stdout
    assert "WAITING" in shown.stdout


def test_what_is_installed_has_the_version_that_the_package_says(installed: Installed) -> None:
    said = "import importlib.metadata as m, tasks; print(m.version('tasks'), tasks.__version__)"
    recorded, own = run(installed.python, "-c", said).stdout.split()
    assert recorded == own


def test_a_client_needs_no_extra() -> None:
    assert METADATA["optional-dependencies"]["client"] == []


@pytest.mark.slow
@pytest.mark.parametrize("installed", ["worker"], indirect=True)
def test_a_worker_answers_from_an_empty_environment(
    installed: Installed, redis: dict[str, str], tmp_path: Path
) -> None:
    # Over IPv6, whose addresses hold colons; as the images start it; no Ray is needed for a ping.
    redis = {name: url.replace("127.0.0.1", "[::1]") for name, url in redis.items()}
    settings = {
        "CELRAY_BROKER_URL": redis["CELERY_BROKER_URL"],
        "CELRAY_RESULT_BACKEND_URL": redis["CELERY_RESULT_BACKEND"],
        "CELRAY_REDBEAT_URL": redis["CELERY_BROKER_URL"],
        "CELRAY_WORKERS": json.dumps(
            [{"name": "all", "queues": ["ml", "data", "default", "celery"]}]
        ),
        "CELRAY_WORKER_NAME": "all",
        "CELRAY_HEARTBEAT_FILE": str(tmp_path / "heartbeat"),
        "CELRAY_OUTCOMES_DIR": str(tmp_path),
        "CELRAY_RAY_ADDRESS": "http://127.0.0.1:1",
        "RAY_AUTH_MODE": "disabled",
        "PATH": f"{installed.python.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    command = (installed.python, "-m", "celery", "-A", "tasks", "worker", "-n", "all@%h", "-c", "1")
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [*command, "-Q", "ml,data,default,celery"],
            env=settings,
            cwd=tmp_path,
            stderr=log,
            stdout=log,
        )
    try:
        sent = run(installed.celray, "submit", "ping", **redis).stdout.split()[0]
        answered = run(installed.celray, "result", sent, "--timeout", "60", **redis)
        assert json.loads(answered.stdout)["status"] == "pong", (tmp_path / "log").read_text()
    finally:
        worker.terminate()
        worker.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("installed", ["local"], indirect=True)
def test_a_model_is_trained_without_a_service(installed: Installed, tmp_path: Path) -> None:
    trained = run(
        *(installed.celray, "run", "distributed_training", "dataset_path=winequality.csv"),
        *("model_config.target=quality", "--no-ray", "--models", tmp_path / "models"),
        *("--datasets", REPO / "tasks_pkg/samples"),
    )
    assert json.loads(trained.stdout)["status"] == "success"
