"""Writes how long each task of a playbook took, as JSON, to the file that BENCH_PARTS names."""

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: parts
type: aggregate
short_description: Seconds per task, for make bench
description: [Appends one row per task to the file that BENCH_PARTS names.]
requirements: [enable in configuration]
"""


class CallbackModule(CallbackBase):
    """One row per task: role (or play), name, seconds."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "parts"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.started = time.monotonic()
        self.open: tuple[str, str] | None = None

    def _close(self) -> None:
        now = time.monotonic()
        if self.open:
            role, name = self.open
            self.rows.append({"role": role, "task": name, "seconds": now - self.started})
        self.started, self.open = now, None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Close the task before, open this one."""
        self._close()
        role = task._role.get_name() if task._role else "playbook"
        self.open = (role, task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002
        """The end: write the rows."""
        self._close()
        Path(os.environ["BENCH_PARTS"]).write_text(json.dumps(self.rows), encoding="utf-8")
