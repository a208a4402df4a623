#!/usr/bin/python
"""Look at what a deployment uses of a host, read-only: ports, directories, a user's number."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_resources
short_description: Look at the ports, directories and numbers that a deployment uses of a host
description:
  - Reads which ports are taken and by which process, whether directories can be written and how
    much space they have, and whose a uid and a gid are. Changes nothing.
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
    description: The uid and gid that the inventory asks for; none where it leaves them to the host.
    type: dict
    default: {}
  sudo:
    description: Whether the deploying user may use sudo, which sees whose every port is.
    type: bool
    default: false
author: celray
"""

EXAMPLES = r"""
- name: Look at a port
  celray_resources:
    ports: [6380]
"""

RETURN = r"""
ports: {description: Process and container by taken port, returned: always, type: dict}
paths: {description: What was found of each path, in their order, returned: always, type: list}
service: {description: The containers' uid and gid where root deploys, returned: always, type: dict}
free_id: {description: A uid and gid that is nobody's, returned: always, type: int}
owners: {description: Whose the uid and gid of the containers are, returned: always, type: dict}
"""

import grp
import json
import os
import pwd
import re
import sys
from typing import Any

from ansible.module_utils import celray_look  # type: ignore[attr-defined]  # our own
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
        for line in celray_look.read_first(path).splitlines():
            _, *cells = line.split(":")
            if [cell.isdigit() for cell in cells] == [True, True]:
                first, count = map(int, cells)
                if first <= number < first + count:
                    return True
    return False


def is_number(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\d{1,9}", str(value)) is not None


def look_at_identity(kept: list[str], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the user of the containers if the deploying user is root.

    An earlier deploy's number is kept; a first one gets the first that is nobody's.

    Parameters:
        kept: directories of the service; the first that is there and not root's has its owner.
        wanted: `uid` and `gid` of the inventory; what is no number is for preflight to name.
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
    asked = {kind: int(value) for kind, value in wanted.items() if is_number(value)}
    chosen = found | asked
    return {
        "service": found,
        "free_id": free,
        "owners": {kind: name_of(kind, number) for kind, number in chosen.items()},
    }


def look_at_ports(module: AnsibleModule, wanted: list[int], sudo: bool) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(SCAN_SOURCE, scope)  # noqa: S102 - our own constant, shared with the sudo call below
    found = scope["listeners"](set(wanted))
    if None in found.values() and sudo and os.getuid():
        call = f"print(json.dumps(listeners(set({sorted(found)}))))"
        rc, out, _ = celray_look.run(
            module, "sudo", "-n", sys.executable, "-c", f"{SCAN_SOURCE}\n{call}"
        )
        if rc == 0:
            found = {int(port): owner for port, owner in json.loads(out).items()}
    return {str(port): owner for port, owner in found.items()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
            "kept": {"type": "list", "elements": "str", "default": []},
            "wanted": {"type": "dict", "default": {}},
            "sudo": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    paths, kept = ([*map(os.path.expanduser, module.params[name])] for name in ("paths", "kept"))
    module.exit_json(
        changed=False,
        ports=look_at_ports(module, module.params["ports"], module.params["sudo"]),
        paths=[celray_look.look_at_path(path) for path in paths],
        **look_at_identity(kept, module.params["wanted"]),
    )


if __name__ == "__main__":
    main()
