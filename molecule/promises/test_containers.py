"""Properties of every container, seen from its host."""

from __future__ import annotations

import re
from typing import Any

import pytest
from deployment import Deployment, eventually
from testinfra.host import Host

CONTAINERS = (
    "celery-beat",
    "celery-worker-data",
    "celery-worker-default",
    "celery-worker-ml",
    "flower",
    "ray-head",
    "redis-celery",
)
OUR_CODE = [name for name in CONTAINERS if name.startswith("celery-") or name == "flower"]
#: A program for the host: it prints /proc/PID/status of every process of every container.
PROCESSES = r"""
import json, subprocess, sys

def docker(*argv):
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True).stdout

found = {}
for name in sys.argv[1:]:
    found[name] = []
    for pid in docker("top", name, "-eo", "pid").split()[1:]:
        try:
            lines = open(f"/proc/{pid}/status").read().splitlines()
        except OSError:
            continue
        found[name].append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def containers(deployment: Deployment) -> dict[str, Any]:
    return deployment.look().containers


def test_exactly_the_promised_containers_run(containers: dict[str, Any]) -> None:
    assert set(containers) == set(CONTAINERS)
    assert {box["State"]["Status"] for box in containers.values()} == {"running"}


def test_every_container_is_healthy(deployment: Deployment) -> None:
    def healthy() -> bool:
        boxes = deployment.look().containers.values()
        return {box["State"]["Health"]["Status"] for box in boxes} == {"healthy"}

    eventually(healthy, 90, "every container is healthy")


@pytest.mark.parametrize("name", CONTAINERS)
def test_labels_say_project_service_and_digest(name: str, containers: dict[str, Any]) -> None:
    labels = containers[name]["Config"]["Labels"]
    assert labels["celray.project"] == "celray"
    assert labels["celray.service"] == name
    assert re.fullmatch(r"[0-9a-f]{12,}", labels["celray.digest"])
    assert labels["com.docker.compose.project"].startswith("celray-")


@pytest.mark.parametrize("name", OUR_CODE)
def test_code_version_is_on_the_label_of_what_runs_our_code(
    name: str, containers: dict[str, Any]
) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", containers[name]["Config"]["Labels"]["celray.code"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_is_confined(name: str, containers: dict[str, Any]) -> None:
    limits = containers[name]["HostConfig"]
    assert limits["ReadonlyRootfs"]
    assert limits["CapDrop"] == ["ALL"]
    assert not limits["CapAdd"]
    assert not limits["Privileged"]
    assert any(option.startswith("no-new-privileges") for option in limits["SecurityOpt"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_container_restarts_by_itself_and_has_limits_and_log_rotation(
    name: str, containers: dict[str, Any]
) -> None:
    limits = containers[name]["HostConfig"]
    assert limits["NetworkMode"] == "host"
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert {"max-size", "max-file"} <= set(limits["LogConfig"]["Config"])


def test_processes_run_as_the_deploying_user_without_any_privilege(
    deployment: Deployment, host: Host
) -> None:
    uid = host.check_output("id -u operator")
    for name, processes in deployment.python(PROCESSES, *CONTAINERS).items():
        assert processes, name
        for process in processes:
            assert set(process["Uid"].split()) == {uid}, (name, process["Name"])
            assert int(process["CapEff"], 16) == 0, (name, process["Name"])
            assert process["NoNewPrivs"] == "1", (name, process["Name"])


def test_workers_serve_their_queues_with_their_concurrency(containers: dict[str, Any]) -> None:
    commands = {name: " ".join(box["Config"]["Cmd"] or []) for name, box in containers.items()}
    assert "-Q ml -c 2" in commands["celery-worker-ml"]
    assert "-Q data -c " in commands["celery-worker-data"]
    assert "-Q default,celery -c 4" in commands["celery-worker-default"]


def test_data_lies_in_the_deploying_users_home_and_is_his(host: Host) -> None:
    for name in ("datasets", "models", "redis"):
        user, mode = host.check_output(f"stat -c '%U %a' /home/operator/celray/{name}").split()
        assert user == "operator"
        assert mode.endswith("0"), f"{name} is open to everybody"


def test_no_folder_on_the_host_is_open_to_others(deployment: Deployment) -> None:
    """Other users of the host cannot read data, results or logs of jobs."""
    folders = ("-mindepth", "1", "-maxdepth", "1", "-type", "d", "-printf", r"'%m %f\n'")
    said = deployment.ssh("sudo", "find", deployment.home, *folders)
    modes = {name: mode for mode, name in (line.split() for line in said.splitlines())}
    assert modes.keys() >= {"datasets", "models", "ray", "secrets"}
    assert {name: mode for name, mode in modes.items() if mode[-1] != "0"} == {}
