"""A role's page says what its meta/ and defaults/ say (.ci/role-readmes)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts import REPO, ROLES, load

pages: Any = load(".ci/role-readmes")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_page_is_current(role: Path) -> None:
    page = role / "README.md"
    assert page.exists(), ".venv-dev/bin/python .ci/role-readmes makes it"
    assert page.read_text() == pages.readme(role), "renew it: .venv-dev/bin/python .ci/role-readmes"


def make_role(place: Path, defaults: dict[str, dict[str, Any]], options: dict[str, Any]) -> Path:
    role = place / "lamp"
    for folder in ("meta", "tasks", "defaults"):
        (role / folder).mkdir(parents=True, exist_ok=True)
    meta = {"galaxy_info": {"description": "Light"}}
    (role / "meta/main.yml").write_text(yaml.safe_dump(meta))
    specs = {"argument_specs": {"main": {"options": options}}}
    (role / "meta/argument_specs.yml").write_text(yaml.safe_dump(specs))
    (role / "tasks/main.yml").write_text("- name: Switch it on\n- name: See it\n")
    for name, values in defaults.items():
        (role / name).parent.mkdir(parents=True, exist_ok=True)
        (role / name).write_text(yaml.safe_dump(values))
    return role


def test_a_page_has_the_steps_and_every_variable_with_its_default(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "lamp_watts": {"type": "int", "description": "How\nbright | it is."},
        "lamp_name": {"required": True, "description": "Its name."},
        "lamp_hours": {
            "type": "list",
            "elements": "dict",
            "description": "When.",
            "options": {"from": {"required": True, "description": "Its start."}},
        },
        "lamp_mode": {"choices": ["on", "off"], "description": "Whether it burns."},
        "lamp_url": {"description": "Where it is."},
        "lamp_words": {"type": "list", "elements": "str", "description": "Its words."},
        "lamp_key": {"description": "Its key."},
        "lamp_note": {"description": "Its note."},
    }
    derived, long = "http://{{ celray_address }}", ["a long word of it"] * 9
    first: dict[str, Any] = {
        "lamp_watts": 60,
        "lamp_hours": [],
        "lamp_mode": "on",
        "lamp_key": None,
    }
    second: dict[str, Any] = {"lamp_url": derived, "lamp_words": long, "lamp_note": ""}
    files = {"defaults/main/light.yml": first, "defaults/main/place.yml": second}
    role = make_role(tmp_path, files, options)
    text = pages.readme(role)
    assert "Light.\n\nIn order:\n\n1. Switch it on\n2. See it\n" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if "| `lamp_" in line]
    assert {name.strip("`"): cells for name, *cells in rows} == {
        "lamp_watts": ["int", "`60`", "How bright \\| it is."],
        "lamp_name": ["str", "required", "Its name."],
        "lamp_hours": ["list of dict", "`[]`", "When. Keys: `from` (str, required): Its start."],
        "lamp_mode": ["str", "`on`", "Whether it burns. One of `on`, `off`."],
        "lamp_url": ["str", "[derived](defaults/main/place.yml)", "Where it is."],
        "lamp_words": ["list of str", "[long](defaults/main/place.yml)", "Its words."],
        "lamp_key": ["str", "none", "Its key."],
        "lamp_note": ["str", '`""`', "Its note."],
    }


def test_a_page_that_is_not_current_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    role = make_role(tmp_path / "roles", {"defaults/main.yml": {"lamp_watts": 60}}, {})
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    pages.main([])
    pages.main(["--check"])
    (role / "README.md").write_text("old")
    with pytest.raises(SystemExit) as ended:
        pages.main(["--check"])
    assert ended.value.code == 1
    assert "not current: roles/lamp/README.md" in capsys.readouterr().out
    assert (role / "README.md").read_text() == "old"


def test_the_program_itself_says_so_of_this_repository() -> None:
    done = subprocess.run(
        [sys.executable, REPO / ".ci/role-readmes", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
