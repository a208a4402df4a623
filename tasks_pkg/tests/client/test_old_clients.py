"""Clients of other versions of Celery get what they ask for, as documented by Celery.

Each runs in an environment of its own (``make .venv-celery4.4/stamp``), with the kombu and redis-py
of its time.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from celray_testing import PACKAGE, RedisServer, StartWorker

CLIENTS = PACKAGE / "tests" / "clients"
VERSIONS = sorted(lock.stem.removeprefix("celery") for lock in CLIENTS.glob("*.lock"))


def python_of(version: str) -> Path:
    if version == "ours":
        return Path(sys.executable)
    if sys.version_info >= (3, 12) and version in {"4.4", "5.0"}:
        pytest.skip(f"Celery {version} does not run on Python 3.12 or newer")
    python = PACKAGE.parent / f".venv-celery{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no environment: make .venv-celery{version}/stamp")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("version", [*VERSIONS, "ours"])
def test_a_client_of_any_version_sends_waits_and_revokes(
    version: str, start_worker: StartWorker, redis: RedisServer, tmp_path: Path
) -> None:
    python = python_of(version)
    start_worker(app="extra_tasks")
    arguments = [str(python), str(CLIENTS / "client.py"), redis.url(0), redis.url(1)]
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=100, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert version == "ours" or found.pop("version").startswith(version)
    found.pop("version", None)
    assert "pickle" in found.pop("pickle")
    assert found == {
        "send": "pong",
        "priority": 1,
        "group": [2, 3],
        "chain": 5,
        "chord": 9,
        "countdown": 10,
        "eta": 11,
        "revoke": "REVOKED",
        "failure": "FAILURE",
    }
