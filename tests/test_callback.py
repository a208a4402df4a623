"""What an operator sees: one line per thing that happened, errors once, messages alone when raw."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from parts import Played, play

TASKS = [
    {"name": "Nothing to do", "command": "true", "changed_when": False},
    {"name": "Something to do", "command": "true"},
    {"name": "Say it", "debug": {"msg": ["KEY=VALUE", "second line"]}},
    {"name": "Not here", "command": "false", "when": False},
    {"name": "Stop", "fail": {"msg": "the disk is full\nway out: a larger one"}},
]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "play.yml"
    book = {"name": "Example", "hosts": "localhost", "gather_facts": False, "tasks": TASKS}
    path.write_text(yaml.safe_dump([book]))
    return path


def run(book: Path, *arguments: str, **environment: str) -> Played:
    return play(str(book), "-i", "localhost,", "-c", "local", *arguments, **environment)


@pytest.mark.slow
def test_one_line_per_thing_that_happened_and_an_error_once(book: Path) -> None:
    played = run(book)
    assert played.code != 0
    rows = [row.split("  (")[0].rstrip() for row in played.output.splitlines() if row.strip()]
    shown = [row for row in rows if "…" not in row]
    assert shown[:8] == [
        "Example",
        "  ok       Nothing to do",
        "  changed  Something to do",
        "  KEY=VALUE",
        "  second line",
        "  FAILED   localhost: Stop",
        "    the disk is full",
        "    way out: a larger one",
    ]
    assert "Not here" not in played.output
    assert played.output.count("the disk is full") == 1
    assert "changed=1" in played.output


@pytest.mark.slow
def test_of_several_hosts_each_line_says_which(tmp_path: Path) -> None:
    path = tmp_path / "play.yml"
    book = {"name": "Example", "hosts": "all", "gather_facts": False, "tasks": TASKS[:2]}
    path.write_text(yaml.safe_dump([book]))
    rows = play(str(path), "-i", "east,west,", "-c", "local").output.splitlines()
    for host in ("east", "west"):
        assert sum(row.startswith(f"  ok       {host}: Nothing to do") for row in rows) == 1
        assert sum(row.startswith(f"  changed  {host}: Something to do") for row in rows) == 1


def test_raw_output_is_the_messages_alone(book: Path) -> None:
    played = run(book, CELRAY_RAW="1")
    shown = [row for row in played.output.splitlines() if row.strip()]
    assert shown[:2] == ["KEY=VALUE", "second line"]
    assert "the disk is full" in played.output
    assert "RECAP" not in played.output


@pytest.mark.slow
def test_with_v_it_is_ansibles_own_output(book: Path) -> None:
    played = run(book, "-v")
    assert "TASK [Something to do]" in played.output
    assert "PLAY RECAP" in played.output
