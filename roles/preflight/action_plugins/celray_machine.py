"""Stop an operation that would be done on another machine than the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

REPO = Path(__file__).resolve().parents[3]
# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils"), str(REPO / "tasks_pkg/src")]
from celray.preflight.engine import wrong_machine
from celray.preflight.problem import report


class ActionModule(ActionBase):
    """Argument: host, what the role host_facts found."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        problems = wrong_machine(self._task.args["host"])
        if problems:
            return result | {"failed": True, "msg": report(problems)}
        return result | {"changed": False}
