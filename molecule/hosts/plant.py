#!/usr/bin/env python3
"""Make known secrets for one run, as an operator would keep them in a vault.

    plant.py DIR OPERATOR

Writes DIR/canaries.json (in clear text, for the promises that search for them),
DIR/vault-password and DIR/operator, an inventory whose group_vars hold the same
secrets encrypted, beside the files of OPERATOR if there is such a directory.
Uses only the standard library and ansible-vault.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import string
import subprocess
import sys
from pathlib import Path

ALPHABET = string.ascii_letters + string.digits
#: Names and lengths of the overridden secrets (celray_secrets in roles/celray/defaults/main).
PLANTED = {
    "redis_password": 32,
    "redis_operator_password": 32,
    "flower_password": 32,
    "ray_auth_token": 64,
}
#: The length of the token in the address of a notification channel.
CHANNEL_TOKEN_CHARS = 32


def write(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def encrypt(content: str, password: Path, target: Path) -> None:
    """Return text encrypted by ansible-vault; passed by standard input, never written to disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["ansible-vault", "encrypt", "--output", str(target), "-"]
    environment = {**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
    subprocess.run(
        command, input=content, env=environment, text=True, check=True, capture_output=True
    )


def invent(length: int) -> str:
    """Return a secret of letters and digits, which need no quotes or escapes."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def plant(state: Path, operator: Path) -> None:
    """Make and store the secrets of one run; remove those of an earlier one.

    Parameters:
        operator: host_vars and group_vars that the scenario's operator has written.
    """
    shutil.rmtree(state / "operator", ignore_errors=True)
    if operator.is_dir():
        shutil.copytree(operator, state / "operator")
    # The log is emptied, not removed: this run already writes to it.
    for log in state.glob("*.log"):
        log.write_text("")
    chosen = {name: invent(length) for name, length in PLANTED.items()}
    token = invent(CHANNEL_TOKEN_CHARS)
    write(state / "canaries.json", json.dumps({**chosen, "channel_token": token}))
    password = write(state / "vault-password", secrets.token_urlsafe(24) + "\n")
    write(state / "operator" / "hosts.yml", "all: {}\n")
    vault = state / "operator" / "group_vars" / "all" / "vault.yml"
    channels = {"ops": f"json://127.0.0.1:9/{token}"}
    content = {"celray_secrets": chosen, "celray_notify_channels": channels}
    encrypt(json.dumps(content), password, vault)


if __name__ == "__main__":
    plant(*map(Path, sys.argv[1:]))
