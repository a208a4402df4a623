#!/usr/bin/python
"""Store the deployment's secrets on its host: read them, create missing ones, never change one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_secrets
short_description: Read a host's secrets, generate what is missing
description:
  - Reads the host's file first, so that every operator gets the same secrets. An override (from
    vault) replaces the stored value. Call it with no_log.
options:
  path: {description: JSON file on the host, type: path, required: true}
  wanted:
    description: Name and number of characters of each secret.
    type: dict
    required: true
  overrides: {description: Values to keep instead of generated ones, type: raw, default: {}}
  channels:
    description: >-
      Notification channels, from name to address, which holds a secret. If none are given, the
      stored ones stay.
    type: raw
author: celray
"""

EXAMPLES = r"""
- name: Read or make the secrets
  celray_secrets:
    path: ~/celray/secrets/secrets.json
    wanted: {redis_password: 32}
  no_log: true
"""

RETURN = r"""
secret: {description: every wanted secret; the channels as JSON, returned: always, type: dict}
made: {description: names of the secrets that were generated now, returned: always, type: list}
"""

import json
import os
import secrets
import string
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ALPHABET = string.ascii_letters + string.digits
SHORTEST = 8


class SecretError(Exception):
    """An unusable override or stored file; the message never holds a value."""


def check_overrides(overrides: Any, wanted: dict[str, int]) -> None:
    # Not left to Ansible, whose message would repeat what was given.
    if not isinstance(overrides, dict):
        raise SecretError("celray_secrets (your vault or inventory) must map names to values")
    for name, value in overrides.items():
        if name not in wanted:
            raise SecretError(
                f"celray_secrets names {name!r}, which is none of {', '.join(sorted(wanted))}"
            )
        if (
            not isinstance(value, str)
            or len(value) < SHORTEST
            or not value.isprintable()
            or " " in value
        ):
            raise SecretError(
                f"celray_secrets.{name} (your vault or inventory) must be a string of at least "
                f"{SHORTEST} printable characters without blanks"
            )


def check_channels(channels: Any) -> None:
    """None, or channel names with their addresses."""
    if channels is not None and not (
        isinstance(channels, dict) and all(isinstance(v, str) for v in channels.values())
    ):
        raise SecretError(
            "celray_notify_channels (your vault or inventory) must map names to addresses"
        )


def read(path: str) -> dict[str, str]:
    try:
        with open(path) as handle:
            stored = json.load(handle)
        if not isinstance(stored, dict) or not all(isinstance(v, str) for v in stored.values()):
            raise ValueError("not a mapping of names to texts")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SecretError(
            f"{path} on the host cannot be read ({type(error).__name__}): restore it, or move it "
            "away to generate new secrets (every client then needs the new ones)"
        ) from error
    return stored


def merge(
    stored: dict[str, str], wanted: dict[str, int], overrides: dict[str, str]
) -> dict[str, str]:
    """Return the merge: stored values stay, also unknown ones, overrides win, the rest is new."""
    made = {
        name: "".join(secrets.choice(ALPHABET) for _ in range(length))
        for name, length in wanted.items()
        if name not in stored
    }
    return {**stored, **made, **overrides}


def write(path: str, values: dict[str, str]) -> None:
    """Write atomically, and never readable by others, not even for a moment."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w") as stream:
        json.dump(values, stream, indent=2, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "wanted": {"type": "dict", "required": True},
            # Not no_log: Ansible would then put a placeholder in place of these values in the
            # result too, and the placeholder would be deployed. The task's no_log hides the result,
            # and this module logs nothing on the host.
            "overrides": {"type": "raw", "default": {}, "no_log": False},
            "channels": {"type": "raw", "default": None, "no_log": False},
        },
        supports_check_mode=True,
        no_log=True,
    )
    path, wanted, overrides = (module.params[key] for key in ("path", "wanted", "overrides"))
    channels = module.params["channels"]
    try:
        check_overrides(overrides, wanted)
        check_channels(channels)
        stored = read(path)
    except SecretError as error:
        module.fail_json(msg=str(error))
    values = merge(stored, {name: int(length) for name, length in wanted.items()}, overrides)
    if channels is not None:
        values["notify_channels"] = json.dumps(channels, sort_keys=True)
    changed = values != stored
    if changed and not module.check_mode:
        write(path, values)
    module.exit_json(changed=changed, secret=values, made=sorted(set(wanted) - set(stored)))


if __name__ == "__main__":
    main()
