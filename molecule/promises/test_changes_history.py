"""Two operators and the rollback: lock, record, earlier versions, and shells in containers."""

from __future__ import annotations

import copy
import json
import subprocess

from deployment import REPO, Deployment, defaults, in_default_alone

pytestmark = in_default_alone(
    "records on the host; compose brings back what a version holds as in a deploy"
)

HOLDER = {
    "name": "5eaf00",
    "operation": "update",
    "user": "ada",
    "host": "another-machine",
    "since": "2026-11-29T10:00:00Z",
    "process": {"machine": "another", "pid": 4711, "started": "then"},
}


def concurrency(deployment: Deployment, number: int) -> None:
    """Change the entry of worker data in the operator's inventory."""
    workers = copy.deepcopy(defaults()["celery_workers"])
    next(worker for worker in workers if worker["name"] == "data")["concurrency"] = number
    deployment.configure("workers", celery_workers=workers)


def runs(deployment: Deployment) -> str:
    """Return the number of processes with which the worker data was started."""
    command = deployment.look().containers["celery-worker-data"]["Config"]["Cmd"]
    return str(command[command.index("-c") + 1])


def record(deployment: Deployment) -> list[dict[str, object]]:
    """Return the record from the host."""
    text = deployment.ssh("sudo", "cat", f"{deployment.home}/history/record.jsonl")
    return [json.loads(line) for line in text.splitlines()]


def test_another_operators_lock_stops_a_deploy_until_it_is_broken_by_its_name(
    deployment: Deployment,
) -> None:
    lock = f"{deployment.home}/history/lock.json"
    deployment.ssh("tee", lock, stdin=json.dumps(HOLDER))
    concurrency(deployment, 7)
    before = deployment.look()
    stopped = deployment.play("site.yml", code=2)
    for word in ("ada", "another-machine", "2026-11-29T10:00:00Z", "make unlock LOCK=5eaf00"):
        assert word in stopped.output
    after = deployment.look()
    assert (after.running(), after.files) == (before.running(), before.files)
    deployment.make("unlock", "LOCK=5eaf00")
    assert record(deployment)[-1]["operation"] == "unlock"


def test_a_rollback_brings_the_version_before_and_a_second_one_comes_back(
    deployment: Deployment,
) -> None:
    first = runs(deployment)
    concurrency(deployment, 7)
    deployment.deploy()
    line = record(deployment)[-1]
    assert line["operation"] == "deploy"
    assert line["result"] == "ok"
    assert "recreate worker-data (command changed)" in str(line["what"])
    number = int(str(line["version"]))
    assert number > 1

    before = deployment.look()
    # With the address only: a rollback uses nothing of a checkout or an inventory.
    told = deployment.make("diff", f"TO={number - 1}")
    assert told.actions == {"celery-worker-data": "recreate"}
    assert deployment.look().running() == before.running()
    done = deployment.make("rollback")
    assert done.actions == {"celery-worker-data": "recreate"}
    assert "its stand-in worked after" in done.output
    after = deployment.look()
    assert runs(deployment) == first
    assert after.images == before.images, "nothing is built"
    differing = {name for name, was in before.running().items() if after.running()[name] != was}
    assert differing == {"celery-worker-data"}
    assert record(deployment)[-1]["version"] == number - 1

    deployment.play("playbooks/rollback.yml")
    assert runs(deployment) == "7"
    stored = json.loads(deployment.ssh("sudo", "cat", f"{deployment.home}/history/versions/1.json"))
    stored["number"] = 50
    for made in stored["projects"].values():
        made["images"] = ["celray/worker:gone"]
    planted = f"{deployment.home}/history/versions/50.json"
    deployment.ssh("tee", planted, stdin=json.dumps(stored))
    try:
        gone = deployment.play("playbooks/rollback.yml", "-e", "to=50", code=2)
    finally:
        deployment.ssh("rm", planted)
    assert "no longer has the images of version 50" in gone.output
    assert f"git checkout {stored['commit']}" in gone.output
    told = deployment.make("history")
    for word in ("rollback", "unlock", f"version {number} runs", "images are kept of"):
        assert word in told.output


def test_nothing_of_the_history_is_a_secret_and_nobody_else_can_read_it(
    deployment: Deployment,
) -> None:
    folder = f"{deployment.home}/history"
    text = deployment.ssh("sudo", "grep", "-rh", ".", folder)
    assert "celery-worker-data" in text
    assert [name for name, value in deployment.secrets.items() if value in text] == []
    modes = deployment.ssh("sudo", "find", folder, "-exec", "stat", "-c", "%a", "{}", "+").split()
    assert set(modes) == {"700", "600"}


def test_a_log_goes_on_and_a_shell_opens(deployment: Deployment) -> None:
    assert "INFO" in deployment.followed("logs", "INFO", "WHAT=worker-ml", "TAIL=3", "FOLLOW=1")
    listed = deployment.make("logs", "WHAT=", code=2)
    assert "name a service; there is redis, ray, worker-ml, worker-data" in listed.output
    inside = terminal(deployment, "shell", "echo in-$((40 + 2)); exit\n", "WHAT=worker-ml")
    assert "in-42" in inside
    typed = "print('in', 40 + 2, app.main); exit()\n"
    inside = terminal(deployment, "shell", typed, "WHAT=worker-ml", "RUN=python")
    assert "in 42 tasks" in inside


def terminal(deployment: Deployment, target: str, typed: str, *arguments: str) -> str:
    """Return the output of a make target in a terminal (script, from bsdutils)."""
    command, environment = deployment.made(target, *arguments)
    done = subprocess.run(
        ["script", "-qec", " ".join(command), "/dev/null"],
        cwd=REPO,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout
