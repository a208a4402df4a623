"""Destroying a deployment removes what it owns and nothing beside it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import basic

MODULE = Path(__file__).resolve().parents[1] / "roles/operate/library/celray_destroy.py"


@pytest.fixture
def destroy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, on a host without an engine."""
    spec = importlib.util.spec_from_file_location("celray_destroy", MODULE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, **params: Any) -> None:
    """Call it as Ansible does, with its arguments on the command line."""
    monkeypatch.setattr(
        basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": params}).encode()
    )
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
    monkeypatch.setattr(sys, "argv", ["celray_destroy"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0


def test_purging_leaves_a_clone_that_lies_in_the_same_place(
    destroy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "celray"
    (home / "secrets").mkdir(parents=True)
    (home / "Makefile").write_text("the operator's clone")
    run(destroy, monkeypatch, folders=[str(home / "secrets")], parents=[str(home)])
    assert [path.name for path in home.iterdir()] == ["Makefile"]


def test_purging_removes_a_home_that_held_nothing_else(
    destroy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "celray"
    (home / "models/.runs").mkdir(parents=True)
    run(destroy, monkeypatch, folders=[str(home / "models")], parents=[str(home)])
    assert not home.exists()
