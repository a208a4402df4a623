"""Look again at a host whose engine or compose was just installed or started.

The rules are preflight's. What they could not see before is seen here: a client that does not fit
the engine that came, or an engine that is up and still not for this user.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

RULES = Path(__file__).with_name("celray_preflight_engine.py")


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101 - for the type checker; the file is ours
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ActionModule(ActionBase):
    """Argument: compose (auto, v1, v2). Result: host, compose."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        seen = self._execute_module(module_name="celray_host", module_args={}, task_vars=task_vars)
        if seen.get("failed"):
            return {**result, **seen}
        host, wanted, rules = seen["host"], self._task.args["compose"], load(RULES)
        found = rules.check(host, wanted)
        compose = rules.choose_compose(host["compose"], wanted)
        if not found and (host["engine"]["access"] not in ("direct", "sudo") or not compose):
            lacking = "compose" if host["engine"]["access"] in ("direct", "sudo") else "the engine"
            found = [
                (
                    f"{lacking} is still not usable: {host['engine']['error'] or 'none was found'}",
                    "the packages that were just installed",
                    "deploy again; if this repeats, install Docker and compose yourself",
                )
            ]
        if found:
            lines = [
                f"{what}\n     from: {where}\n     way out: {fix}" for what, where, fix in found
            ]
            return result | {"failed": True, "msg": "\n".join(lines)}
        return result | {"changed": False, "host": host, "compose": compose}
