"""One deployment on several hosts: every service where it belongs, and all of them one service."""

from __future__ import annotations

import functools
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from celery import Celery
from deployment import Deployment, eventually
from placement import PLACED

Fleet = dict[str, Deployment]


def running(host: Deployment) -> set[str]:
    return set(host.docker("ps", "--format", "{{.Names}}").split())


def runs_all(host: Deployment) -> bool:
    with suppress(AssertionError):  # it does not answer yet
        return running(host) == PLACED[host.name]
    return False


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
    assert ("celray/ray" in tags) == (name in {"ray", "worker-2"})
    assert ("celray/redis" in tags) == (name == "broker")


def workers_of(client: Celery, queue: str, number: int = 40) -> set[str]:
    """Return which workers answer tasks of a queue."""
    sent = [client.send_task("tasks.simple_tasks.ping", queue=queue) for _ in range(number)]
    return {str(one.get(timeout=60)["worker"]) for one in sent}


@pytest.mark.parametrize("queue", ["ml", "data", "default"])
def test_a_queue_is_served_on_each_host_that_has_its_worker(client: Celery, queue: str) -> None:
    hosts = [host for host, names in PLACED.items() if f"celery-worker-{queue}" in names]
    wanted = {f"{queue}@{host}" for host in hosts}
    eventually(lambda: workers_of(client, queue) == wanted, 60, f"{wanted} serve {queue}")


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


def test_ray_has_its_nodes_and_one_that_dies_returns(
    fleet: Fleet, client: Celery, broker: Deployment
) -> None:
    """Its raylet is killed in a training, which ends all the same."""
    assert "2 of 2" in operate(broker, "status")
    running_one = client.send_task(
        "tasks.ml_tasks.distributed_training",
        kwargs={
            "model_config": {"n_estimators": 400, "max_depth": 6, "target": "quality"},
            "dataset_path": "/datasets/examples/winequality.csv",
        },
        queue="ml",
    )
    eventually(lambda: str(running_one.state) != "PENDING", 60, "the training runs")
    node = fleet["worker-2"]
    pid = node.docker("inspect", "--format", "{{.State.Pid}}", "ray-node").strip()
    node.ssh("sudo", "kill", "-9", pid)
    assert running_one.get(timeout=400)["status"] == "success"
    eventually(lambda: "2 of 2" in ray_nodes(broker), 300, "the node is back")


def ray_nodes(broker: Deployment) -> str:
    return broker.play("playbooks/status.yml", code=None).output


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
    said = operate(broker, "verify").lower()
    for part in ("flower", "ray", "redis", "data@worker-2"):
        assert part in said


def test_status_names_every_host_container_and_worker(broker: Deployment) -> None:
    said = operate(broker, "status")
    for container in set().union(*PLACED.values()):
        assert container in said
    for worker in ("ml@worker-1", "data@worker-1", "data@worker-2", "default@worker-2"):
        assert worker in said


def test_logs_come_from_each_host_that_has_the_service(broker: Deployment) -> None:
    assert "ml@worker-1 ready" in operate(broker, "logs", "-e", "what=worker-ml")
    both = operate(broker, "logs", "-e", "what=worker-data")
    assert "data@worker-1 ready" in both
    assert "data@worker-2 ready" in both
    one = operate(broker, "logs", "-e", "what=worker-data", "-e", "limit=worker-2")
    assert "data@worker-1 ready" not in one
    assert "data@worker-2 ready" in one


@pytest.mark.parametrize(
    ("what", "limit", "changed"),
    [("worker-ml", "", "worker-1"), ("worker-data", "worker-2", "worker-2")],
)
def test_a_restart_finds_its_host_and_leaves_the_others(
    fleet: Fleet, broker: Deployment, what: str, limit: str, changed: str
) -> None:
    before = {name: host.look().running() for name, host in fleet.items()}
    operate(broker, "restart", "-e", f"what={what}", *(("-e", f"limit={limit}") if limit else ()))
    after = {name: host.look().running() for name, host in fleet.items()}
    assert before.pop(changed) != after.pop(changed)
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


# --- a host that is taken out of service, under load


@contextmanager
def load(client: Celery) -> Iterator[list[Any]]:
    """Send tasks without a pause meanwhile; yield what was sent."""
    sent: list[Any] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.1):
            sent.extend(
                client.send_task("tasks.simple_tasks.ping", queue=queue)
                for queue in ("data", "default")
            )

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def test_a_host_is_drained_stopped_started_and_undrained_under_load(
    fleet: Fleet, client: Celery, broker: Deployment
) -> None:
    there = ("-e", "limit=worker-2")
    with load(client) as sent:
        drained = operate(broker, "drain", *there)
        assert "worker-2" in drained
        assert workers_of(client, "data") == {"data@worker-1"}
        operate(broker, "stop", *there)
        assert running(fleet["worker-2"]) == set()
        status = operate(broker, "status", code=2)
        assert "stopped by make stop" in status
        operate(broker, "start", *there)
        operate(broker, "undrain", *there)
    assert len(sent) > 20
    assert {one.get(timeout=400)["status"] for one in sent} == {"pong"}
    both = {"data@worker-1", "data@worker-2"}
    eventually(lambda: workers_of(client, "data") == both, 60, "both hosts serve it again")


def test_a_drain_that_leaves_a_queue_alone_is_refused(client: Celery, broker: Deployment) -> None:
    said = operate(broker, "drain", "-e", "limit=worker-1", code=2)
    assert "ml" in said
    assert workers_of(client, "ml") == {"ml@worker-1"}


def test_queues_and_tasks_of_the_whole_fleet_are_told(broker: Deployment) -> None:
    queues = operate(broker, "queues")
    for word in ("ml", "data", "default", "celery"):
        assert word in queues
    inspected = operate(broker, "inspect")
    for worker in ("ml@worker-1", "data@worker-1", "data@worker-2"):
        assert worker in inspected


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
    assert "FAILED   worker-2" in status
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
    assert set(actions) == {"celery-worker-data", "celery-worker-default"}
    history = operate(broker, "history")
    assert "not everywhere: worker-2" in history
    for name, host in fleet.items():
        eventually(functools.partial(runs_all, host), 300, f"{name} runs what it should")
    eventually(lambda: broker.play("playbooks/status.yml", code=None).code == 0, 300, "all well")


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
    eventually(functools.partial(runs_all, broker), 300, "the broker's host is back")
    eventually(lambda: broker.play("playbooks/status.yml", code=None).code == 0, 300, "all well")
