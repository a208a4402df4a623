"""site.yml with an operator's mistakes: every one named, a failure, no stack trace, no change."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from parts import play


@pytest.mark.slow
def test_mistakes_are_named_all_at_once_and_nothing_changes(tmp_path: Path) -> None:
    readme = tmp_path / "a-file"
    readme.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {
            "celery_workers": [
                {"name": "ml", "queue": ["ml"], "concurrency": 2, "memory": "1g"},
                {"name": "data", "queues": ["data"], "concurrency": 0, "memory": "1g"},
                {"nam": "x"},
            ],
            # A name of its own: a service that runs here already owns the usual ones.
            "host_facts_port_variables": ["celray_port_nobodys"],
            "celray_port_nobodys": port,
            "celray_home": str(readme / "celray"),
            "celray_projects_dri": "/srv",
            "celray_task_settings": {"result_expire_seconds": 60},
            "celray_redis_url": "redis://10.0.0.1:6379",
        }
        mistakes = tmp_path / "mistakes.json"
        mistakes.write_text(json.dumps(variables))
        played = play("site.yml", "-e", f"@{mistakes}", "--check")
    played.require_failure(
        "worker ml has an unknown key 'queue' (did you mean queues?)",
        "worker data: concurrency is 0",
        "worker number 3 lacks 'name'",
        f"port {port} is taken by",
        f"(pid {os.getpid()})",
        f"{readme} is not a directory",
        "the tasks have no setting 'result_expire_seconds'",
        "variable celray_projects_dri does not exist (did you mean celray_projects_dir?)",
        "variable celray_redis_url is computed from others and cannot be set",
        "nothing has been changed",
    )
    assert "changed=0" in played.output
    assert sorted(tmp_path.iterdir()) == [readme, mistakes]


@pytest.mark.slow
def test_a_host_that_does_not_answer_is_one_readable_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    played = play("site.yml", "-e", f"ansible_port={port}", "--check", HOST="127.0.0.1")
    played.require_failure(
        "127.0.0.1 cannot be reached", "HOST / ansible_host", "Connection refused"
    )


def test_an_inventory_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    """A deploy to no host looked like one that went well."""
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("all:\n  hosts:\n\tserver:\n")
    played = play("site.yml", "-i", str(hosts), "--check")
    played.require_failure("Tabs are usually invalid in YAML", "No inventory was parsed")


@pytest.mark.slow
def test_a_host_without_a_service_is_named(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("idle-host ansible_connection=local celray_docker=/opt/docker\n")
    played = play("playbooks/preflight.yml", "-i", str(hosts))
    assert played.code != 0
    assert "host idle-host has no service" in played.output
    assert "put it into one of redis, ray_head" in played.output
    assert "variable celray_docker is computed from others" in played.output
    assert "preflight found 2 problems" in played.output


def test_a_host_that_does_not_answer_keeps_no_other_from_being_judged(tmp_path: Path) -> None:
    """One run names the mistakes of both, and changes neither."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    away = f"ansible_connection=ssh ansible_host=127.0.0.1 ansible_port={port}"
    hosts = tmp_path / "hosts"
    hosts.write_text(
        f"[redis]\naway {away}\nhere ansible_connection=local celray_port_redis=70000\n"
    )
    played = play("site.yml", "-i", str(hosts), "--check")
    played.require_failure(
        "127.0.0.1 cannot be reached",
        "away could not be looked at, and runs redis for all others",
        "celray_port_redis is 70000, not a port",
    )
    assert played.output.count("changed=0") == 2
    assert "Lock" not in played.output
