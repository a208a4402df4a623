#!/usr/bin/python
"""A deployment's lock, its record and its versions: one directory on its first Redis host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_history
short_description: Lock a deployment, record its operations, and store versions for rollbacks
description:
  - Called through the action plugin of the same name, which knows the control node.
  - The directory holds C(lock.json), C(record.jsonl) and C(versions/N.json), with mode 0600 and
    without secrets.
options:
  do:
    description: The step.
    choices: [take, finish, read, unlock, version]
    required: true
  folder: {description: The directory, type: path, required: true}
  projects: {description: "finish, version: directory of the rendered projects", type: path}
  models: {description: "take: directory of the marker that a Ray image has trained", type: path}
  holder: {description: "take: who takes the lock", type: dict, default: {}}
  stale: {description: "take: name of a lock whose process has ended", type: str, default: ""}
  looked_at:
    description: "take: time of this host's preflight; a later operation of others is an error"
    type: float
  name: {description: "finish, unlock: the lock's name", type: str, default: ""}
  line: {description: "finish: the line for the record", type: dict, default: {}}
  first: {description: "finish: whether this host holds lock and record", type: bool, default: true}
  store: {description: "finish: the version to store", type: int}
  meta: {description: "finish: further keys of the stored version", type: dict, default: {}}
  to: {description: "version: its number; empty: the one before", type: str, default: ""}
author: celray
"""

EXAMPLES = r"""
# See roles/history/tasks/: the arguments come from the action plugin.
"""

RETURN = r"""
holder: {description: the lock's holder, returned: when it is held, type: dict}
lines: {description: "read: the record, oldest first", returned: when read, type: list}
"""

import contextlib
import json
import os
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

#: The size of the record, in bytes, above which its older half is deleted.
MOST_BYTES = 4_000_000
#: The most versions kept on disk; images of fewer are kept (roles/images).
MOST_VERSIONS = 20
VERSION_OPERATIONS = ("deploy", "update", "scale", "rollback")


class HistoryError(Exception):
    """A step that cannot be done; the message is for the operator."""


# --- files ----------------------------------------------------------------------------------------


def read_json(path: str) -> Any:
    """Return a file's content; None if it is missing or unreadable."""
    try:
        with open(path) as handle:
            return json.load(handle)
    except (OSError, ValueError):
        return None


def write_new(path: str, content: Any) -> bool:
    """Write a new file atomically; return False if it exists already."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))  # mode 0600
    try:
        with os.fdopen(handle, "w") as stream:
            json.dump(content, stream)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def replace(path: str, text: str) -> None:
    """Replace a file atomically."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    os.rename(temporary, path)


class History:
    """The directory."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lock_file = os.path.join(folder, "lock.json")
        self.record_file = os.path.join(folder, "record.jsonl")
        self.versions_folder = os.path.join(folder, "versions")

    def make(self) -> None:
        """Create the directory, readable by its owner only, since it tells what was deployed."""
        if not os.path.isdir(self.versions_folder):
            os.makedirs(os.path.dirname(self.folder), mode=0o750, exist_ok=True)
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            os.makedirs(self.versions_folder, mode=0o700, exist_ok=True)
            os.chmod(self.folder, 0o700)  # it may have been there

    def holder(self) -> dict[str, Any] | None:
        """Return the holder of the lock."""
        found = read_json(self.lock_file)
        if found is None and os.path.exists(self.lock_file):
            return {"name": "unreadable"}
        return found if isinstance(found, dict) or found is None else {"name": "unreadable"}

    def lines(self) -> list[dict[str, Any]]:
        """Return the record, oldest first, without an incomplete line."""
        try:
            with open(self.record_file) as handle:
                rows = handle.read().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for row in rows:
            with contextlib.suppress(ValueError):
                line = json.loads(row)
                if isinstance(line, dict):
                    found.append(line)
        return found

    def append(self, line: dict[str, Any]) -> None:
        """Append a line to the record, and sync it to disk."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(self.record_file) > MOST_BYTES:
                rows = [json.dumps(one) for one in self.lines()]
                replace(self.record_file, "\n".join([*rows[len(rows) // 2 :], ""]))
        row = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        handle = os.open(self.record_file, flags, 0o600)
        try:
            # End a line that a full disk left incomplete.
            if os.fstat(handle).st_size and not self._ends_in_newline():
                row = b"\n" + row
            os.write(handle, row)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _ends_in_newline(self) -> bool:
        with open(self.record_file, "rb") as handle:
            handle.seek(-1, os.SEEK_END)
            return handle.read() == b"\n"

    # versions

    def version_file(self, number: int) -> str:
        return os.path.join(self.versions_folder, f"{number}.json")

    def numbers(self) -> list[int]:
        """Return the stored versions, oldest first."""
        try:
            names = os.listdir(self.versions_folder)
        except FileNotFoundError:
            return []
        stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def next_number(self) -> int:
        """Return an unused version number; that of a removed version is not used again."""
        recorded = [
            line["version"] for line in self.lines() if isinstance(line.get("version"), int)
        ]
        return int(max([0, *self.numbers(), *recorded])) + 1

    def used(self) -> list[int]:
        """Return the versions that have run, the last one first, each once.

        What ran before a destroy has no images any more.
        """
        found: list[int] = []
        for line in reversed(self.lines()):
            number = line.get("version")
            if line.get("result") != "ok":
                continue
            if line.get("operation") == "destroy":
                break
            if isinstance(number, int) and number not in found:
                found.append(number)
        return found

    def before(self) -> int | None:
        """Return the target of a rollback without a number.

        After an operation that failed half-way, the version that ran before it; else the one that
        ran before the one that runs. So a rollback of a rollback brings back what was there.
        """
        used = self.used()
        done = [line for line in self.lines() if line.get("operation") in VERSION_OPERATIONS]
        last = done[-1] if done else {}
        if last.get("result", "ok") != "ok":
            return used[0] if used else None
        return used[1] if len(used) > 1 else None


# --- the steps ------------------------------------------------------------------------------------


def take(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """Take the lock, or report its holder."""
    history.make()
    holder = {**params["holder"], "since": now()}
    if params["stale"]:
        there = history.holder()
        if there and there.get("name") == params["stale"]:
            os.unlink(history.lock_file)
            history.append(left_behind(there))
    if not write_new(history.lock_file, holder):
        return {"held": True, "holder": history.holder() or {"name": "unreadable"}}
    looked_at = params["looked_at"]
    done = [
        line
        for line in history.lines()
        if line.get("epoch", 0) > (looked_at or time.time()) and not line.get("left_behind")
    ]
    if done:
        os.unlink(history.lock_file)
        raise HistoryError(
            f"{done[-1]['user']} from {done[-1]['host']} did a {done[-1]['operation']} while this "
            "run looked at the host; nothing has been changed. Run it again"
        )
    used = history.used()
    return {
        "held": False,
        "number": history.next_number(),
        "stored": bool(history.numbers()),
        "current": used[0] if used else None,
        "used": used,
        "trained": trained(params["models"]),
    }


def trained(folder: str | None) -> list[str]:
    """Return the marks of Ray images that have trained here; read on the way (roles/operate)."""
    try:
        return sorted(name for name in os.listdir(folder or "") if name.startswith(".trained-"))
    except OSError:
        return []


def left_behind(holder: dict[str, Any]) -> dict[str, Any]:
    """Return the record line of an operation whose process ended without reporting."""
    line = {key: value for key, value in holder.items() if key not in ("name", "process", "since")}
    result = f"failed: its process ended without a word (begun {holder.get('since', 'unknown')})"
    line = {"operation": "unknown", "user": "unknown", "host": "unknown", "what": [], **line}
    return {"time": now(), "epoch": time.time(), **line, "result": result, "left_behind": True}


def finish(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """Store the version, append the record line, and release the lock."""
    if not os.path.isdir(history.folder) and (params["first"] or params["store"] is None):
        return {"gone": True}  # destroyed with its data
    history.make()
    if params["store"] is not None:
        projects = stored_projects(params["projects"])
        if projects:
            content = {**params["meta"], "number": params["store"], "projects": projects}
            replace(history.version_file(params["store"]), json.dumps(content))
        for number in history.numbers()[:-MOST_VERSIONS]:
            os.unlink(history.version_file(number))
    broken = False
    if params["first"]:
        holder = history.holder()
        broken = not holder or holder.get("name") != params["name"]
        if params["line"]:
            line = {"time": now(), "epoch": time.time(), **params["line"]}
            if broken:
                line["note"] = "its lock was broken meanwhile"
            history.append(line)
        if not broken:
            os.unlink(history.lock_file)
    return {"broken": broken}


def stored_projects(folder: str) -> dict[str, Any]:
    """Return what each project of this host was made from, as stored by roles/compose_project."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            content = read_json(os.path.join(folder, name, "deployed.json"))
            if isinstance(content, dict):
                found[name] = content
    return found


def read(history: History, _: dict[str, Any]) -> dict[str, Any]:
    """Return the record, the versions, and the holder of the lock."""
    return {
        "lines": history.lines(),
        "versions": history.numbers(),
        "used": history.used(),
        "holder": history.holder(),
    }


def unlock(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """Break only the lock of that name."""
    holder = history.holder()
    if not holder or holder.get("name") != params["name"]:
        return {"holder": holder, "broken": False}
    os.unlink(history.lock_file)
    history.append({"time": now(), "epoch": time.time(), **params["line"]})
    return {"holder": holder, "broken": True, "changed": True}


def version(history: History, params: dict[str, Any]) -> dict[str, Any]:
    """Return what a version was made from on this host."""
    numbers, used = history.numbers(), history.used()
    there = ", ".join(map(str, numbers)) or "none"
    if params["to"]:
        number = int(params["to"]) if params["to"].isdigit() else None
    else:
        number = history.before()
        if number is None and params["first"]:
            raise HistoryError(
                f"there is no version before the one that runs; stored: {there} (make history)"
            )
    content = read_json(history.version_file(number)) if number is not None else None
    if content is None and params["first"]:
        raise HistoryError(
            f"TO={params['to'] or number}: there is no such version; stored: {there} (make history)"
        )
    content = content or {}
    note = keep_redis(content.get("projects", {}), stored_projects(params["projects"]))
    return {
        "number": number,
        "current": used[0] if used else None,
        "used": used,
        "note": note,
        "images": sorted({i for p in content.get("projects", {}).values() for i in p["images"]}),
        **content,
    }


def keep_redis(stored: dict[str, Any], now: dict[str, Any]) -> str:
    """Keep the running image of Redis: an earlier one may not read a later one's files."""
    before, after = (found.get("redis", {}).get("images", []) for found in (stored, now))
    if before == after or len(before) != 1 or len(after) != 1:
        return ""
    project = stored["redis"]
    project["definition"] = project["definition"].replace(before[0], after[0])
    project["images"] = after
    return f"Redis stays at image {after[0]}: an earlier one may not be able to read its data"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "do": {"choices": ["take", "finish", "read", "unlock", "version"], "required": True},
            "folder": {"type": "path", "required": True},
            "projects": {"type": "path"},
            "models": {"type": "path"},
            "holder": {"type": "dict", "default": {}},
            "stale": {"type": "str", "default": ""},
            "looked_at": {"type": "float"},
            "name": {"type": "str", "default": ""},
            "line": {"type": "dict", "default": {}},
            "first": {"type": "bool", "default": True},
            "store": {"type": "int"},
            "meta": {"type": "dict", "default": {}},
            "to": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    steps = {"take": take, "finish": finish, "read": read, "unlock": unlock, "version": version}
    do = module.params["do"]
    history = History(module.params["folder"])
    if module.check_mode and do in ("take", "finish", "unlock"):
        module.exit_json(changed=False, held=False, holder=history.holder())
    try:
        module.exit_json(**{"changed": False, **steps[do](history, module.params)})
    except HistoryError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{module.params['folder']}: {error}")


if __name__ == "__main__":
    main()
