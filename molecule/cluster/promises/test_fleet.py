"""One deployment on several hosts: every service where it belongs, and all of them one service."""

from __future__ import annotations

import functools
import subprocess

import pytest
from celery import Celery
from deployment import Deployment, eventually
from placement import PLACED

Fleet = dict[str, Deployment]


def running(host: Deployment) -> set[str]:
    return set(host.docker("ps", "--format", "{{.Names}}").split())


def runs_all(host: Deployment) -> bool:
    return running(host) == PLACED[host.name]


def operate(host: Deployment, playbook: str, *arguments: str, code: int = 0) -> str:
    """Run an operation's playbook on the whole fleet and return its output."""
    return host.play(f"playbooks/{playbook}.yml", *arguments, code=code).output


# --- after the deploy


@pytest.mark.parametrize("name", PLACED)
def test_a_host_runs_what_its_groups_say_and_nothing_else(fleet: Fleet, name: str) -> None:
    assert running(fleet[name]) == PLACED[name]


@pytest.mark.parametrize("name", PLACED)
def test_a_host_has_the_images_of_its_services_alone(fleet: Fleet, name: str) -> None:
    tags = fleet[name].docker("images", "--format", "{{.Repository}}").split()
    needed = {"ray": {"celray/ray"}, "broker": {"celray/redis", "celray/worker"}}
    assert set(tags) >= needed.get(name, {"celray/worker"})
    assert ("celray/ray" in tags) == (name == "ray")
    assert ("celray/redis" in tags) == (name == "broker")


def test_every_queue_has_its_worker_on_its_host(client: Celery) -> None:
    for queue, host in {"ml": "worker-1", "data": "worker-2", "default": "worker-2"}.items():
        result = client.send_task("tasks.simple_tasks.ping", queue=queue).get(timeout=60)
        assert result["worker"] == f"{queue}@{host}"


def test_a_training_goes_through_queue_worker_and_ray_on_three_hosts(client: Celery) -> None:
    """The sample data lie in the file system that all hosts share."""
    result = client.send_task(
        "tasks.ml_tasks.distributed_training",
        kwargs={
            "model_config": {"n_estimators": 10, "max_depth": 3, "target": "quality"},
            "dataset_path": "/datasets/examples/winequality.csv",
        },
        queue="ml",
    ).get(timeout=300)
    assert result["status"] == "success"
    assert result["total_samples"] == 6497


def test_a_second_deploy_changes_nothing_on_any_host(fleet: Fleet, broker: Deployment) -> None:
    before = {name: host.look().running() for name, host in fleet.items()}
    again = broker.deploy("-vvv", "--diff")
    assert again.changed == 0
    assert not again.actions
    assert {name: host.look().running() for name, host in fleet.items()} == before


def test_a_check_of_the_fleet_promises_nothing(broker: Deployment) -> None:
    check = broker.check()
    assert check.changed == 0
    assert not check.actions


# --- operations


def test_verify_uses_every_part_wherever_it_is(broker: Deployment) -> None:
    """Flower was asked at the worker's own address."""
    said = operate(broker, "verify")
    assert "Flower" in said
    assert "flower" in said


def test_status_names_every_host_container_and_worker(broker: Deployment) -> None:
    said = operate(broker, "status")
    for container in set().union(*PLACED.values()):
        assert container in said
    for worker in ("ml@worker-1", "data@worker-2", "default@worker-2"):
        assert worker in said


def test_logs_come_from_the_host_that_has_the_service(broker: Deployment) -> None:
    assert "ml@worker-1 ready" in operate(broker, "logs", "-e", "what=worker-ml")


def test_a_restart_finds_its_host_and_leaves_the_others(fleet: Fleet, broker: Deployment) -> None:
    before = {name: host.look().running() for name, host in fleet.items()}
    operate(broker, "restart", "-e", "what=worker-ml")
    after = {name: host.look().running() for name, host in fleet.items()}
    assert before.pop("worker-1") != after.pop("worker-1")
    assert after == before


def test_a_service_that_no_host_has_is_refused_once(broker: Deployment) -> None:
    said = operate(broker, "logs", "-e", "what=worker-spare", code=2)
    assert said.count("there is no such service") == 1


def test_credentials_name_the_hosts_where_the_services_are(fleet: Fleet) -> None:
    said = fleet["broker"].play("playbooks/credentials.yml", logged=False).output
    for url in (
        f"@{fleet['broker'].address}:6380/0",
        f"FLOWER_URL=http://{fleet['broker'].address}:5555",
        f"RAY_ADDRESS=http://{fleet['ray'].address}:8265",
    ):
        assert url in said


# --- what a fleet alone can get wrong


def test_a_folder_that_one_host_does_not_share_is_refused(fleet: Fleet, broker: Deployment) -> None:
    """A mount that is missing looks like an empty folder until a task works on it."""
    alone = "/home/operator/alone"
    fleet["worker-2"].ssh("mkdir", "-p", alone)
    settings = broker.state / "operator" / "host_vars" / "worker-2.yml"
    written = settings.read_text()
    settings.write_text(f"{written}celray_datasets_dir: {alone}\n")
    before = {name: host.look().running() for name, host in fleet.items()}
    try:
        said = broker.play("site.yml", code=2).output
    finally:
        settings.write_text(written)
    assert f"worker-2 does not see in {alone} what ray has written there" in said
    assert "/shared/models" not in said.partition("does not see")[2].partition("written")[0]
    assert {name: host.look().running() for name, host in fleet.items()} == before
    left = fleet["ray"].ssh("sudo", "sh", "-c", "ls -A /shared/datasets /shared/models")
    assert ".celray-" not in left


# --- a host that goes, and returns


def container(host: Deployment) -> str:
    """The test host itself, as this machine's engine knows it."""
    return f"celray-cluster-{host.name}"


def engine(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_worker_host_that_dies_loses_no_task(
    fleet: Fleet, client: Celery, broker: Deployment
) -> None:
    """It loses power while it works; the others are asked, changed and deployed to without it."""
    sent = [
        client.send_task("tasks.simple_tasks.ping", queue=queue)
        for _ in range(50)
        for queue in ("data", "default")
    ]
    engine("kill", container(fleet["worker-2"]))
    sent += [client.send_task("tasks.simple_tasks.ping", queue="data") for _ in range(50)]
    status = broker.play("playbooks/status.yml", code=2, logged=False).output
    assert "worker-2 (" in status
    assert "celery-worker-ml" in status, "the others are shown"
    assert client.send_task("tasks.simple_tasks.ping", queue="ml").get(timeout=60)["worker"]

    broker.configure("size", celery_worker_loglevel="DEBUG")
    said = broker.play("site.yml", code=2).output
    assert "worker-2 could not be looked at: it is left as it is" in said
    assert "Behind; make deploy brings them up" in said
    assert "recreate" in said

    engine("start", container(fleet["worker-2"]))
    results = [one.get(timeout=400) for one in sent]
    assert {result["status"] for result in results} == {"pong"}
    assert len(results) == 150


def test_the_next_deploy_brings_it_up(fleet: Fleet, broker: Deployment) -> None:
    actions = broker.deploy().actions
    assert set(actions) == PLACED["worker-2"]
    history = operate(broker, "history")
    assert "not everywhere: worker-2" in history
    for name, host in fleet.items():
        eventually(functools.partial(runs_all, host), 120, f"{name} runs what it should")
    operate(broker, "status")


def test_nothing_is_changed_without_the_host_that_keeps_the_lock(
    fleet: Fleet, broker: Deployment
) -> None:
    before = fleet["worker-1"].look().running()
    engine("kill", container(broker))
    try:
        for playbook in ("site.yml", "playbooks/restart.yml"):
            said = broker.play(playbook, "-e", "what=worker-ml", code=2, logged=False).output
            assert "broker" in said
            assert "nothing has been changed" in said
        assert fleet["worker-1"].look().running() == before
    finally:
        engine("start", container(broker))
    eventually(functools.partial(runs_all, broker), 120, "the broker's host is back")
    eventually(lambda: broker.play("playbooks/status.yml", code=None).code == 0, 120, "all well")
