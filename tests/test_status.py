"""`make status` tells the truth: what is wanted and not there is a row, an exit code and a command.

The real role, on hosts whose engine is a program: each container in turn is removed, stopped or
unhealthy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from parts import Played, play, service_files

WORKERS = ("celery-worker-ml", "celery-worker-data", "celery-worker-default")
WANTED = ("redis-celery", "ray-head", *WORKERS, "celery-beat", "flower")
ENGINE = """#!/bin/sh
case $1 in
  ps) cat {folder}/ps ;;
  exec) echo "asked $5"; echo "$*" >{folder}/asked; exit {code} ;;
  inspect) echo healthy ;;
  *) echo "$*" >>{folder}/did ;;
esac
"""
PLAYBOOK = """
- hosts: all
  gather_facts: false
  roles:
"""


class Host:
    """One host with everything running, until a test changes that."""

    def __init__(self, folder: Path) -> None:
        """All of it, healthy."""
        self.folder = folder
        self.states = dict.fromkeys(WANTED, "running")
        self.status = dict.fromkeys(WANTED, "Up 2 hours (healthy)")
        self.code = 0

    def operate(self, *steps: str, what: str = "", more: tuple[str, ...] = ()) -> Played:
        """Run an operation there, in its steps."""
        engine = self.folder / "docker"
        engine.write_text(ENGINE.format(folder=self.folder, code=self.code))
        engine.chmod(0o755)
        rows = [f"{name}   {self.status[name]}   celray/x:1" for name in self.states]
        (self.folder / "ps").write_text("\n".join(["NAMES   STATUS   IMAGE", *rows]) + "\n")
        boxes = [
            {"name": name, "project": "celray", "state": state, "id": name}
            for name, state in self.states.items()
        ]
        found: dict[str, Any] = {
            "home": str(self.folder),
            "hostname": "server",
            "uid": 1000,
            "gid": 1000,
            "address": "127.0.0.1",
            "engine": {"path": str(engine), "access": "direct"},
            "containers": boxes,
        }
        facts = {"host_facts": found, "ansible_python_interpreter": sys.executable}
        (self.folder / "facts.json").write_text(json.dumps({**facts, "what": what}))
        playbook = self.folder / "play.yml"
        roles = [f"    - {{role: operate, operate_do: {step}}}\n" for step in steps]
        playbook.write_text(PLAYBOOK + "".join(roles))
        facts_and_services = [f"@{self.folder}/facts.json", *service_files()]
        given = [word for file in facts_and_services for word in ("-e", file)]
        return play(str(playbook), "-i", "inventory/single", *more, *given, HOST="")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A whole one."""
    return Host(tmp_path)


@pytest.mark.slow
def test_a_whole_deployment_is_status_zero(host: Host) -> None:
    played = host.operate("status")
    assert played.code == 0, played.output
    assert "asked celery-worker-default" in played.output
    assert "NOT THERE" not in played.output


@pytest.mark.slow
@pytest.mark.parametrize("name", [WANTED[0], *WANTED[-3:]])
def test_what_was_removed_by_hand_is_a_row_and_a_failure(name: str, host: Host) -> None:
    del host.states[name]
    played = host.operate("status")
    assert played.code != 0
    assert f"{name}   NOT THERE" in played.output
    assert f"not there: {name}; make deploy brings it back" in " ".join(played.output.split())
    assert "asked celery-worker-" in played.output, "the others were asked all the same"


@pytest.mark.slow
def test_what_stopped_and_what_is_unwell_are_failures_too(host: Host) -> None:
    host.states["celery-worker-default"] = "exited"
    host.status["celery-worker-default"] = "Exited (137) 3 minutes ago"
    host.status["redis-celery"] = "Up 1 hour (unhealthy)"
    played = host.operate("status")
    assert played.code != 0
    said = " ".join(played.output.split())
    assert "not running: celery-worker-default; unhealthy: redis-celery; make deploy" in said
    assert "asked celery-worker-data" in played.output


@pytest.mark.slow
def test_the_service_is_asked_for_the_ray_nodes_of_the_inventory(host: Host) -> None:
    nodes = host.folder / "nodes.yml"
    nodes.write_text("all: {children: {ray_worker: {hosts: {ray-2: {}, ray-3: {}}}}}\n")
    played = host.operate("status", more=("-i", str(nodes), "--limit", "server"))
    assert played.code == 0, played.output
    asked = (host.folder / "asked").read_text()
    assert asked.endswith(" tasks.ops status --ray-node=ray-2 --ray-node=ray-3\n")


def test_without_any_worker_the_rest_is_told(host: Host) -> None:
    for name in WORKERS:
        del host.states[name]
    played = host.operate("status")
    assert played.code != 0
    assert all(f"{name}   NOT THERE" in played.output for name in WORKERS)
    assert "asked" not in played.output


@pytest.mark.slow
def test_an_answer_that_something_is_wrong_is_a_failure(host: Host) -> None:
    host.code = 1
    played = host.operate("status")
    assert played.code != 0
    assert "asked celery-worker-default" in played.output


@pytest.mark.slow
@pytest.mark.parametrize("what", ["flower", "worker-ml"])
def test_restarting_what_is_gone_names_the_command_that_repairs_it(what: str, host: Host) -> None:
    name = {"flower": "flower", "worker-ml": "celery-worker-ml"}[what]
    del host.states[name]
    played = host.operate("known", "restart", what=what)
    said = " ".join(played.output.split())
    assert played.code != 0
    assert f"WHAT={what}: {name} belongs to this deployment but is missing on" in said
    assert "make deploy brings it back" in said
    assert not (host.folder / "did").exists()


@pytest.mark.slow
def test_restarting_what_is_there_restarts_it(host: Host) -> None:
    played = host.operate("known", "restart", what="flower")
    assert played.code == 0, played.output
    assert "restart flower" in (host.folder / "did").read_text()
