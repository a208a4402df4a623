#!/usr/bin/python
"""Converge one compose project: the only caller of compose in this repository."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_compose
short_description: Converge a compose project by digest label, under either compose generation
description:
  - Replaces a container whose digest label differs from the wanted one, creates a missing one,
    starts a stopped one, and removes one that no service names any more. Touches nothing else.
  - Called through the action plugin of the same name, which renders and digests the definition.
options:
  project: {description: Compose project name, type: str, required: true}
  folder: {description: Directory that the project is written to, type: path, required: true}
  compose: {description: The command that runs compose, type: list, elements: str, required: true}
  docker: {description: The engine's client, type: str, required: true}
  text: {description: The compose file, type: str, required: true}
  services:
    description: Container, image, digest and parts of each service.
    type: dict
    required: true
  files: {description: Files to write below folder from name to content, type: dict, default: {}}
  secret_files:
    description: Files that hold secrets (mode 0400), in the same form.
    type: dict
    default: {}
  folders: {description: Directories that are mounted, type: list, elements: str, default: []}
  uid: {description: Owner of files and directories, type: int, required: true}
  gid: {description: Group of files and directories, type: int, required: true}
  wait_seconds:
    description: How long a changed service may take to become healthy.
    type: int
    default: 180
  may_restart:
    description: Whether the services may restart within that time, as where they need another host.
    type: bool
    default: false
  deployed:
    description: The input of this definition, without secrets, for a rollback (roles/history).
    type: str
    default: ""
  stand_in:
    description:
      - Replaces services one by one, each behind a stand-in, a temporary container. C(text) and
        C(services) are like those above, with other container names. C(canary) is the command that
        must succeed in a new container. If it fails, the old container stays.
    type: dict
author: celray
"""

EXAMPLES = r"""
# See roles/compose_project/tasks/main.yml: the arguments come from the action plugin.
"""

RETURN = r"""
actions: {description: "by service: verb and reason", returned: always, type: dict}
lines: {description: the actions as text, returned: always, type: list}
told: {description: the course of each replacement behind a stand-in, returned: always, type: list}
"""

import difflib
import json
import os
import shutil
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DIGEST_LABEL = "celray.digest"
SECRET_MODE = 0o400
PLAIN_MODE = 0o440
# A service with more restarts than this during the wait will not come up.
MOST_RESTARTS = 2
SYMBOLS = {"create": "+", "recreate": "~", "start": "^", "remove": "-"}


class EngineError(Exception):
    """Compose or the engine failed; the message is for the operator."""


# --- what is there, what is wanted, what to do ----------------------------------------------------


def plan(
    services: dict[str, dict[str, Any]],
    present: dict[str, dict[str, Any]],
    stored: dict[str, dict[str, str]],
) -> dict[str, tuple[str, str]]:
    """Return service -> (create | recreate | start | remove, reason); others need nothing."""
    actions: dict[str, tuple[str, str]] = {}
    for name, wanted in services.items():
        there = present.get(name)
        if there is None:
            actions[name] = ("create", "not there")
        elif there["digest"] != wanted["digest"]:
            actions[name] = ("recreate", reason(stored.get(name), wanted["parts"]))
        elif there["state"] != "running":
            actions[name] = ("start", there["state"])
    for name in present.keys() - services.keys():
        actions[name] = ("remove", "no longer defined")
    return actions


def reason(stored: dict[str, str] | None, parts: dict[str, str]) -> str:
    if not stored:
        return "definition differs"
    changed = sorted(
        key for key in stored.keys() | parts.keys() if stored.get(key) != parts.get(key)
    )
    return ", ".join(changed) + " changed" if changed else "label differs"


def describe(
    project: str, services: dict[str, Any], actions: dict[str, tuple[str, str]]
) -> list[str]:
    names = {name: service["container"] for name, service in services.items()}
    lines = [
        f"  {SYMBOLS[verb]} {names.get(name, name):<24} {verb:<9} {why}"
        for name, (verb, why) in sorted(actions.items())
    ]
    return [project, *lines] if lines else []


# --- files ----------------------------------------------------------------------------------------


def read(path: str) -> str | None:
    try:
        with open(path) as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def own(path: str, uid: int, gid: int) -> None:
    # Only root can give files away; everybody else's are their own already.
    if os.geteuid() == 0:
        os.chown(path, uid, gid, follow_symlinks=False)


def make_folder(path: str, uid: int, gid: int, mode: int) -> bool:
    """Create a directory with its missing parents, all of them owned by uid."""
    if os.path.isdir(path):
        return False
    make_folder(os.path.dirname(path), uid, gid, 0o750)
    os.mkdir(path, mode)
    own(path, uid, gid)
    return True


def write(path: str, content: str, mode: int, uid: int, gid: int) -> None:
    """Write atomically, and never with a wider mode than the final one."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "w") as stream:
        stream.write(content)
    os.chmod(temporary, mode)
    own(temporary, uid, gid)
    os.rename(temporary, path)


class Project:
    """One compose project on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.folder: str = self.params["folder"]
        self.compose_file = os.path.join(self.folder, "compose.yml")
        self.state_file = os.path.join(self.folder, "state.json")
        self.stand_in: dict[str, Any] = self.params["stand_in"] or {}
        self.stand_in_project = f"{self.params['project']}-stand-in"
        self.stand_in_file = os.path.join(self.folder, "stand-in.yml")
        self.told: list[str] = []
        self.present_before: dict[str, dict[str, Any]] = {}

    # engine and compose

    def docker(self, *argv: str) -> str:
        rc, out, err = self.module.run_command([self.params["docker"], *argv])
        if rc:
            raise EngineError(f"docker {argv[0]}: {(err or out).strip()}")
        return str(out)

    def compose(self, *argv: str, stand_in: bool = False) -> None:
        # LANG: compose v1 is Python and dies on a host whose locale is not UTF-8.
        command = [
            *self.params["compose"],
            "-p",
            self.stand_in_project if stand_in else self.params["project"],
            "-f",
            self.stand_in_file if stand_in else self.compose_file,
            "--project-directory",
            self.folder,
            *argv,
        ]
        rc, out, err = self.module.run_command(
            command, cwd=self.folder, environ_update={"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        )
        if rc:
            raise EngineError(f"compose {' '.join(argv)}: {(err or out).strip()[-2000:]}")

    def inspect(self, ids: list[str]) -> list[dict[str, Any]]:
        return list(json.loads(self.docker("inspect", *ids))) if ids else []

    def ids(self, project: str) -> list[str]:
        label = f"label=com.docker.compose.project={project}"
        return self.docker("ps", "-aq", "--filter", label).split()

    def present(self) -> dict[str, dict[str, Any]]:
        """Return service -> id, digest and state of each container of this project."""
        found: dict[str, dict[str, Any]] = {}
        if self.module.check_mode and not shutil.which(self.params["docker"]):
            return found  # a bare host: the deploy would install the engine first
        for box in self.inspect(self.ids(self.params["project"])):
            labels = box["Config"]["Labels"]
            found[labels["com.docker.compose.service"]] = {
                "id": box["Id"],
                "digest": labels.get(DIGEST_LABEL, ""),
                "state": box["State"]["Status"],
            }
        return found

    # differences on disk

    def wanted_files(self) -> dict[str, tuple[str, int]]:
        """Return path -> content and mode."""
        kinds = ((self.params["files"], PLAIN_MODE), (self.params["secret_files"], SECRET_MODE))
        return {
            os.path.join(self.folder, name): (content, mode)
            for files, mode in kinds
            for name, content in files.items()
        }

    def differing_files(self) -> dict[str, tuple[str, int]]:
        return {
            path: (content, mode)
            for path, (content, mode) in self.wanted_files().items()
            if read(path) != content or os.stat(path).st_mode & 0o777 != mode
        }

    def obsolete_files(self) -> list[str]:
        keep = set(self.wanted_files())
        found = [
            os.path.join(root, name)
            for root, _, names in os.walk(os.path.join(self.folder, "files"))
            for name in names
        ]
        return sorted(set(found) - keep)

    def stored_parts(self) -> dict[str, dict[str, str]]:
        try:
            return dict(json.loads(read(self.state_file) or "{}"))
        except ValueError:
            return {}

    def detail(self, differing: dict[str, tuple[str, int]]) -> list[str]:
        """Return unified diffs; only the name of a secret file."""
        pairs = [(self.compose_file, read(self.compose_file) or "", self.params["text"])]
        lines = []
        for path, (content, mode) in differing.items():
            if mode == SECRET_MODE:
                lines.append(f"  {path}: secret, {'changes' if os.path.exists(path) else 'new'}")
            else:
                pairs.append((path, read(path) or "", content))
        for path, before, after in pairs:
            lines += list(
                difflib.unified_diff(
                    before.splitlines(), after.splitlines(), path, f"{path} (new)", lineterm="", n=1
                )
            )
        return lines

    # converging

    def write_all(self, differing: dict[str, tuple[str, int]], obsolete: list[str]) -> None:
        uid, gid = self.params["uid"], self.params["gid"]
        make_folder(os.path.join(self.folder, "files"), uid, gid, 0o700)
        for path, (content, mode) in differing.items():
            make_folder(os.path.dirname(path), uid, gid, 0o700)
            write(path, content, mode, uid, gid)
        for path in obsolete:
            os.unlink(path)
        if read(self.compose_file) != self.params["text"]:
            write(self.compose_file, self.params["text"], 0o640, uid, gid)

    def converge(
        self, actions: dict[str, tuple[str, str]], present: dict[str, dict[str, Any]]
    ) -> None:
        by_verb: dict[str, list[str]] = {verb: [] for verb in SYMBOLS}
        for name, (verb, _) in sorted(actions.items()):
            by_verb[verb].append(name)
        for name in by_verb["remove"]:
            self.docker("stop", present[name]["id"])
            self.docker("rm", present[name]["id"])
        if self.stand_in:
            for name in by_verb["recreate"]:
                self.replace(name)
            by_verb["recreate"] = []
        if by_verb["recreate"]:
            # Removed first, never recreated in place: v1 on a newer engine dies of that
            # (KeyError: ContainerConfig, docker/compose#11742). Both generations then do the same.
            self.compose("stop", *by_verb["recreate"])
            self.compose("rm", "-f", *by_verb["recreate"])
        up = by_verb["create"] + by_verb["recreate"] + by_verb["start"]
        if up:
            self.compose("up", "-d", "--no-build", "--no-deps", "--no-recreate", *up)
            self.wait(up)

    def replace(self, name: str) -> None:
        """Replace one service behind a stand-in, so that one of the two always works.

        The stand-in is the new definition under another name, and so the trial of it: while it is
        brought up and used, the old container works on.
        """
        began = time.monotonic()
        container = self.params["services"][name]["container"]
        other = self.stand_in["services"][name]["container"]
        uid, gid = self.params["uid"], self.params["gid"]
        write(self.stand_in_file, self.stand_in["text"], 0o640, uid, gid)
        try:
            try:
                self.compose("up", "-d", "--no-build", "--no-deps", name, stand_in=True)
                self.wait([name], self.stand_in["services"])
                self.canary(other)
            except EngineError as error:
                raise EngineError(
                    f"the new {container} does not work; the old one never stopped. {error}"
                ) from error
            ready = time.monotonic()
            self.compose("stop", name)
            self.compose("rm", "-f", name)
            self.compose("up", "-d", "--no-build", "--no-deps", "--no-recreate", name)
            self.wait([name])
            self.canary(container)
            self.told.append(
                f"{container}: its stand-in worked after {ready - began:.0f} s,"
                f" it is replaced after {time.monotonic() - began:.0f} s"
            )
        finally:
            self.dismiss()

    def canary(self, container: str) -> None:
        """Run the container's own check; its output is the error if it fails."""
        rc, out, err = self.module.run_command(
            [self.params["docker"], "exec", container, *self.stand_in["canary"]]
        )
        if rc:
            raise EngineError(f"{container}: {(err or out).strip()[-2000:]}")

    def dismiss(self) -> None:
        """Stop stand-ins, including those of an interrupted run, with their grace period."""
        for identity in self.ids(self.stand_in_project):
            self.docker("stop", identity)
            self.docker("rm", identity)
        if os.path.exists(self.stand_in_file):
            os.unlink(self.stand_in_file)

    def snapshot(self, paths: list[str]) -> dict[str, tuple[str, int] | None]:
        """Return content and mode of the current files, for :meth:`restore`."""
        return {
            path: None if (text := read(path)) is None else (text, os.stat(path).st_mode & 0o777)
            for path in paths
        }

    def restore(self, snapshot: dict[str, tuple[str, int] | None]) -> None:
        """Restore files, and the containers that a failed replacement removed."""
        for path, was in snapshot.items():
            if was is not None:
                write(path, *was, self.params["uid"], self.params["gid"])
            elif os.path.exists(path):
                os.unlink(path)
        gone = [
            name
            for name, there in self.present_before.items()
            if name in self.params["services"]
            and not self.docker("ps", "-q", "--no-trunc", "--filter", f"id={there['id']}").strip()
            and self.params["services"][name]["container"] not in self.replaced()
        ]
        if gone:
            # The remaining new containers are removed first: v1 cannot recreate in place.
            self.compose("stop", *gone)
            self.compose("rm", "-f", *gone)
            self.compose("up", "-d", "--no-build", "--no-deps", "--no-recreate", *gone)

    def replaced(self) -> set[str]:
        return {line.partition(":")[0] for line in self.told}

    def wait(self, names: list[str], services: dict[str, Any] | None = None) -> None:
        """Wait until all named services run and are healthy; a failure shows the last log lines."""
        services = services or self.params["services"]
        deadline = time.monotonic() + self.params["wait_seconds"]
        containers = {services[name]["container"]: name for name in names}
        pending = dict.fromkeys(containers, "")
        while pending and time.monotonic() < deadline:
            for box in self.inspect(list(pending)):
                container, state = box["Name"].lstrip("/"), box["State"]
                health = state.get("Health", {}).get("Status", "none")
                restarts = state["Restarting"] or box["RestartCount"] > MOST_RESTARTS
                if (restarts and not self.params["may_restart"]) or state["Status"] in (
                    "exited",
                    "dead",
                ):
                    raise EngineError(
                        self.last_words(container, f"keeps failing (exit {state['ExitCode']})")
                    )
                wants_health = services[containers[container]]["health"]
                pending[container] = f"{state['Status']}, {health}"
                if state["Status"] == "running" and (health == "healthy" or not wants_health):
                    del pending[container]
            time.sleep(0.5 if pending else 0)
        for container, state in pending.items():
            raise EngineError(
                self.last_words(
                    container, f"is not healthy after {self.params['wait_seconds']} s ({state})"
                )
            )

    def last_words(self, container: str, what: str) -> str:
        rc, out, err = self.module.run_command(
            [self.params["docker"], "logs", "--tail", "25", container]
        )
        words = (out + err).strip() if rc == 0 else ""
        return f"{container} {what}. Its last lines:\n{words}"

    def run(self) -> dict[str, Any]:
        present = self.present_before = self.present()
        actions = plan(self.params["services"], present, self.stored_parts())
        differing, obsolete = self.differing_files(), self.obsolete_files()
        missing = [path for path in self.params["folders"] if not os.path.exists(path)]
        text_differs = read(self.compose_file) != self.params["text"]
        # An interrupted run may have left a stand-in, which would go on working.
        left = os.path.exists(self.stand_in_file)
        changed = bool(actions or differing or obsolete or missing or text_differs or left)
        result = {
            "changed": changed,
            "actions": {name: list(action) for name, action in actions.items()},
            "lines": describe(self.params["project"], self.params["services"], actions),
            "detail": self.detail(differing) if changed else [],
            "told": [],
        }
        if changed and not self.module.check_mode:
            for path in missing:
                make_folder(path, self.params["uid"], self.params["gid"], 0o750)
            if left:
                self.dismiss()
            before = self.snapshot([self.compose_file, self.state_file, *differing, *obsolete])
            self.write_all(differing, obsolete)
            try:
                self.converge(actions, present)
            except EngineError:
                if self.stand_in:
                    self.restore(before)
                raise
            result["told"] = self.told
            parts = {name: service["parts"] for name, service in self.params["services"].items()}
            write(
                self.state_file,
                json.dumps(parts, indent=1),
                0o640,
                self.params["uid"],
                self.params["gid"],
            )
        self.keep_deployed()
        return result

    def keep_deployed(self) -> None:
        """Store the definition of this version, which only a rollback reads."""
        path = os.path.join(self.folder, "deployed.json")
        text = self.params["deployed"]
        if text and not self.module.check_mode and read(path) != text:
            write(path, text, 0o600, self.params["uid"], self.params["gid"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "compose": {"type": "list", "elements": "str", "required": True},
            "docker": {"type": "str", "required": True},
            "text": {"type": "str", "required": True},
            "services": {"type": "dict", "required": True},
            "files": {"type": "dict", "default": {}},
            "secret_files": {"type": "dict", "default": {}, "no_log": True},
            "folders": {"type": "list", "elements": "str", "default": []},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
            "wait_seconds": {"type": "int", "default": 180},
            "may_restart": {"type": "bool", "default": False},
            "stand_in": {"type": "dict", "default": None},
            "deployed": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**Project(module).run())
    except EngineError as error:
        module.fail_json(msg=f"project {module.params['project']}: {error}")


if __name__ == "__main__":
    main()
