#!/usr/bin/python
"""Remove celray from a host: its containers, its images, the named directories."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_destroy
short_description: Remove containers, images and directories of a deployment
description:
  - Removes only what has the project's label or name. Queued tasks are in the Redis directory, and
    stay unless that directory is named.
options:
  docker:
    description: The engine's client; empty on a host without an engine.
    type: str
    default: docker
  folders: {description: Directories to remove, type: list, elements: path, required: true}
  parents:
    description:
      - Directories to remove afterwards if they are empty. A clone of this repository in the
        operator's home may also be ~/celray, and must survive.
    type: list
    elements: path
    default: []
author: celray
"""

EXAMPLES = r"""
- name: Remove everything but the data
  celray_destroy:
    folders: [~/celray/projects]
"""

RETURN = r"""
lines: {description: what was removed, one item a line, returned: always, type: list}
"""

import contextlib
import os
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def docker(module: AnsibleModule, *argv: str) -> list[str]:
    """Return the lines of a docker command; without an engine there is nothing to remove."""
    client = module.params["docker"]
    if not client or not shutil.which(client):
        return []
    rc, out, err = module.run_command([client, *argv])
    if rc:
        module.fail_json(msg=f"docker {argv[0]}: {err.strip()}")
    return [line for line in out.splitlines() if line]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "docker": {"type": "str", "default": "docker"},
            "folders": {"type": "list", "elements": "path", "required": True},
            "parents": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    boxes = docker(
        module, "ps", "-a", "--filter", "label=celray.project=celray", "--format", "{{.Names}}"
    )
    images = [
        line
        for line in docker(module, "images", "--format", "{{.Repository}}:{{.Tag}}")
        if line.startswith("celray/")
    ]
    folders: list[Any] = [path for path in module.params["folders"] if os.path.isdir(path)]
    if not module.check_mode:
        if boxes:
            docker(module, "stop", *boxes)
            docker(module, "rm", *boxes)
        if images:
            docker(module, "rmi", "--force", *images)
            docker(module, "image", "prune", "--force", "--filter", "label=celray.stage=build")
        for path in folders:
            shutil.rmtree(path, ignore_errors=not os.path.exists(path))
        for path in module.params["parents"]:
            with contextlib.suppress(OSError):
                os.rmdir(path)
    lines = [
        f"removed {kind}: {', '.join(names) or 'none'}"
        for kind, names in (("containers", boxes), ("images", images), ("directories", folders))
    ]
    module.exit_json(changed=bool(boxes or images or folders), lines=lines)


if __name__ == "__main__":
    main()
