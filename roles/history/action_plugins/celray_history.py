"""The control node's part of a record: who runs the operation, from where, which code; hooks.

The control node's part of the module of the same name.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import secrets
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

REPO = Path(__file__).resolve().parents[3]
HOOKS = ("before-deploy", "after-deploy", "failed")
#: Operations that make a version.
DEPLOYS = ("deploy", "update", "scale")
FIELDS = ("operation", "user", "host", "commit", "dirty")
LAST_LINES = 15
#: The longest reason that a line of the record holds.
NOTE_CHARACTERS = 300


def load_journal() -> Any:
    """Return the callback plugin that keeps this run's journal."""
    path = REPO / "roles/celray/callback_plugins/celray_run.py"
    spec = importlib.util.spec_from_file_location("celray_run_journal", path)
    assert spec is not None  # noqa: S101 - for the type checker; the file is ours
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


journals = load_journal()


class HookError(Exception):
    """A hook that failed; the message is for the operator."""


# --- this machine ---------------------------------------------------------------------------------


def said(*argv: str) -> str:
    """Return a program's output; an empty text if it fails."""
    with contextlib.suppress(OSError):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def machine() -> str:
    """Return a unique name for this machine."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {Path('/etc/machine-id').read_text().strip()}"
    return socket.gethostname()


def started(pid: int) -> str:
    """Return when a process of this machine started, by `ps`; empty if there is none."""
    return said("ps", "-o", "lstart=", "-p", str(pid))


def who() -> dict[str, Any]:
    """Return the record's fields that the control node knows."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd
        user = f"uid {os.getuid()}"
    git = ("git", "-C", str(REPO))
    return {
        "user": os.environ.get("SUDO_USER") or user,
        "host": socket.gethostname(),
        "commit": said(*git, "rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(said(*git, "status", "--porcelain")),
    }


def process() -> dict[str, Any]:
    """Return the process that holds a lock: ansible-playbook's, not this worker's."""
    pid = int(os.environ.get(journals.PROCESS) or os.getppid())
    return {"machine": machine(), "pid": pid, "started": started(pid)}


def is_stale(holder: Mapping[str, Any]) -> bool:
    """Return whether the process that took a lock was on this machine and has ended."""
    held = holder.get("process")
    if not isinstance(held, Mapping) or held.get("machine") != machine() or not held.get("started"):
        return False
    return bool(started(os.getpid())) and started(int(held["pid"])) != held["started"]


def begun(holder: Mapping[str, Any]) -> str:
    """Describe who holds the lock, from where, and since when."""
    held = holder.get("process") or {}
    return (
        f"this deployment is locked: {holder.get('user', 'somebody')} on "
        f"{holder.get('host', 'an unknown machine')} began: {holder.get('operation', 'a run')}, at "
        f"{holder.get('since', 'an unknown time')} (process {held.get('pid', 'unknown')} there)"
    )


def refusal(holder: Mapping[str, Any]) -> str:
    """Return why an operation cannot begin, and what to do."""
    return f"{begun(holder)}. Nothing has been changed.\n{way_out(holder)}"


def way_out(holder: Mapping[str, Any]) -> str:
    """Return what to do about a lock."""
    name = holder.get("name", "unreadable")
    return f"way out: wait until it has ended; if that process is gone, make unlock LOCK={name}"


# --- hooks ----------------------------------------------------------------------------------------


def outside() -> dict[str, str]:
    """Return the environment without this run's variables: a hook may call make (rollback)."""
    ours = (journals.JOURNAL, journals.PROCESS, journals.FAILED, "CELRAY_RAW", "CELRAY_SHORT")
    return {name: value for name, value in os.environ.items() if name not in ours}


def run_hook(name: str, folder: Path, fields: Mapping[str, Any]) -> str:
    """Run a hook if there is one; return its output.

    Raises:
        HookError: it is not executable, or ended with another status than 0.
    """
    hook = folder / "hooks" / name
    if not hook.exists():
        return ""
    if not os.access(hook, os.X_OK):
        raise HookError(f"{hook} is not executable: chmod +x {hook}, or remove it")
    texts = {
        key: "yes" if value is True else "no" if value is False else value
        for key, value in fields.items()
        if value is not None
    }
    environment = {
        f"CELRAY_{key.upper()}": "\n".join(value) if isinstance(value, list) else str(value)
        for key, value in texts.items()
    }
    try:
        done = subprocess.run(
            [str(hook)],
            cwd=folder,
            env={**outside(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise HookError(f"{hook} cannot be run: {error.strerror} (has it a #! line?)") from error
    words = "\n".join(done.stdout.strip().splitlines()[-LAST_LINES:])
    if done.returncode:
        raise HookError(f"{hook} ended with {done.returncode}:\n{words}".strip())
    return words


def check_hooks(folder: Path) -> None:
    """Check that every hook is executable, and that none is misnamed.

    Raises:
        HookError: naming the file.
    """
    with contextlib.suppress(OSError):
        for path in sorted((folder / "hooks").iterdir()):
            if path.name in HOOKS and not os.access(path, os.X_OK):
                raise HookError(f"{path} is not executable: chmod +x {path}, or remove it")
            if path.name not in HOOKS and os.access(path, os.X_OK) and path.is_file():
                raise HookError(f"{path}: there is no such hook; there is {', '.join(HOOKS)}")


# --- the steps ------------------------------------------------------------------------------------


class ActionModule(ActionBase):
    """Arguments: see roles/history/tasks/."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.vars = task_vars or {}
        self.journal = os.environ.get(journals.JOURNAL, os.devnull)
        args = dict(self._task.args)
        step = getattr(self, args["do"])
        return {**result, "celray_history": True, **step(args)}

    def on_host(self, **args: Any) -> dict[str, Any]:
        """Run the module."""
        done: dict[str, Any] = self._execute_module(
            module_name="celray_history", module_args=args, task_vars=self.vars
        )
        done.pop("invocation", None)
        return done

    @property
    def inventory(self) -> Path:
        """Return the directory of the host's inventory, which also holds the hooks."""
        return Path(str(self.vars.get("inventory_dir") or REPO))

    def take(self, args: dict[str, Any]) -> dict[str, Any]:
        """Take the lock, then run the hook, which may refuse: nothing has changed yet."""
        fields = {"operation": args["operation"], **who()}
        holder = {"name": secrets.token_hex(3), **fields, "process": process()}
        check = bool(self._task.check_mode)
        module_args = {
            "do": "take",
            "folder": args["folder"],
            "holder": holder,
            "looked_at": args["looked_at"],
            "models": args["models"],
        }
        try:
            check_hooks(self.inventory)
        except HookError as error:
            return {"failed": True, "msg": f"{error}\nNothing has been changed."}
        told = []
        done = self.on_host(**module_args)
        if done.get("held") and is_stale(done["holder"]):
            name = done["holder"]["name"]
            told.append(f"lock {name} was left by a process that has ended; taken over\n")
            done = self.on_host(**module_args, stale=name)
        if done.get("failed"):
            return done
        if done.get("held"):
            return {"failed": True, "msg": refusal(done["holder"])}
        if check:
            told += ["  " + begun(done["holder"]) + "\n"] if done.get("holder") else []
            return {"changed": False, "diff": {"prepared": "".join(told)} if told else {}}
        lock = {**holder, "folder": args["folder"], "number": done["number"]}
        journals.note(self.journal, taken={**lock, "inventory": str(self.inventory), **done})
        try:
            words = run_hook("before-deploy", self.inventory, fields)
        except HookError as error:
            # The lock is released, and the line written, where every failed run ends.
            journals.note(self.journal, failed=f"before-deploy: {error}"[:NOTE_CHARACTERS])
            return {"failed": True, "msg": f"{error}\nNothing has been changed."}
        told += [f"  {line}\n" for line in words.splitlines()]
        return {**done, "changed": False, "diff": {"prepared": "".join(told)} if told else {}}

    def finish(self, args: dict[str, Any]) -> dict[str, Any]:
        """Record what was done, store the version, release the lock."""
        journal = journals.read(self.journal)
        # All hosts do this in parallel, and the first one releases the lock.
        taken = [entry["taken"] for entry in journal if "taken" in entry]
        lock = journals.lock_of(journal) if args["first"] else (taken or [{}])[-1]
        if not lock or self._task.check_mode:
            return {"changed": False}
        changed = [change for entry in journal for change in entry.get("changed", [])]
        new = any(entry.get("defines") for entry in journal) or not lock.get("stored")
        versioned = args.get("version") is None and lock["operation"] in DEPLOYS
        store = lock["number"] if versioned and new and args.get("projects") else None
        number = store if args.get("version") is None else args["version"]
        line = {
            **{key: lock[key] for key in FIELDS},
            "what": changed,
            "result": "ok",
            "version": lock.get("current") if number is None else number,
        }
        if lock["operation"] == "destroy":
            line["version"] = None
        if missed := [entry["failed"] for entry in journal if "failed" in entry]:
            line["note"] = f"not everywhere: {'; '.join(missed)}"[:NOTE_CHARACTERS]
        done = self.on_host(
            do="finish",
            folder=args["folder"],
            projects=args.get("projects"),
            first=args["first"],
            name=lock["name"],
            # An operation without changes is not recorded; the first version always is.
            line=line if changed or store is not None else {},
            store=store,
            meta={**{key: lock[key] for key in FIELDS}, **args.get("meta", {})},
        )
        if done.get("failed") or not args["first"]:
            return done
        journals.note(self.journal, finished=True)
        try:
            words = run_hook("after-deploy", self.inventory, line)
        except HookError as error:
            return {"failed": True, "msg": f"the {lock['operation']} is done and recorded; {error}"}
        told = [f"  {row}\n" for row in words.splitlines()]
        used = [line["version"], *(one for one in lock["used"] if one != line["version"])]
        if done.get("broken"):
            told.append("  the lock of this run was broken meanwhile: see make history\n")
        return {
            **done,
            "version": line["version"],
            "kept": kept(used[: int(args["kept"])]),
            "new": store is not None,
            "diff": {"prepared": "".join(told)} if told else {},
        }

    def failed(self, _: dict[str, Any]) -> dict[str, Any]:
        """End a failed run: write its line, release its lock, run its hook."""
        journal = journals.read(os.environ.get(journals.FAILED, os.devnull))
        lock = journals.lock_of(journal)
        if not lock:
            return {"changed": False}
        reasons = [entry["failed"] for entry in journal if "failed" in entry]
        line = {
            **{key: lock[key] for key in FIELDS},
            "what": [change for entry in journal for change in entry.get("changed", [])],
            "result": f"failed: {reasons[-1] if reasons else 'interrupted'}",
        }
        done = self.on_host(do="finish", folder=lock["folder"], name=lock["name"], line=line)
        try:
            run_hook("failed", Path(lock["inventory"]), line)
        except HookError as error:
            return {"failed": True, "msg": str(error)} if not done.get("failed") else done
        return done

    def read(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the record as lines for a person."""
        done = self.on_host(do="read", folder=args["folder"])
        if done.get("failed"):
            return done
        return {**done, "told": table(done, int(args["most"]), args["kept"])}

    def unlock(self, args: dict[str, Any]) -> dict[str, Any]:
        """Break a lock by its name."""
        line = {"operation": "unlock", **who(), "what": [f"lock {args['name']}"], "result": "ok"}
        done = self.on_host(do="unlock", folder=args["folder"], name=args["name"], line=line)
        holder = done.get("holder")
        if done.get("failed") or done.get("broken"):
            return {**done, "told": f"lock {args['name']} is broken" if done.get("broken") else ""}
        if not holder:
            return {"changed": False, "told": "no lock is held"}
        return {"failed": True, "msg": refusal(holder)}

    def version(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return what a version was made from on this host."""
        names = ("folder", "projects", "first")
        return self.on_host(
            do="version", to=str(args["to"]), **{name: args[name] for name in names}
        )


def kept(numbers: list[int]) -> str:
    """Describe for a person which versions can be restored."""
    if not numbers[1:]:
        return "images are kept of the last versions, for make rollback"
    return f"images are kept of {', '.join(map(str, numbers))}; make rollback TO={numbers[1]}"


def table(found: Mapping[str, Any], most: int, most_kept: int) -> list[str]:
    """Return the record for a person, the newest line last."""
    lines = found["lines"][-most:]
    told = []
    for line in lines:
        number = line.get("version")
        commit = f"{line.get('commit', '')}{' +changes' if line.get('dirty') else ''}"
        told.append(
            f"{line.get('time', ''):<21}{line.get('operation', ''):<9}"
            f"{'' if number is None else 'version ' + str(number):<12}{commit:<22}"
            f"{line.get('user', '')} on {line.get('host', '')}  {line.get('result', '')}"
        )
        told += [f"    {what}" for what in line.get("what", [])]
        told += [f"    {line['note']}"] if line.get("note") else []
    if not told:
        told = ["nothing is recorded yet"]
    used = found["used"]
    if used:
        told += ["", f"version {used[0]} runs; {kept(used[:most_kept])}"]
    elif lines:
        told += ["", "nothing that a rollback could go back to has run"]
    holder = found.get("holder")
    if holder:
        told += ["", begun(holder), way_out(holder)]
    return told
