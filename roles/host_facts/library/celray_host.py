#!/usr/bin/python
"""Inspect a host, read-only: user, engine, compose, ports, disk, memory, clock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_host
short_description: Gather what a deployment has to know of a host, without changing it
description:
  - Reads the deploying user, the container engine and compose, listening ports with their
    processes, free disk and memory, writability of paths and the clock. Changes nothing.
options:
  ports: {description: TCP ports to look up, type: list, elements: int, default: []}
  paths:
    description: Directories that will be written; the nearest existing parent is examined.
    type: list
    elements: str
    default: []
  kept:
    description: Directories whose owner is the service's, where an earlier deploy has made them.
    type: list
    elements: str
    default: []
  wanted:
    description: The uid and gid that the inventory asks for; -1 where it asks for none.
    type: dict
    default: {}
author: celray
"""

EXAMPLES = r"""
- name: Look at the host
  celray_host:
    ports: [6380]
"""

RETURN = r"""
host: {description: what was found, returned: always, type: dict}
"""

import functools
import grp
import json
import os
import platform
import pwd
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils import celray_engine  # type: ignore[attr-defined]  # our own
from ansible.module_utils.basic import AnsibleModule

# Runs as a program of its own too: under sudo, where the owner of a socket is another user.
SCAN_SOURCE = r"""
import json, os, re, sys

def listeners(wanted):
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = open(table).read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            port = int(cells[1].rsplit(":", 1)[1], 16)
            if cells[3] == "0A" and port in wanted:
                inodes["socket:[%s]" % cells[9]] = port
    found = {port: None for port in inodes.values()}
    for pid in filter(str.isdigit, os.listdir("/proc")) if inodes else ():
        for handle in handles(pid):
            if handle in inodes:
                owner = {"pid": int(pid), "name": first("/proc/%s/comm" % pid).strip()}
                found[inodes[handle]] = dict(owner, container=container(pid))
    return found

def handles(pid):
    folder = "/proc/%s/fd" % pid
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(folder + "/" + name)
        except OSError:
            pass  # closed since; the others still count

def first(path):
    try:
        return open(path).read()
    except OSError:
        return ""

# The id of the container that a process runs in, or "".
def container(pid):
    ids = re.findall("[0-9a-f]{64}", first("/proc/%s/cgroup" % pid))
    # The innermost: the host may be a container itself.
    return ids[-1] if ids else ""
"""


def run(module: AnsibleModule, *argv: str, timeout: int = 20) -> tuple[int, str, str]:
    """Run a command that only reads; a missing program is rc 127, not an exception."""
    timed = ["timeout", str(timeout), *argv] if shutil.which("timeout") else list(argv)
    rc, out, err = module.run_command(timed, check_rc=False)
    return rc, out.strip(), err.strip()


def read_first(path: str, default: str = "") -> str:
    try:
        with open(path) as handle:
            return handle.read().strip()
    except OSError:
        return default


def os_release() -> dict[str, str]:
    pairs = (
        line.split("=", 1) for line in read_first("/etc/os-release").splitlines() if "=" in line
    )
    values = {key: value.strip('"') for key, value in pairs}
    return {
        key: values.get(key.upper(), "")
        for key in ("id", "id_like", "version_id", "version_codename")
    }


def uplink_mtu() -> int:
    for line in read_first("/proc/net/route").splitlines()[1:]:
        cells = line.split()
        if cells[1] == "00000000":
            return int(read_first(f"/sys/class/net/{cells[0]}/mtu", "1500"))
    return 1500


def memory_mb() -> tuple[int, int]:
    rows = dict(line.split(":", 1) for line in read_first("/proc/meminfo").splitlines())
    total, available = (int(rows[key].split()[0]) // 1024 for key in ("MemTotal", "MemAvailable"))
    return total, available


def nearest_parent(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def look_at_path(path: str) -> dict[str, Any]:
    parent = nearest_parent(path)
    stats = os.statvfs(parent)
    return {
        "path": path,
        "parent": parent,
        "is_directory": os.path.isdir(parent),
        "writable": os.access(parent, os.W_OK | os.X_OK),
        "read_only_mount": bool(stats.f_flag & os.ST_RDONLY),
        "free_mb": stats.f_bavail * stats.f_frsize // 2**20,
        "device": os.stat(parent).st_dev,
    }


#: Where a number for the service is looked for on a host that root deploys to.
FIRST_ID = 10001


def name_of(kind: str, number: int) -> str:
    """Whose a number is: a user's or group's name, "" where it is nobody's."""
    try:
        return pwd.getpwuid(number).pw_name if kind == "uid" else grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def subordinate(number: int) -> bool:
    """Return whether a user may use a number for containers of their own."""
    for path in ("/etc/subuid", "/etc/subgid"):
        for line in read_first(path).splitlines():
            _, *cells = line.split(":")
            if [cell.isdigit() for cell in cells] == [True, True]:
                first, count = map(int, cells)
                if first <= number < first + count:
                    return True
    return False


def look_at_identity(kept: list[str], wanted: dict[str, int]) -> dict[str, Any]:
    """Return the user of the containers if the deploying user is root.

    An earlier deploy's number is kept; a first one gets the first that is nobody's.

    Parameters:
        kept: directories of the service; the first that is there and not root's has its owner.
        wanted: `uid` and `gid` of the inventory, -1 for none.
    """
    free = FIRST_ID
    while name_of("uid", free) or name_of("gid", free) or subordinate(free):
        free += 1
    found = {"uid": free, "gid": free}
    for path in kept:
        stats = os.stat(path) if os.path.isdir(path) else None
        if stats is not None and stats.st_uid:
            found = {"uid": stats.st_uid, "gid": stats.st_gid}
            break
    asked = {kind: int(wanted.get(kind, -1)) for kind in found}
    chosen = {kind: asked[kind] if asked[kind] >= 0 else found[kind] for kind in found}
    return {
        "service": found,
        "free_id": free,
        "owners": {kind: name_of(kind, number) for kind, number in chosen.items()},
    }


def has_sudo(module: AnsibleModule) -> bool:
    return os.getuid() == 0 or (
        shutil.which("sudo") is not None and run(module, "sudo", "-n", "true")[0] == 0
    )


def look_at_standalone_compose(module: AnsibleModule, environ: dict[str, str]) -> dict[str, Any]:
    """Every docker-compose that is a program of its own, by generation."""
    found: dict[str, Any] = {}
    for path in celray_engine.programs("docker-compose", environ):
        rc, out, _ = run(module, path, "version", "--short")
        version = out.splitlines()[-1].lstrip("v") if rc == 0 and out else ""
        if version:
            generation = "v1" if version.startswith("1.") else "v2"
            found.setdefault(generation, {"command": [path], "version": version})
    return found


def look_at_plugin(module: AnsibleModule, engine: dict[str, Any]) -> dict[str, Any]:
    """Compose as the client's plugin, for the user whom the deploy's commands run as."""
    if not engine["path"]:
        return {}
    prefix = ["sudo", "-n"] if engine["access"] == "sudo" else []
    rc, out, _ = run(module, *prefix, engine["path"], "compose", "version", "--short")
    if rc != 0 or not out:
        return {}
    version = out.splitlines()[-1].lstrip("v")
    return {"v2": {"command": [engine["path"], "compose"], "version": version}}


def look_at_containers(module: AnsibleModule, engine: dict[str, Any]) -> list[dict[str, str]]:
    """Return every container with its project label (empty for a foreign one), state and id."""
    if engine["access"] not in ("direct", "sudo") or not engine["path"]:
        return []
    prefix = ["sudo", "-n"] if engine["access"] == "sudo" else []
    form = '{{.Names}}\t{{.Label "celray.project"}}\t{{.State}}\t{{.ID}}'
    rc, out, _ = run(module, *prefix, engine["path"], "ps", "-a", "--no-trunc", "--format", form)
    rows = (line.split("\t") for line in out.splitlines() if rc == 0)
    return [
        {"name": name, "project": project, "state": state, "id": identity}
        for name, project, state, identity in rows
    ]


def look_at_ports(module: AnsibleModule, wanted: list[int], sudo: bool) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(SCAN_SOURCE, scope)  # noqa: S102 - our own constant, shared with the sudo call below
    found = scope["listeners"](set(wanted))
    if None in found.values() and sudo and os.getuid():
        call = f"print(json.dumps(listeners(set({sorted(found)}))))"
        rc, out, _ = run(module, "sudo", "-n", sys.executable, "-c", f"{SCAN_SOURCE}\n{call}")
        if rc == 0:
            found = {int(port): owner for port, owner in json.loads(out).items()}
    return {str(port): owner for port, owner in found.items()}


def look(module: AnsibleModule) -> dict[str, Any]:
    me = pwd.getpwuid(os.getuid())
    sudo = has_sudo(module)
    environ = dict(os.environ)
    with ThreadPoolExecutor() as pool:
        # Compose v1 takes half a second to say its version; the engine is asked meanwhile.
        standalone = pool.submit(look_at_standalone_compose, module, environ)
        engine = celray_engine.look(
            functools.partial(run, module), sudo=sudo and os.getuid() != 0, environ=environ
        )
        plugin = look_at_plugin(module, engine)
    total, available = memory_mb()
    docker_root = engine.get("root") or "/var/lib/docker"
    home = os.environ.get("HOME") if os.getuid() == 0 else None
    return {
        "user": me.pw_name,
        "uid": me.pw_uid,
        "gid": me.pw_gid,
        "group": grp.getgrgid(me.pw_gid).gr_name,
        "home": home or me.pw_dir,
        "hostname": platform.node(),
        "sudo": sudo,
        "machine": platform.machine(),
        "os": os_release(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mb": total,
        "memory_available_mb": available,
        # The address of this host that the operator's SSH came in on; local runs have none.
        "address": [*os.environ.get("SSH_CONNECTION", "").split(), "", "", ""][2] or "127.0.0.1",
        "uplink_mtu": uplink_mtu(),
        "epoch": time.time(),
        **look_at_identity(
            [os.path.expanduser(path) for path in module.params["kept"]], module.params["wanted"]
        ),
        "engine": engine,
        # The plugin first: it is the client's own.
        "compose": {**standalone.result(), **plugin},
        "containers": look_at_containers(module, engine),
        "ports": look_at_ports(module, module.params["ports"], sudo),
        "paths": [look_at_path(os.path.expanduser(path)) for path in module.params["paths"]],
        "docker_root": look_at_path(docker_root),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
            "kept": {"type": "list", "elements": "str", "default": []},
            "wanted": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, host=look(module))


if __name__ == "__main__":
    main()
