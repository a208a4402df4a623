"""`make client` saves credentials whole, for their owner alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from parts import REPO

LINES = "CELERY_BROKER_URL=redis://:secret@10.0.0.84:6380/0\nCELERY_RESULT_BACKEND=x\n"


def save(home: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPO / ".ci/client", "/opt/celray", "printf", "%s", text],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".config/celray/credentials"


def test_the_file_is_its_owners_alone_and_says_where_to_go_on(tmp_path: Path, file: Path) -> None:
    done = save(tmp_path, LINES)
    assert done.returncode == 0
    assert file.read_text() == LINES
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert "10.0.0.84:6380" in done.stdout
    assert "/opt/celray submit ping --watch" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_what_is_no_credentials_leaves_the_file_as_it_was(tmp_path: Path, file: Path) -> None:
    save(tmp_path, LINES)
    done = save(tmp_path, "fatal: unreachable")
    assert done.returncode == 1
    assert "make credentials shows why" in done.stderr
    assert file.read_text() == LINES
    assert [path.name for path in file.parent.iterdir()] == ["credentials"]


def test_credentials_of_another_service_are_kept_beside_it(tmp_path: Path, file: Path) -> None:
    save(tmp_path, LINES)
    other = LINES.replace("84", "85")
    done = save(tmp_path, other)
    assert "credentials.old" in done.stderr
    assert file.read_text() == other
    assert file.with_name("credentials.old").read_text() == LINES
    assert save(tmp_path, other).stderr == ""
