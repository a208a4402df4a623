"""What the modules that look at a host share."""

from __future__ import annotations

import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule


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


def nearest_parent(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
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
