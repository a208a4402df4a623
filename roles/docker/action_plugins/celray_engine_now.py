"""Look again at a host whose engine or compose was just installed or started.

The rules are preflight's. What they could not see before is seen here: a client that does not fit
the engine that came, or an engine that is up and still not for this user.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

REPO = Path(__file__).resolve().parents[3]
# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils"), str(REPO / "tasks_pkg/src")]
from celray.compose import choose_compose
from celray.preflight import engine
from celray.preflight.problem import Problem


class ActionModule(ActionBase):
    """Argument: compose (auto, v1, v2). Result: host, compose."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        seen = self._execute_module(module_name="celray_host", module_args={}, task_vars=task_vars)
        if seen.get("failed"):
            return {**result, **seen}
        host, wanted = seen["host"], self._task.args["compose"]
        found = engine.check(host, wanted)
        compose = choose_compose(host["compose"], wanted)
        if not found and (host["engine"]["access"] not in ("direct", "sudo") or not compose):
            lacking = "compose" if host["engine"]["access"] in ("direct", "sudo") else "the engine"
            found = [
                Problem(
                    f"{lacking} is still not usable: {host['engine']['error'] or 'none was found'}",
                    "the packages that were just installed",
                    "deploy again; if this repeats, install Docker and compose yourself",
                )
            ]
        if found:
            return result | {"failed": True, "msg": "\n".join(map(str, found))}
        return result | {"changed": False, "host": host, "compose": compose}
