"""Build the command that connects a terminal on this machine to a program on the host."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Arguments: argv, the program on the host, and whether sudo runs it. Result: command."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        argv = [*(["sudo"] if self._task.args["sudo"] else []), *self._task.args["argv"]]
        if self._connection.transport == "ssh":
            # As Ansible itself would call it: its options, user, key and shared connection. No
            # public way keeps the two the same.
            connection: Any = self._connection
            ssh = connection.get_option("ssh_executable")
            built = connection._build_command(ssh, "ssh", "-t", connection.host, shlex.join(argv))
            # A connection of its own: the shared one would go on holding this terminal's output.
            built[1:1] = ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
            argv = [word.decode() if isinstance(word, bytes) else str(word) for word in built]
        elif self._connection.transport != "local":
            why = f"a {self._connection.transport} connection cannot be attached to"
            return result | {"failed": True, "msg": why}
        return result | {"changed": False, "command": shlex.join(argv)}
