"""Task packages in an inventory: mistakes are named beforehand, wheels hold what was written."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from celray import task_packages as packages
from celray.preflight import packages as checks
from celray.preflight.schedule import check_schedule
from parts import play

QUEUES = {"ml", "default"}
OURS = {"tasks.simple_tasks.ping"}
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "word-count"
version = "1.0"
dependencies = ["celery>=5.7", "tasks"]

[project.entry-points."celray.tasks"]
word_count = "word_count.tasks"
"""
#: A build backend of the package's own, so that making its wheel needs no network.
BACKEND = """
import base64, hashlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "word_count-1.0-py3-none-any.whl"
    info = "word_count-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for module in ("__init__", "tasks"):
            wheel.write(f"word_count/{module}.py")
        points = "[celray.tasks]\\nword_count = word_count.tasks\\n"
        about = "Metadata-Version: 2.1\\nName: word-count\\nVersion: 1.0\\n"
        about += "Requires-Dist: celery>=5.7\\n"
        tag = "Wheel-Version: 1.0\\nRoot-Is-Purelib: PURE\\nTag: py3-none-any\\n"
        for file, text in (("entry_points.txt", points), ("METADATA", about), ("WHEEL", tag)):
            wheel.writestr(f"{info}/{file}", text)
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "word-count"
    (folder / "word_count").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND.replace("PURE", "true"))
    (folder / "word_count/__init__.py").touch()
    (folder / "word_count/tasks.py").write_text("tasks = 1\n")
    return folder


def package(**values: Any) -> dict[str, Any]:
    """A package that is right, but for `values`; None leaves a key out."""
    right = {"name": "word-count", "source": "path", "location": "word-count", "queues": "ml"}
    return {key: value for key, value in {**right, **values}.items() if value is not None}


def findings(given: Any, base: Path) -> list[str]:
    found, _ = checks.check(given, base, QUEUES, OURS)
    return [f"{problem.what} | {problem.fix}" for problem in found]


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a misspelt key": (
        {"requirments": []},
        ("'requirments'", "did you mean requirements?"),
    ),
    "no queues": ({"queues": None}, ("package word-count lacks 'queues'",)),
    "empty queues": ({"queues": {}}, ("lacks 'queues'",)),
    "a source that there is not": ({"source": "pth"}, ("'pth'", "did you mean path?")),
    "git without a version": (
        {"source": "git", "location": "https://git.example/words"},
        ("source git, lacks 'version'",),
    ),
    "a version that YAML read as a number": (
        {"source": "index", "location": None, "version": 1.0},
        ("version is 1.0", "quotes"),
    ),
    "an index with a location": (
        {"source": "index", "version": "1.0"},
        ("source index has no location", "remove location"),
    ),
    "a path that is not there": (
        {"location": "wordcount"},
        ("/wordcount does not exist on this machine",),
    ),
    "a path without a project": ({"location": "."}, ("has no pyproject.toml",)),
    "a wheel that is not there": (
        {"source": "wheel", "location": "a.whl"},
        ("/a.whl is no wheel",),
    ),
    "another package's name": (
        {"name": "words"},
        ("pyproject.toml says that its name is 'word-count'",),
    ),
    "a queue that nobody consumes": (
        {"queues": {"word_count.one": "mll"}},
        ("queue 'mll' of its tasks word_count.one", "did you mean ml?", "celery_workers"),
    ),
    "a task of ours": ({"queues": {"tasks.x": "ml"}}, ("declares 'tasks.x'",)),
    "a pattern over ours": ({"queues": {"*": "ml"}}, ("declares '*'",)),
    "our own name": ({"name": "tasks"}, ("package tasks: that name cannot be used",)),
    "a requirement against our lock": (
        {"requirements": ["celery<5"]},
        ("celery<5 asks for another version than celray has", "make lock"),
    ),
    "no requirement": ({"ray_requirements": ["a b c"]}, ("'a b c' is no requirement",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_package_is_named_with_a_way_out(mistake: str, source: Path) -> None:
    values, words = MISTAKES[mistake]
    found = findings([package(**values)], source.parent)
    assert found
    for word in words:
        assert any(word in line for line in found), found


def test_a_right_package_is_no_finding(source: Path) -> None:
    assert findings([package()], source.parent) == []
    assert findings([package(requirements=["celery"])], source.parent) == []


def test_a_package_that_names_no_module_of_tasks_is_told_the_line(source: Path) -> None:
    project = source / "pyproject.toml"
    project.write_text(PROJECT.partition("[project.entry-points")[0])
    (line,) = findings([package()], source.parent)
    assert 'add [project.entry-points."celray.tasks"] with word_count = "word_count.tasks"' in line


def test_a_package_listed_twice_is_found_under_any_spelling(source: Path) -> None:
    lines = findings([package(), package(name="Word_Count")], source.parent)
    assert "package word-count is listed 2 times | list it once" in lines


def test_a_task_that_two_packages_declare_is_found(source: Path) -> None:
    both = {"queues": {"shared.count": "data"}}
    other = {"name": "other", "source": "index", "version": "1", **both}
    del (index := package(**both) | other)["location"]
    lines = findings([package(**both), index], source.parent)
    assert (
        "tasks 'shared.count' are declared by package word-count and by package other"
        " | have one of them declare other tasks"
    ) in lines


def test_a_schedule_may_name_what_a_pattern_declares() -> None:
    entry = {"name": "a", "task": "word_count.two", "every_seconds": 1}
    known = checks.tasks_of([package()], [entry])
    assert known == {"word_count.two": "ml"}
    assert check_schedule([entry], known, QUEUES) == []


def test_site_names_a_packages_mistakes_and_changes_nothing(tmp_path: Path) -> None:
    entry = {"name": "a", "task": "word_count.two", "every_second": 1}
    given = package(location=str(tmp_path / "nowhere"), queues="imaging", schedule=[entry])
    file = tmp_path / "packages.json"
    file.write_text(json.dumps({"celery_packages": [given], "host_facts_port_variables": []}))
    played = play("site.yml", "-e", f"@{file}", "--check")
    played.require_failure(
        "nowhere does not exist on this machine",
        "queue 'imaging' of its tasks word_count.* is one that no worker consumes",
        "schedule a: unknown key 'every_second' (did you mean every_seconds?)",
        "from: celery_packages (your inventory; docs/extend.md)",
    )


# --- what the images get --------------------------------------------------------------------------


def test_what_the_locks_have_needs_no_layer_of_its_own(source: Path) -> None:
    plan = packages.plan([package()], source.parent, "3.11")
    assert set(plan.code) == {"word-count"}
    assert (plan.worker, plan.ray) == ([], [])
    more = package(requirements=["httpx>=0.27"], ray_requirements=["geopandas==1.0.1"])
    plan = packages.plan([more], source.parent, "3.11")
    assert (plan.worker, plan.ray) == (["httpx>=0.27"], ["geopandas==1.0.1"])


def test_an_edit_changes_the_content_and_litter_does_not(source: Path) -> None:
    before = packages.content(package(), source.parent)
    for name in ("__pycache__", ".venv", "build", "word_count.egg-info"):
        (source / name).mkdir()
        (source / name / "file.py").touch()
    assert packages.content(package(), source.parent) == before
    (source / "word_count/tasks.py").write_text("tasks = 2\n")
    assert packages.content(package(), source.parent) != before


def test_a_source_tree_becomes_files_of_the_layer_of_code(source: Path, tmp_path: Path) -> None:
    made = packages.collect([package()], source.parent, tmp_path / "cache", "3.11")
    files = {name: base64.b64decode(text) for name, text in made["files"].items()}
    assert files["word_count/tasks.py"] == b"tasks = 1\n"
    assert b"word_count = word_count.tasks" in files["word_count-1.0.dist-info/entry_points.txt"]
    assert not list(Path(made["wheelhouses"]["worker_extra"]).iterdir())
    assert not (source / "build").exists()


def test_a_wheel_for_one_platform_is_installed_below_the_code(source: Path, tmp_path: Path) -> None:
    (source / "backend.py").write_text(BACKEND.replace("PURE", "false"))
    with pytest.raises(packages.PackageError, match="word-count builds a wheel for one platform"):
        packages.collect([package()], source.parent, tmp_path / "cache", "3.11")
    wheel = next((tmp_path / "cache").glob("package-*/*.whl"))
    given = package(source="wheel", location=str(wheel))
    plan = packages.plan([given], source.parent, "3.11")
    assert plan.code == {}
    assert [line.split()[0] for line in plan.worker] == ["word-count"]
    made = packages.collect([given], source.parent, tmp_path / "cache", "3.11")
    house = Path(made["wheelhouses"]["worker_extra"])
    assert zipfile.is_zipfile(house / wheel.name)


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_a_git_repository_gives_the_tagged_version_not_the_newest(
    source: Path, tmp_path: Path
) -> None:
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "one")
    git(source, "tag", "v1")
    (source / "word_count/tasks.py").write_text("tasks = 2\n")
    git(source, "commit", "--quiet", "-am", "two")
    newest = git(source, "rev-parse", "HEAD")
    for version, expected in (("v1", b"tasks = 1\n"), (newest, b"tasks = 2\n")):
        given = package(source="git", location=source.as_uri(), version=version)
        made = packages.collect([given], tmp_path, tmp_path / "cache", "3.11")
        (wheel,) = Path(made["wheelhouses"]["worker_extra"]).glob("*.whl")
        assert zipfile.ZipFile(wheel).read("word_count/tasks.py") == expected
    given = package(name="words", source="git", location=source.as_uri(), version="v1")
    with pytest.raises(packages.PackageError, match="is the project word-count"):
        packages.collect([given], tmp_path, tmp_path / "cache", "3.11")
    given = package(source="git", location=source.as_uri(), version="v3")
    with pytest.raises(packages.PackageError, match="v3"):
        packages.collect([given], tmp_path, tmp_path / "cache", "3.11")


@pytest.mark.slow
def test_an_index_gives_the_named_version(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.collect([package()], source.parent, tmp_path / "first", "3.11")
    shelf = tmp_path / "simple/word-count"
    shelf.mkdir(parents=True)
    (built,) = (tmp_path / "first").glob("package-*/*.whl")
    shutil.copy(built, shelf)
    (shelf / "index.html").write_text(f'<a href="{built.name}">{built.name}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    given = package(source="index", location=None, version="1.0")
    made = packages.collect([given], tmp_path, tmp_path / "cache", "3.11")
    assert (Path(made["wheelhouses"]["worker_extra"]) / built.name).is_file()
    given["version"] = "2.0"
    with pytest.raises(packages.PackageError, match=r"word-count==2\.0"):
        packages.collect([given], tmp_path, tmp_path / "cache", "3.11")


def test_a_build_that_fails_ends_with_its_own_words(source: Path, tmp_path: Path) -> None:
    (source / "backend.py").write_text(
        "def build_wheel(*_):\n    raise SystemExit('no such file')\n"
    )
    with pytest.raises(packages.PackageError, match="no such file"):
        packages.collect([package()], source.parent, tmp_path / "cache", "3.11")
