"""Load the Python code inside roles/ by path, since it is no package, and run it like Ansible."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import yaml
from ansible.module_utils.testing import patch_module_args

REPO = Path(__file__).resolve().parents[2]
# As Ansible does for the roles of a play.
ansible.module_utils.__path__.extend(
    str(path) for path in sorted((REPO / "roles").glob("*/module_utils"))
)
ROLES = sorted(path for path in (REPO / "roles").iterdir() if path.is_dir())


@cache
def load(path: str) -> ModuleType:
    """Return the module at a path in the repository; a program of .ci/ has no suffix."""
    name = path.removesuffix(".py").replace("/", "_")
    loader = SourceFileLoader(name, str(REPO / path))
    spec = importlib.util.spec_from_file_location(name, REPO / path, loader=loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def service_files() -> list[str]:
    """Return the arguments for -e by which a playbook knows the services without host_facts."""
    return [f"@{file}" for file in sorted((REPO / "roles").glob("*/service.yml"))]


def variables(role: str, folder: str) -> dict[str, Any]:
    """Return a role's `defaults` or `vars`, from main.yml or all files of main/."""
    place = REPO / "roles" / role / folder
    found: dict[str, Any] = {}
    for file in [place / "main.yml", *sorted(place.glob("main/*.yml"))]:
        found |= yaml.safe_load(file.read_text()) or {} if file.exists() else {}
    return found


def run_module(path: str, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Run an Ansible module in this process; return its result, also of a failure."""
    printed = io.StringIO()
    with patch_module_args({**args, "_ansible_check_mode": check}), redirect_stdout(printed):
        try:
            load(path).main()
        except SystemExit:
            pass
        else:
            raise AssertionError(f"{path} ended without a result")
    result: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    return result


@dataclass(frozen=True)
class Played:
    """The exit code and the output of ansible-playbook."""

    code: int
    output: str

    def require_failure(self, *words: str) -> None:
        """Assert that the playbook failed and named each mistake, without a stack trace."""
        assert self.code != 0
        for each in words:
            assert each in self.output, self.output
        assert "Traceback" not in self.output


def play(playbook: str, *arguments: str, **environment: str) -> Played:
    """Run one of our playbooks as an operator does, independent of this shell's variables."""
    clean = {name: value for name, value in os.environ.items() if name not in ("HOST", "SSH_USER")}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), playbook, *arguments],
        cwd=REPO,
        env={
            **clean,
            "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            # A playbook that runs on this machine uses this Python.
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "LC_ALL": "C.UTF-8",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Played(done.returncode, done.stdout + done.stderr)
