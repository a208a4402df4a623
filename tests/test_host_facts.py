"""host_facts looks and judges nothing; preflight judges, from what host_facts has found.

The kind of fault: paths and ports were computed before the host had been seen, for a host that was
invented for that; and every operation that only looks ran what judges.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from celray.preflight import engine
from parts import load, play, run_module, service_files

MODULE = "roles/host_facts/library/celray_host.py"
celray_host: Any = load(MODULE)
ELSEWHERE = "tcp://192.0.2.7:2375"
PLAYBOOK = """
- hosts: all
  gather_facts: false
  roles:
    - {role}
  tasks:
    - ansible.builtin.copy:
        content: "{{{{ [host_facts, host_facts_resources] | to_json }}}}"
        dest: {folder}/found.json
        mode: "0600"
"""


def book(folder: Path, role: str) -> str:
    """A playbook that runs one role and writes down the facts."""
    file = folder / f"{role}.yml"
    file.write_text(PLAYBOOK.format(role=role, folder=folder))
    return str(file)


def given(folder: Path, **variables: Any) -> list[str]:
    """The arguments that give variables to a play on this machine."""
    file = folder / "variables.json"
    further = {
        "host_facts_resources_wanted": True,
        "host_facts_port_variables": ["celray_port_redis"],
    }
    file.write_text(json.dumps(further | variables))
    return ["-i", "inventory/single", "-e", f"@{file}"]


def test_an_unusable_host_is_looked_at_all_the_same(tmp_path: Path) -> None:
    """Its engine is another machine's, a port is taken, a file is in the way: three facts."""
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = {"celray_port_redis": port, "celray_home": str(tmp_path / "file/celray")}
        arguments = given(tmp_path, **wrong)
        environment = {"DOCKER_HOST": ELSEWHERE, "HOST": ""}
        looked = play(book(tmp_path, "host_facts"), *arguments, **environment)
        judged = play("playbooks/preflight.yml", *arguments, **environment)
    assert looked.code == 0, looked.output
    host, resources = json.loads((tmp_path / "found.json").read_text())
    assert host["engine"]["endpoint"][0] == ELSEWHERE
    assert list(resources["ports"]) == [str(port)]
    assert resources["paths"][0]["path"] == str(tmp_path / "file/celray")
    assert not resources["paths"][0]["is_directory"]
    judged.require_failure(
        f"goes to {ELSEWHERE}", f"port {port} is taken by", f"{tmp_path}/file is not a directory"
    )


def test_a_host_without_an_engine_is_looked_at_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SOCKET", "SYSTEMD", "PACKAGE_LISTS"):
        monkeypatch.setattr(celray_host.celray_engine, name, str(tmp_path / name))
    monkeypatch.setattr(celray_host.celray_engine, "PROGRAM_DIRS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    looked = run_module(MODULE, {})
    assert not looked.get("failed")
    assert looked["host"]["engine"]["access"] == "absent"
    assert (looked["host"]["compose"], looked["host"]["containers"]) == ({}, [])
    (problem,) = engine.check({**looked["host"], "sudo": False}, "auto")
    assert "the container engine is not installed" in problem.what


def test_preflight_judges_from_the_facts_alone(tmp_path: Path) -> None:
    """The host of these facts does not answer, and is not asked."""
    place = {
        "path": "/home/op/celray",
        "parent": "/home/op",
        "free_mb": 90_000,
        "is_directory": True,
        "writable": False,
        "read_only_mount": False,
    }
    facts = {
        "user": "op",
        "uid": 1000,
        "gid": 1000,
        "home": "/home/op",
        "hostname": "gpu-7",
        "address": "192.0.2.1",
        "sudo": True,
        "machine": "x86_64",
        "memory_mb": 1024,
        "skew_seconds": 95.0,
        "os": {"id": "debian", "id_like": "", "version_id": "12"},
        "engine": {
            "path": "/usr/bin/docker",
            "clients": [],
            "kind": "docker",
            "name": "gpu-7",
            "endpoint": [],
            "rootless": False,
            "snap": False,
            "units": {},
            "access": "denied",
            "error": "permission denied",
        },
        "compose": {},
        "containers": [],
        "docker_root": {**place, "path": "/var/lib/docker"},
    }
    resources = {
        "ports": {"6380": {"pid": 42, "name": "nginx", "container": ""}},
        "paths": [place],
        "service": {"uid": 10001, "gid": 10001},
        "free_id": 10001,
        "owners": {"uid": "op", "gid": "op"},
    }
    arguments = given(
        tmp_path,
        host_facts=facts,
        host_facts_resources=resources,
        host_facts_path_variables=["celray_home"],
        ansible_connection="ssh",
        ansible_port=1,
    )
    services = [word for file in service_files() for word in ("-e", file)]
    played = play(book(tmp_path, "preflight"), *arguments, *services, HOST="192.0.2.1")
    played.require_failure(
        "op@gpu-7 may not talk to the container engine: permission denied",
        "port 6380 is taken by nginx (pid 42)",
        "/home/op/celray cannot be created: op may not write /home/op",
        "gpu-7 has 1024 MB of memory",
        "the clock of gpu-7 is +95 s off",
        "preflight found 5 problems",
    )


@pytest.mark.parametrize("playbook", ["status", "history", "engine"])
def test_what_only_looks_is_never_done_on_another_machine(playbook: str) -> None:
    played = play(
        f"playbooks/{playbook}.yml", "-i", "inventory/single", DOCKER_HOST=ELSEWHERE, HOST=""
    )
    played.require_failure(f"goes to {ELSEWHERE}", "DOCKER_HOST in the environment")
    assert "changed=0" in played.output
