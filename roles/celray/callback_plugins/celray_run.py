"""Record what this run changes in a journal, and end a run that fails.

The record's action plugin reads the journal that is written here (`CELRAY_RUN`). A run that took a
deployment's lock and ends without giving it back, by an error, a lost host or Ctrl-C, is written
down as failed and its lock given back by a second, short run (playbooks/failed.yml).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: celray_run
type: aggregate
short_description: A journal of what a run changes, and an end for one that fails
"""

REPO = Path(__file__).resolve().parents[3]
JOURNAL = "CELRAY_RUN"
PROCESS = "CELRAY_RUN_PROCESS"
#: Set for the run that ends a failed one: the failed one's journal.
FAILED = "CELRAY_RUN_FAILED"
#: For that run, with the operator's hook in it.
SECONDS = 1800
#: Options that make Ansible ask for a password: a second run must not.
ASKS = ("ask_pass", "become_ask_pass", "ask_vault_pass")
LONGEST = 300


def note(path: str, **entry: Any) -> None:
    """Append to a run's journal."""
    with open(path, "a") as journal:
        journal.write(json.dumps(entry) + "\n")


def read(path: str) -> list[dict[str, Any]]:
    """A run's journal."""
    with contextlib.suppress(OSError):
        return [json.loads(row) for row in Path(path).read_text().splitlines()]
    return []


def lock_of(journal: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the lock that a run has taken and not released."""
    held: dict[str, Any] = {}
    for entry in journal:
        held = entry.get("taken", {} if "finished" in entry else held)
    return held


def changes_of(data: dict[str, Any], name: str) -> tuple[list[str], bool]:
    """Return what a result changed, and whether the deployed version changes with it."""
    actions = data.get("actions")
    if isinstance(actions, dict) and actions:
        changes = [f"{verb} {service} ({why})" for service, (verb, why) in actions.items()]
        return changes, any(
            verb in ("create", "recreate", "remove") for verb, _ in actions.values()
        )
    return [name], isinstance(actions, dict)


def reason(result: Any) -> str:
    """Return why a task failed, in one line."""
    words = str(result.result.get("msg", "failed")).strip() or "failed"
    words = words.removeprefix("Task failed: ").removeprefix("Module failed: ")
    last = str(result.result.get("stderr") or "").strip().splitlines()[-1:]
    said = ": ".join([words.splitlines()[0], *last])
    return f"{result.host.get_name()}: {result.task.get_name().split(' : ')[-1]}: {said}"[:LONGEST]


class CallbackModule(CallbackBase):
    """Writes the journal, and reads it at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "celray_run"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        handle, self.path = tempfile.mkstemp(prefix="celray-run-")
        os.close(handle)
        self.process = os.getpid()
        self.several = False
        os.environ[JOURNAL] = self.path
        os.environ[PROCESS] = str(self.process)
        atexit.register(self.end)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.several = len(play.get_variable_manager()._inventory.get_hosts(play.hosts)) > 1

    def v2_runner_on_ok(self, result: Any) -> None:
        data = result.result
        if not data.get("changed") or result.task.check_mode or "celray_history" in data:
            return
        name = result.task.get_name().split(" : ")[-1]
        changes, defines = changes_of(data, name)
        where = f"{result.host.get_name()}: " if self.several else ""
        note(self.path, changed=[where + change for change in changes], defines=defines)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        # The items of a loop have reported it already.
        if not ignore_errors and "results" not in result.result:
            note(self.path, failed=reason(result))

    def v2_runner_item_on_failed(self, result: Any) -> None:
        note(self.path, failed=reason(result))

    def v2_runner_on_unreachable(self, result: Any) -> None:
        note(self.path, failed=f"{result.host.get_name()} cannot be reached")

    def end(self) -> None:
        """End the run at the process's exit, whatever the cause."""
        if os.getpid() != self.process:
            return
        try:
            lock = lock_of(read(self.path))
            if lock and FAILED not in os.environ:
                self.give_back(lock)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def give_back(self, lock: dict[str, Any]) -> None:
        """Start a run that records the failed one and releases its lock."""
        why = "Ansible would ask for a password again"
        prompts = [word for word in context.CLIARGS.get("vault_ids") or [] if "prompt" in word]
        if not prompts and not any(context.CLIARGS.get(option) for option in ASKS):
            playbooks = set(context.CLIARGS.get("args") or [])
            arguments = [word for word in sys.argv[1:] if word not in playbooks]
            try:
                done = subprocess.run(
                    [sys.executable, sys.argv[0], *arguments, str(REPO / "playbooks/failed.yml")],
                    env={**os.environ, FAILED: self.path, "CELRAY_RAW": "1"},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=SECONDS,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired, KeyboardInterrupt) as error:
                why = type(error).__name__
            else:
                said = done.stderr.strip() or done.stdout.strip()
                if done.returncode == 0:
                    self._say(
                        f"celray: the {lock['operation']} is recorded as failed (make history)"
                    )
                    return
                why = said.splitlines()[-1] if said else f"exit {done.returncode}"
        self._say(
            f"celray: lock {lock['name']} stays ({why}); the next operation from this machine "
            f"takes it over; from elsewhere: make unlock LOCK={lock['name']}"
        )

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr)  # Ansible's own display has ended
