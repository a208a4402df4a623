"""Pass the controller's files to the module of the same name."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

REPO = Path(__file__).resolve().parents[3]


def context_from(sources: dict[str, str]) -> dict[str, str]:
    """Return path in the build context -> text; sources are files or directories of celray."""
    context: dict[str, str] = {}
    for name, source in sources.items():
        path = REPO / source
        if path.is_file():
            context[name] = path.read_text()
        for item in sorted(path.rglob("*")):
            inside = item.relative_to(path)
            if item.is_file() and item.suffix != ".pyc" and "__pycache__" not in inside.parts:
                context[f"{name}/{inside}"] = item.read_text()
    return context


class ActionModule(ActionBase):
    """Arguments: the module's, and of this machine: `context_from`, `wheelhouse`."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        if sources := args.pop("context_from", None):
            args["context"] = context_from(sources)
        if (wheelhouse := args.pop("wheelhouse", None)) and not self._task.check_mode:
            args["wheels_archive"] = self.put(Path(wheelhouse))
        done: dict[str, Any] = self._execute_module(
            module_name="celray_image", module_args=args, task_vars=task_vars
        )
        done.pop("invocation", None)
        return result | done

    def put(self, folder: Path) -> str:
        """Send a directory to the host as one archive; return the archive's path there."""
        there = self._connection._shell.join_path(self._make_tmp_path(), "wheels.tar")
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            with tarfile.open(file.name, "w") as archive:
                archive.add(folder, arcname=".")
            self._connection.put_file(file.name, there)
        return str(there)
