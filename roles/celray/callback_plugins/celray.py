"""The output of a run for an operator: one line per event, an error once, the recap.

With -v and more it is Ansible's own output, unabridged. With CELRAY_RAW=1 the messages alone, for
other programs to read (make credentials, make logs); errors then go to standard error.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = r"""
name: celray
type: stdout
short_description: One line per thing that happened
extends_documentation_fragment: [default_callback, result_format_callback]
"""

# Ansible fills that module in while it is imported, so that a type checker does not see the names.
COLOURS: dict[str, str] = vars(constants)
# A step that takes longer is announced while it runs.
ANNOUNCE_SECONDS = 3.0
# Steps that only lead to others.
SILENT_ACTIONS = (
    "include_role",
    "include_tasks",
    "import_role",
    "import_tasks",
    "include_vars",
    "validate_argument_spec",
)


class CallbackModule(Default):
    """Quiet where nothing happens."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "celray"

    def __init__(self) -> None:
        self.parent.__init__()
        self.announcer: threading.Timer | None = None
        self.started = 0.0
        self.several = False
        self.raw = bool(os.environ.get("CELRAY_RAW"))

    @property
    def parent(self) -> Any:
        """Ansible's own output, whose methods have no types."""
        return super()

    @property
    def plain(self) -> bool:
        return int(self._display.verbosity) > 0

    def line(self, text: str, color: str | None = None) -> None:
        if not self.raw:
            self._display.display(text, color=color)
        elif color == COLOURS["COLOR_ERROR"]:
            self._display.display(text.strip(), color=color, stderr=True)

    @staticmethod
    def hides(task: Any) -> bool:
        return task.action.rsplit(".", 1)[-1] in SILENT_ACTIONS

    def whose(self, result: Any) -> str:
        """Return the host before what happened there, where there are several."""
        return f"{result.host.get_name()}: " if self.several else ""

    def done(self) -> str:
        if self.announcer:
            self.announcer.cancel()
        seconds = time.monotonic() - self.started
        return f"  ({seconds:.0f} s)" if seconds >= ANNOUNCE_SECONDS else ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        inventory = play.get_variable_manager()._inventory
        self.several = len(inventory.get_hosts(play.hosts)) > 1
        if self.plain:
            self.parent.v2_playbook_on_play_start(play)
            return
        mark = "  [check: nothing is changed]" if play.check_mode else ""
        self.line(f"\n{play.get_name().strip()}{mark}", COLOURS["COLOR_HIGHLIGHT"])

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self.plain:
            self.parent.v2_playbook_on_task_start(task, is_conditional)
            return
        self.done()
        self.started = time.monotonic()
        if not self.hides(task):
            name = task.name or task.action
            self.announcer = threading.Timer(ANNOUNCE_SECONDS, self.line, [f"  …        {name}"])
            self.announcer.daemon = True
            self.announcer.start()

    def v2_runner_on_ok(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_on_ok(result)
            return
        took, task, data = self.done(), result.task, result.result
        if self.hides(task) or "results" in data:
            return
        if task.action.endswith("debug") and "msg" in data:
            message = data["msg"]
            for text in message if isinstance(message, list) else str(message).splitlines():
                self._display.display(text if self.raw else f"  {text}")
            return
        changed = bool(data.get("changed"))
        host = self.whose(result)
        word = ("would   " if task.check_mode else "changed ") if changed else "ok      "
        self.line(
            f"  {word} {host}{task.get_name().split(' : ')[-1]}{took}",
            COLOURS["COLOR_CHANGED"] if changed else COLOURS["COLOR_OK"],
        )

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_item_on_ok(result)
            return
        took = self.done()
        if self.hides(result.task):
            return
        changed = bool(result.result.get("changed"))
        label = self._get_item_label(result.result)
        name = result.task.get_name().split(" : ")[-1]
        self.line(
            f"  {'changed ' if changed else 'ok      '} {self.whose(result)}{name}: {label}{took}",
            COLOURS["COLOR_CHANGED"] if changed else COLOURS["COLOR_OK"],
        )
        self.started = time.monotonic()

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if self.plain:
            self.parent.v2_runner_on_failed(result, ignore_errors)
            return
        took = self.done()
        if ignore_errors or "results" in result.result:
            return
        self.failure(result, took)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_item_on_failed(result)
            return
        self.failure(result, self.done())

    def failure(self, result: Any, took: str) -> None:
        data = result.result
        text = (
            str(data.get("msg", "failed"))
            .removeprefix("Task failed: ")
            .removeprefix("Module failed: ")
        )
        details = [str(data[key]).strip() for key in ("stderr", "stdout") if data.get(key)]
        self.line(
            f"  FAILED   {result.host.get_name()}: {result.task.get_name().split(' : ')[-1]}{took}",
            COLOURS["COLOR_ERROR"],
        )
        for row in "\n".join([text, *details[:1]]).splitlines():
            self.line(f"    {row}", COLOURS["COLOR_ERROR"])

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_on_unreachable(result)
            return
        self.failure(result, self.done())

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_on_skipped(result)
            return
        self.done()

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_item_on_skipped(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if self.plain:
            self.parent.v2_playbook_on_include(included_file)

    def v2_runner_retry(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_runner_retry(result)

    def v2_on_file_diff(self, result: Any) -> None:
        if self.plain:
            self.parent.v2_on_file_diff(result)
            return
        for diff in self._diffs(result):
            if diff.get("prepared"):
                for row in diff["prepared"].rstrip().splitlines():
                    self.line(f"    {row}", COLOURS["COLOR_DIFF_LINES"])

    @staticmethod
    def _diffs(result: Any) -> list[dict[str, Any]]:
        diff = result.result.get("diff") or []
        return (
            [diff] if isinstance(diff, dict) else [item for item in diff if isinstance(item, dict)]
        )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.done()
        if not self.raw or self.plain:
            self.parent.v2_playbook_on_stats(stats)
