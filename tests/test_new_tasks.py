"""`make new-tasks`: what the template makes passes its own tests and celray's checks."""

from __future__ import annotations

import base64
import keyword
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from celray import task_packages as packages
from celray.preflight import packages as checks
from copier import run_copy
from new_machine import clean_clone
from parts import REPO


def copier(name: str, place: Path) -> subprocess.CompletedProcess[str]:
    """What the make target runs."""
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which("copier", path=here)
    assert program, "copier is missing: make .venv-dev/stamp"
    options = ["--quiet", "--defaults", "--data", f"name={name}", "--data", f"celray={REPO}"]
    return subprocess.run(
        [program, "copy", *options, str(REPO / "tasks_pkg/template"), str(place)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("new") / "sky-maps"
    done = copier("sky-maps", place)
    assert done.returncode == 0, done.stderr
    assert "location: " + str(place) in (place / "README.md").read_text()
    return place


def package(place: Path) -> dict[str, Any]:
    """The entry that its README gives for the inventory."""
    return {"name": "sky-maps", "source": "path", "location": str(place), "queues": "default"}


@pytest.mark.slow
def test_its_own_tests_pass(generated: Path) -> None:
    done = subprocess.run(
        [str(REPO / ".venv-tasks/bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=generated,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"src:{REPO}/tasks_pkg/src",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_preflight_takes_it_as_it_is(generated: Path) -> None:
    found, _ = checks.check([package(generated)], generated, {"default"}, set())
    assert found == []


@pytest.mark.slow
def test_it_is_a_few_kilobytes_of_the_layer_of_code(generated: Path, tmp_path: Path) -> None:
    plan = packages.plan([package(generated)], generated, "3.11")
    assert (set(plan.code), plan.worker, plan.ray) == ({"sky-maps"}, [], [])
    files = packages.collect([package(generated)], generated, tmp_path, "3.11")["files"]
    assert {"sky_maps/tasks.py", "sky_maps/jobs/squares.py"} <= set(files)
    assert sum(len(base64.b64decode(text)) for text in files.values()) < 20_000


ODD = ("Sky", "sky_maps", "-sky", "sky--maps")
TAKEN = ("tasks", "ray-jobs", "ray", "packaging", "json", "inspect", "py-compile", "class")


@pytest.mark.parametrize("name", [*ODD, *TAKEN])
def test_a_name_that_is_no_packages_is_refused(name: str, tmp_path: Path) -> None:
    template, data = str(REPO / "tasks_pkg/template"), {"name": name, "celray": str(REPO)}
    with pytest.raises(ValueError, match=f"{name} is no name for a package"):
        run_copy(template, tmp_path / "new", data=data, defaults=True, quiet=True)
    assert not (tmp_path / "new/pyproject.toml").exists()


def test_a_refused_name_is_said_by_the_program(tmp_path: Path) -> None:
    done = copier("Sky", tmp_path / "new")
    assert done.returncode != 0
    assert "Sky is no name for a package" in done.stderr.replace("\n", " ")


def test_no_keyword_and_no_module_of_this_python_is_left_out() -> None:
    questions = yaml.safe_load((REPO / "tasks_pkg/template/copier.yml").read_text())
    names = {*keyword.kwlist, *sys.stdlib_module_names}
    possible = {name for name in names if re.fullmatch("[a-z][a-z0-9_]*", name)}
    assert possible <= set(questions["reserved"]["default"])


PLACES = ("my projects (2)", "[brackets] {braces} prójekty 研究 it's $HOME #1 & co")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_make_new_tasks_works_in_every_folder(place: str, tmp_path: Path) -> None:
    """From a clone in such a folder into another one; then the package's own tests."""
    clone, target = tmp_path / place / "celray", tmp_path / place / "of mine" / "sky maps"
    clean_clone(clone)
    for name in (".venv-dev", ".venv-tasks"):
        # The environments of this clone: what takes time, and what the target would make.
        (clone / name).mkdir()
        for part in (REPO / name).iterdir():
            if part.name != "stamp":
                (clone / name / part.name).symlink_to(part)
        (clone / name / "stamp").write_text(f"{clone}\n")
    make = [
        "make",
        "-C",
        str(clone),
        "new-tasks",
        "NAME=sky-maps",
        f"DEST={target}".replace("$", "$$"),
    ]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"sky-maps is in {target}" in done.stdout
    tested = subprocess.run(
        ["make", "-C", str(target), "test"], capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    again = subprocess.run(make, capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert "is there already; name a directory that is not" in again.stderr
    make[-1] = "DEST=/dev/null/sky-maps"
    nowhere = subprocess.run(make, capture_output=True, text=True, check=False)
    assert nowhere.returncode != 0
    assert "name a directory of yours, as in make new-tasks NAME=sky-maps DEST=" in nowhere.stderr
