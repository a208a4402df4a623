#!/usr/bin/python
"""Look at a host, read-only: user, engine, compose, containers, memory, address, clock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_host
short_description: Look at a host, whatever is to be deployed there
description:
  - Reads the deploying user, the container engine, compose and containers, memory, NVIDIA's driver,
    the engine's disk, the address and the clock. Depends on no setting of a deployment. Changes
    nothing.
author: celray
"""

EXAMPLES = r"""
- name: Look at the host
  celray_host:
"""

RETURN = r"""
host: {description: what was found, returned: always, type: dict}
"""

import functools
import grp
import os
import platform
import pwd
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils import celray_engine, celray_look  # type: ignore[attr-defined]  # our own
from ansible.module_utils.basic import AnsibleModule


def os_release() -> dict[str, str]:
    pairs = (
        line.split("=", 1)
        for line in celray_look.read_first("/etc/os-release").splitlines()
        if "=" in line
    )
    values = {key: value.strip('"') for key, value in pairs}
    return {
        key: values.get(key.upper(), "")
        for key in ("id", "id_like", "version_id", "version_codename")
    }


def uplink_mtu() -> int:
    for line in celray_look.read_first("/proc/net/route").splitlines()[1:]:
        cells = line.split()
        if cells[1] == "00000000":
            return int(celray_look.read_first(f"/sys/class/net/{cells[0]}/mtu", "1500"))
    return 1500


def memory_mb() -> tuple[int, int]:
    rows = dict(line.split(":", 1) for line in celray_look.read_first("/proc/meminfo").splitlines())
    total, available = (int(rows[key].split()[0]) // 1024 for key in ("MemTotal", "MemAvailable"))
    return total, available


def has_sudo(module: AnsibleModule) -> bool:
    return os.getuid() == 0 or (
        shutil.which("sudo") is not None and celray_look.run(module, "sudo", "-n", "true")[0] == 0
    )


def look_at_standalone_compose(module: AnsibleModule, environ: dict[str, str]) -> dict[str, Any]:
    """Every docker-compose that is a program of its own, by generation."""
    found: dict[str, Any] = {}
    for path in celray_engine.programs("docker-compose", environ):
        rc, out, _ = celray_look.run(module, path, "version", "--short")
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
    rc, out, _ = celray_look.run(module, *prefix, engine["path"], "compose", "version", "--short")
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
    rc, out, _ = celray_look.run(
        module, *prefix, engine["path"], "ps", "-a", "--no-trunc", "--format", form
    )
    rows = (line.split("\t") for line in out.splitlines() if rc == 0)
    return [
        {"name": name, "project": project, "state": state, "id": identity}
        for name, project, state, identity in rows
    ]


def look_at_gpus(environ: dict[str, str]) -> dict[str, Any]:
    """Return NVIDIA's driver, how many GPUs it has, and what gives them to containers."""
    gpus = "/proc/driver/nvidia/gpus"
    return {
        "driver": celray_look.read_first("/proc/driver/nvidia/version").partition("\n")[0],
        "gpus": len(os.listdir(gpus)) if os.path.isdir(gpus) else 0,
        "toolkit": "".join(celray_engine.programs("nvidia-container-runtime-hook", environ)[:1]),
    }


def look(module: AnsibleModule) -> dict[str, Any]:
    me = pwd.getpwuid(os.getuid())
    sudo = has_sudo(module)
    environ = dict(os.environ)
    with ThreadPoolExecutor() as pool:
        # Compose v1 takes half a second to say its version; the engine is asked meanwhile.
        standalone = pool.submit(look_at_standalone_compose, module, environ)
        engine = celray_engine.look(
            functools.partial(celray_look.run, module),
            sudo=sudo and os.getuid() != 0,
            environ=environ,
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
        "engine": engine,
        # The plugin first: it is the client's own.
        "compose": {**standalone.result(), **plugin},
        "containers": look_at_containers(module, engine),
        "nvidia": look_at_gpus(environ),
        "docker_root": celray_look.look_at_path(docker_root),
    }


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, host=look(module))


if __name__ == "__main__":
    main()
