"""A release has one version: the package's, the tag's and the changelog's (.ci/release)."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from parts import REPO

VERSION = "tasks_pkg/src/tasks/__init__.py"
CHANGELOG = """# Changelog

## Unreleased

- Not yet.

## 1.2.3 (2026-11-30)

- What changed.

### For operators

- More.

## 1.2.2

- Before.

## 1.2.1
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the program reads, and itself."""
    for name in (VERSION, ".ci/release"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def release(clone: Path, version: str, *tags: str) -> subprocess.CompletedProcess[str]:
    text = (REPO / VERSION).read_text()
    changed = re.sub(r"(?m)^__version__ = .*$", f'__version__ = "{version}"', text)
    (clone / VERSION).write_text(changed)
    return subprocess.run(
        [clone / ".ci/release", *tags], capture_output=True, text=True, check=False
    )


def test_the_notes_of_a_release_are_its_part_of_the_changelog(clone: Path) -> None:
    done = release(clone, "1.2.3", "v1.2.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "- What changed.\n\n### For operators\n\n- More.\n"


@pytest.mark.parametrize(
    ("version", "tags", "said"),
    [
        ("1.2.3", ["v1.2.4"], f"v1.2.4 is tagged, and {VERSION} says 1.2.3"),
        ("1.2.1", ["v1.2.1"], 'CHANGELOG.md has no text below "## 1.2.1"'),
        ("2.0.0", ["v2.0.0"], 'CHANGELOG.md has no text below "## 2.0.0"'),
        ("1.2.3", ["1.2.3"], '"1.2.3" is not the tag of a version'),
        ("1.2.3", [], '"" is not the tag of a version, as in .ci/release v1.2.3'),
    ],
)
def test_what_does_not_agree_is_not_released(
    clone: Path, version: str, tags: list[str], said: str
) -> None:
    done = release(clone, version, *tags)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_the_version_stands_in_one_place() -> None:
    """Nothing but `__version__` says it; tests/test_install.py has what is installed."""
    metadata = tomllib.loads((REPO / "tasks_pkg/pyproject.toml").read_text())
    assert metadata["project"]["dynamic"] == ["version"]
    assert metadata["tool"]["hatch"]["version"] == {"path": "src/tasks/__init__.py"}
    workflow = (REPO / ".github/workflows/release.yml").read_text()
    assert '.ci/release "$GITHUB_REF_NAME"' in workflow
