"""The documents say where things are; these tests fail when they no longer are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parts import REPO, variables

WHERE = REPO / "docs/where.md"
DOCUMENTS = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md"), *REPO.glob("molecule/*.md")])
DEFAULTS = variables("celray", "defaults")


def table(section: str) -> Iterator[list[str]]:
    """The rows of the table below a heading of where.md, without its head."""
    text = WHERE.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 2, f"where.md has no table {section}"
    yield from rows[2:]


def code(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def routes() -> dict[str, str]:
    """The package's literal, read without importing Celery."""
    source = (REPO / "tasks_pkg/src/tasks/routes.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ROUTES" and node.value:
            return dict(ast.literal_eval(node.value))
    pytest.fail("routes.py has no ROUTES")


@pytest.mark.parametrize("row", [*table("Settings"), *table("Code")], ids=lambda row: row[0])
def test_every_place_exists_and_holds_what_is_said(row: list[str]) -> None:
    _, where, look_for = row
    assert code(look_for)[0] in (REPO / code(where)[0]).read_text()


def test_every_port_stands_in_the_table_with_its_number() -> None:
    documented = {code(variable)[0]: int(port) for port, _, variable in table("Ports")}
    ports = {name: value for name, value in DEFAULTS.items() if name.startswith("celray_port_")}
    assert documented == ports


def test_every_worker_stands_in_the_table_with_its_queues() -> None:
    documented = {
        code(name)[0]: (code(queues), int(number)) for name, queues, number in table("Workers")
    }
    assert documented == {
        f"celery-worker-{worker['name']}": (worker["queues"], worker["concurrency"])
        for worker in DEFAULTS["celery_workers"]
    }


def test_every_task_stands_in_the_table_with_its_queue_and_module() -> None:
    documented = {
        code(task)[0]: (code(queue)[0], code(where)[0]) for task, queue, where in table("Tasks")
    }
    assert documented == {
        task: (queue, f"tasks_pkg/src/{'/'.join(task.split('.')[:-1])}.py")
        for task, queue in routes().items()
    }


def test_every_task_of_the_table_is_defined_in_its_module() -> None:
    for task, _, where in table("Tasks"):
        assert f'"{code(task)[0]}"' in (REPO / code(where)[0]).read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_operation_of_the_makefile_is_in_the_readme_and_the_other_way_round() -> None:
    makefile = (REPO / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (REPO / "README.md").read_text()))
    assert named <= targets
    assert targets - named <= {"venv", "clean", "lock"}, "operations that the README does not name"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_documents_name_only_make_targets_that_exist(document: Path) -> None:
    makefile = (REPO / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z.-]+):.*## ", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][a-z-]*)", document.read_text()))
    assert named <= targets


def test_every_playbook_that_an_operation_plays_exists() -> None:
    played = re.findall(r"playbooks/[a-z_]+\.yml", (REPO / ".ci/operate").read_text())
    assert "playbooks/status.yml" in played
    for path in played:
        assert (REPO / path).is_file(), path


def test_no_document_is_left_out_of_the_readme() -> None:
    readme = (REPO / "README.md").read_text()
    assert [path.name for path in REPO.glob("docs/*.md") if f"docs/{path.name}" not in readme] == []


def callers_settings() -> dict[str, Any]:
    """The settings of the caller whose submissions the fault suite counts."""
    source = (REPO / "tasks_pkg/tests/chaos/front.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CALLERS_SETTINGS":
            return dict(ast.literal_eval(node.value))
    pytest.fail("front.py has no CALLERS_SETTINGS")


@pytest.mark.parametrize("place", ["docs/submit.md", "tasks_pkg/examples/plain_celery.py"])
def test_callers_are_told_the_settings_that_the_fault_suite_submits_with(place: str) -> None:
    text = (REPO / place).read_text()
    found = re.search(r"^app\.conf\.update\((.*?)^\)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{place} sets nothing"
    call = ast.parse(f"dict({found[1]})", mode="eval").body
    assert isinstance(call, ast.Call)
    told = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert told == callers_settings()
