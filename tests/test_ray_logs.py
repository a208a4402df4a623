"""Logs of Ray's jobs are bounded by age and by size; Ray's own and open ones are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parts import REPO

PROGRAM = REPO / "roles/ray/files/ray_logs.py"
DAY = 86400.0


def clean(folder: Path, days: float, megabytes: float) -> set[str]:
    """Run it once; gives the names that are left."""
    command = [sys.executable, str(PROGRAM), str(folder), str(days), str(megabytes), "once"]
    subprocess.run(command, check=True)
    return {path.name for path in folder.glob("session_2*/logs/**/*") if path.is_file()}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "session_2026-11-29_10-00-00_000000_1" / "logs"
    (folder / "events").mkdir(parents=True)
    return folder


def log(logs: Path, name: str, days: float, size: int = 10) -> None:
    path = logs / name
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - days * DAY,) * 2)


def test_what_jobs_left_goes_by_age_and_rays_own_stays(logs: Path, tmp_path: Path) -> None:
    old = ["job-driver-celray-1.log", "worker-a-01000000-12.out", "worker-a-01000000-12.err"]
    old += ["python-core-worker-a_12.log", "python-core-driver-a_12.log"]
    old += ["runtime_env_setup-01000000.log", "raylet.out.1"]
    own = ["gcs_server.out", "raylet.out", "dashboard.log", "monitor.log", "events/event_GCS.log"]
    for name in (*old, *own):
        log(logs, name, days=9)
    log(logs, "job-driver-celray-2.log", days=1)
    assert clean(tmp_path, 7, 100) == {"job-driver-celray-2.log", *(Path(n).name for n in own)}


def test_too_many_go_the_oldest_first(logs: Path, tmp_path: Path) -> None:
    for number in range(5):
        log(logs, f"job-driver-{number}.log", days=number / 10, size=2**20)
    assert clean(tmp_path, 7, 3) == {f"job-driver-{number}.log" for number in range(3)}


def test_one_that_is_open_stays(logs: Path, tmp_path: Path) -> None:
    log(logs, "job-driver-runs.log", days=30)
    with (logs / "job-driver-runs.log").open("ab"):
        assert clean(tmp_path, 7, 0) == {"job-driver-runs.log"}
    assert clean(tmp_path, 7, 0) == set()


def test_a_link_out_is_no_log(logs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (logs / "worker-link.out").symlink_to(elsewhere)
    clean(tmp_path, 0, 0)
    assert elsewhere.read_text() == "mine"
