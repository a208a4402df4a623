"""Render compose projects as a deployment does: with its playbook, roles, lookups and module.

Only the engine is not real: it is a program that lists no container and reports healthy ones.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from parts import REPO, play, service_files

ENGINE = """#!/bin/sh
case $1 in
  ps) ;;
  inspect) shift; separator='['
    for name in "$@"; do
      printf '%s{"Name": "/%s", "RestartCount": 0, "State": {"Status": "running", "ExitCode": 0,' \
        "$separator" "$name"
      printf '"Restarting": false, "Health": {"Status": "healthy"}}}'; separator=,
    done
    echo ']' ;;
esac
"""
SECRETS = (
    "redis_password",
    "redis_operator_password",
    "redis_celray_password",
    "redis_admin_password",
    "redis_door_password",
    "flower_password",
)
INVENTORIES = sorted(path.parent.name for path in REPO.glob("inventory/*/hosts.yml"))


@dataclass(frozen=True)
class Rendered:
    """The files that a deployment wrote below celray_home."""

    home: Path
    secret: dict[str, str]
    settings: dict[str, Any]

    @property
    def projects(self) -> list[Path]:
        """Return the directories of all hosts' compose projects that have a service."""
        found = sorted(self.home.glob("*/projects/*"))
        return [path for path in found if "services: {}" not in (path / "compose.yml").read_text()]

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """Return every service of every project, by container name."""
        found = (yaml.safe_load((path / "compose.yml").read_text()) for path in self.projects)
        return {
            service["container_name"]: service
            for project in found
            for service in project["services"].values()
        }


def facts(home: Path, address: str) -> dict[str, Any]:
    """Return the facts that earlier plays of a deployment would have set."""
    engine = home / "docker"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    names = ("base", "redis", "ray", "worker", "worker_deps")
    secret = {name: f"canary-{name}-0123456789" for name in SECRETS}
    secret |= {"ray_auth_token": "canary-ray" + 54 * "0", "digest_key": "canary-digest-key"}
    secret["ray_tls_key"] = "canary-tls" + 54 * "0"
    host = {
        "home": str(home),
        "uid": 1000,
        "gid": 1000,
        "address": address,
        "cpus": 8,
        "memory_mb": 16000,
        "engine": {"path": str(engine), "access": "direct"},
        "compose": {"v2": {"command": ["true"], "version": "2.26.1"}},
    }
    return {
        "host_facts": host,
        "images_found": {
            "images": {name: f"celray/{name}:1" for name in names},
            "code_version": "0123456789ab",
        },
        "secrets_store": {"secret": secret},
        "celray_home": f"{home}/{{{{ inventory_hostname }}}}",
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
    }


def render(home: Path, inventory: str, address: str, settings: dict[str, Any]) -> Rendered:
    """Render every project of an inventory into a directory."""
    variables = facts(home, address) | settings
    (home / "facts.json").write_text(json.dumps(variables))
    played = play(
        "playbooks/services.yml",
        *("-i", f"inventory/{inventory}", "-e", f"@{home}/facts.json"),
        *(argument for file in service_files() for argument in ("-e", file)),
        HOST="" if address == "127.0.0.1" else address,
    )
    assert played.code == 0, played.output
    return Rendered(home, variables["secrets_store"]["secret"], settings)
