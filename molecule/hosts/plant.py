#!/usr/bin/env python3
"""Plant known secrets: what an operator keeps in a vault, made anew for one run.

    plant.py DIR

Writes DIR/canaries.json (in clear, for the promises that look for them),
DIR/vault-password and DIR/operator, an inventory whose group_vars hold the same
secrets encrypted. Only the standard library and ansible-vault are used.
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
#: Name and length of what is overridden; celray_secrets, roles/celray/defaults/main/secrets.yml.
PLANTED = {
    "redis_password": 32,
    "redis_operator_password": 32,
    "flower_password": 32,
    "ray_auth_token": 64,
}
#: A notification channel, whose address holds a token of this length.
CHANNEL_TOKEN = 32


def write(path: Path, text: str) -> Path:
    """Write a file that nobody else can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def encrypt(content: str, password: Path, target: Path) -> None:
    """Encrypt text with ansible-vault, through standard input: no clear text on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["ansible-vault", "encrypt", "--output", str(target), "-"]
    environment = {**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
    subprocess.run(
        command, input=content, env=environment, text=True, check=True, capture_output=True
    )


def invent(length: int) -> str:
    """A secret without characters that anything would quote or escape."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def plant(state: Path) -> None:
    """Make and store the secrets of one run; what an earlier one has left is gone."""
    shutil.rmtree(state / "operator", ignore_errors=True)
    # Emptied, not removed: this very run writes to it.
    for log in state.glob("*.log"):
        log.write_text("")
    chosen = {name: invent(length) for name, length in PLANTED.items()}
    token = invent(CHANNEL_TOKEN)
    write(state / "canaries.json", json.dumps({**chosen, "channel_token": token}))
    password = write(state / "vault-password", secrets.token_urlsafe(24) + "\n")
    write(state / "operator" / "hosts.yml", "all: {}\n")
    vault = state / "operator" / "group_vars" / "all" / "vault.yml"
    channels = {"ops": f"json://127.0.0.1:9/{token}"}
    content = {"celray_secrets": chosen, "celray_notify_channels": channels}
    encrypt(json.dumps(content), password, vault)


if __name__ == "__main__":
    plant(Path(sys.argv[1]))
