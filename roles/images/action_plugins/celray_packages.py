"""The content and the wheels of task packages, as files for the images."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "preflight/module_utils")]
from celray.task_packages import PackageError, collect


class ActionModule(ActionBase):
    """Arguments: packages, base (relative places are meant from it), cache, python."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        cache = Path(os.path.expanduser(args["cache"]))
        try:
            made = collect(args["packages"], Path(args["base"]), cache, args["python"])
        except (PackageError, OSError) as error:
            return result | {"failed": True, "msg": f"celery_packages: {error}"}
        return result | {"changed": False, **made}
