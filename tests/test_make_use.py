"""Wrong use of make stops with one line before anything is looked at; examples harm nobody."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from parts import REPO

OPERATIONS = ("deploy", "update", "check", "diff", "status", "verify", "credentials", "destroy")
#: Where an address is nobody's: RFC 5737 and RFC 3849.
DOCUMENTATION = [
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Say what a target would run, and run nothing."""
    kept = {k: v for k, v in os.environ.items() if k not in ("HOST", "ENV", "SSH_USER")}
    return subprocess.run(
        ["make", "--dry-run", *words],
        cwd=REPO,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_of_a_script_is_never_every_inventory(operation: str, empty: str) -> None:
    """`make diff ENV=` took all inventories together."""
    for refused in (make(operation, f"ENV={empty}"), make(operation, ENV=empty)):
        assert refused.returncode != 0
        assert "ENV= is empty" in refused.stderr
        assert "single" in refused.stderr
    refused = make(operation, f"HOST={empty}")
    assert refused.returncode != 0
    assert "HOST= is empty" in refused.stderr or 'HOST=" "' in refused.stderr


@pytest.mark.parametrize("address", ["192.0.2.7", "gpu-7.example", "fd00::5", "2001:db8::1", "::1"])
def test_an_address_of_either_kind_is_one_host(address: str) -> None:
    assert make("diff", f"HOST={address}").returncode == 0


INVENTORIES = sorted(REPO.glob("inventory/*/hosts.yml"))


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.parent.name)
def test_an_example_names_no_address_of_anybody(inventory: Path) -> None:
    hosts = yaml.safe_load(inventory.read_text())["all"]["hosts"]
    for name, host in hosts.items():
        address = str(host.get("ansible_host", ""))
        if "{{" in address:
            continue  # what the operator names, or this machine
        assert any(ipaddress.ip_address(address) in net for net in DOCUMENTATION), name
