"""Look at a host: what its module sees there, and how far its clock is off this machine's.

A host that does not answer is one problem, with the way out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

REPO = Path(__file__).resolve().parents[3]
# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils"), str(REPO / "tasks_pkg/src")]
from celray.preflight.connection import connection_problem
from celray.preflight.problem import report


class ActionModule(ActionBase):
    """Arguments: address, user, as an error names them. Result: the facts, and skew_seconds."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        before = time.time()
        try:
            seen = self._execute_module(
                module_name="celray_host", module_args={}, task_vars=task_vars
            )
        except AnsibleConnectionFailure as error:
            user = self._task.args["user"] or self._play_context.remote_user or "(default)"
            problem = connection_problem(str(error), self._task.args["address"], user)
            return result | {"failed": True, "msg": report([problem])}
        if seen.get("failed"):
            return {**result, **seen}
        skew = seen["host"]["epoch"] - (before + time.time()) / 2
        return result | {"changed": False, **seen["host"], "skew_seconds": round(skew, 1)}
