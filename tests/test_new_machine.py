"""The README's first command, for real, on a machine that has nothing, and all that follows it.

The machine that runs the tests is never new. These are: they have git, make, Python with venv, and
the network's certificates. Each takes minutes, so `make test` runs the first; NEW_MACHINES=all runs
both. The tests run in their order: a deployment's life from its first deploy to its end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator

import pytest
from new_machine import Machine, new_machine

#: Distribution, user, and whether a newer client than its engine's lies in /usr/local/bin. Between
#: them: both Debians, both generations of compose, root and sudo, with and without a client.
MACHINES = {
    "Debian 13, sudo, a stray client": ("debian13", "operator", True),
    "Debian 12, root, no client": ("debian12", "root", False),
}
WANTED = os.environ.get("NEW_MACHINES", "")
CHOSEN = list(MACHINES) if WANTED == "all" else list(MACHINES)[:1]

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=CHOSEN)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A new machine with a clone in the user's home."""
    distribution, user, stray = MACHINES[request.param]
    with new_machine(distribution, user) as made:
        if stray:
            put_stray_client(made)
        yield made


def put_stray_client(machine: Machine) -> None:
    """This machine's own client: what a machine for developers has without an engine."""
    client = shutil.which("docker")
    assert client
    machine.root("mkdir -p /usr/local/bin")
    machine.put_program(client, "/usr/local/bin/docker")
    assert machine.run("docker version").code != 0, "a client, and no engine"


def test_the_machine_has_nothing_else(machine: Machine) -> None:
    assert machine.run("command -v dockerd docker-compose redis-server pip ssh curl").output == ""


def test_make_deploy_ends_with_a_running_service(machine: Machine) -> None:
    deployed = machine.run("make deploy", seconds=900)
    assert deployed.code == 0, deployed.output[-5000:] + deployed.errors[-2000:]
    assert "celray runs on" in deployed.output
    assert re.search(r"failed=0 ", deployed.output)


def running(machine: Machine) -> dict[str, str]:
    """Return the id and the start of every container of ours, by name."""
    form = "{{.Name}} {{.Id}} {{.State.StartedAt}}"
    ids = "docker ps --quiet --filter label=celray.project=celray"
    said = machine.root(f"docker inspect --format '{form}' $({ids})")
    return dict(line.split(" ", 1) for line in said.splitlines())


def test_a_second_deploy_changes_nothing(machine: Machine) -> None:
    before = running(machine)
    again = machine.run("make deploy")
    assert again.code == 0, again.output[-5000:]
    assert re.search(r"changed=0 .*failed=0 ", again.output)
    assert len(before) == 7
    assert running(machine) == before


def test_make_client_sends_a_task_that_comes_back(machine: Machine) -> None:
    made = machine.run("make client")
    assert made.code == 0, made.output + made.errors
    (command,) = re.findall(r"^  (.*celray submit ping --watch)$", made.output, re.MULTILINE)
    answered = machine.run(command, seconds=60)
    assert answered.code == 0, answered.errors
    assert json.loads(answered.output)["status"] == "pong"


def test_make_verify_finds_every_part_in_use(machine: Machine) -> None:
    verified = machine.run("make verify")
    assert verified.code == 0, verified.output[-5000:]
    assert "Everything holds" in verified.output


def test_a_container_that_was_removed_by_hand_is_told(machine: Machine) -> None:
    machine.root("docker rm --force flower")
    status = machine.run("make status")
    assert status.code != 0
    assert "flower   NOT THERE" in status.output
    assert "make deploy brings it back" in " ".join(status.output.split())


def test_make_destroy_leaves_nothing(machine: Machine) -> None:
    refused = machine.run("make destroy")
    assert refused.code == 2
    assert "make destroy CONFIRM=yes" in refused.errors
    destroyed = machine.run("make destroy CONFIRM=yes PURGE=yes")
    assert destroyed.code == 0, destroyed.output[-5000:]
    assert machine.root("docker ps --all --quiet; docker images --quiet 'celray/*'") == ""
    # The clone and what it was made with stay; of the service's own folder nothing does.
    assert not machine.root(f"ls -A {machine.home}/celray 2>/dev/null || true")
