"""Operations on several hosts: each on the hosts that it is about, in their order, one named each.

The real roles on four hosts that are this machine; each host's engine is a program that lists the
containers of that host and writes down what it was asked to do.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts import REPO, Played, play, service_files

ENGINE = """#!/bin/sh
case $1 in
  ps) case $2 in -aq) sed '1d; s/ .*//' {folder}/{host}.ps ;; *) cat {folder}/{host}.ps ;; esac ;;
  inspect) format=$3; shift 3
    for name; do
      case $format in
        *digest*) echo '{{"name": "'$name'", "state": "running", "health": "healthy"}}' ;;
        *) echo healthy ;;
      esac
    done ;;
  logs) echo "log of $4 on {host}" ;;
  exec)
    echo "{host} $*" >>{folder}/did
    case "$*" in
      *running) echo "no worker works on anything" ;;
      *"drain --check"*) echo "plan of {host}" ;;
      *undrain*) echo "{host} is no longer drained" ;;
      *--markdown) cat >/dev/null; echo "# celray: everything works" ;;
      *verify) tee {folder}/asked.json ;;
      *" purge "*--confirmed) echo "queue data: 3 waiting messages removed" ;;
      *" purge "*) echo "queue data: 3 waiting messages would be lost" ;;
      *) echo "answer of {host}" ;;
    esac ;;
  *) echo "{host} $*" >>{folder}/did ;;
esac
"""
#: What each host runs. Two run worker-data; none has Flower.
HOSTS: dict[str, list[str]] = {
    "broker": ["redis-celery"],
    "head": ["ray-head", "celery-beat"],
    "worker-1": ["celery-worker-ml", "celery-worker-data"],
    "worker-2": ["celery-worker-data", "celery-worker-default"],
}
GROUPS = {
    "redis": ["broker"],
    "ray_head": ["head"],
    "celery_beat": ["head"],
    "celery_worker": ["worker-1", "worker-2"],
}
NAMES = {"worker-1": ["ml", "data"], "worker-2": ["data", "default"]}
#: Hosts of both kinds: Ansible takes them one after the other if an include differs between them.
ACCESS = {"broker": "sudo", "head": "direct", "worker-1": "direct", "worker-2": "sudo"}
#: In place of sudo: the command, as the same user.
SUDO = """#!/bin/sh
while [ "$1" != /bin/sh ]; do shift; done
exec "$@"
"""
NODES = ["ml@h-worker-1", "data@h-worker-1", "data@h-worker-2", "default@h-worker-2"]


class Fleet:
    """Four hosts with everything running, until a test changes that."""

    def __init__(self, folder: Path) -> None:
        """All of it, healthy."""
        self.folder = folder
        self.states = {host: dict.fromkeys(names, "running") for host, names in HOSTS.items()}

    @property
    def did(self) -> list[str]:
        """Return what the engines were asked to do, in its order."""
        file = self.folder / "did"
        return file.read_text().splitlines() if file.exists() else []

    def _host(self, host: str) -> dict[str, Any]:
        engine = self.folder / f"docker-{host}"
        engine.write_text(ENGINE.format(folder=self.folder, host=host))
        engine.chmod(0o755)
        sudo = self.folder / "sudo"
        sudo.write_text(SUDO)
        sudo.chmod(0o755)
        home = self.folder / host
        home.mkdir(exist_ok=True)
        rows = [f"{name}   Up 2 hours   celray/x:1" for name in self.states[host]]
        (self.folder / f"{host}.ps").write_text("\n".join(["NAMES   STATUS   IMAGE", *rows]) + "\n")
        boxes = [
            {"name": name, "project": "celray", "state": state, "id": name}
            for name, state in self.states[host].items()
        ]
        found = {
            "home": str(home),
            "hostname": f"h-{host}",
            "uid": 1000,
            "gid": 1000,
            "address": "127.0.0.1",
            "epoch": time.time(),
            "engine": {"path": str(engine), "access": ACCESS[host], "version": "20.10.24"},
            "containers": boxes,
        }
        names = {"celray_worker_names": NAMES[host]} if host in NAMES else {}
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_become_exe": str(sudo),
            "host_facts": found,
            "celray_home": str(home / "celray"),
            **names,
        }

    def operate(
        self,
        *steps: str,
        options: tuple[str, ...] = (),
        take_lock: bool = False,
        **given: Any,
    ) -> Played:
        """Run an operation, in its steps, with the variables that make gives it."""
        inventory = {
            "all": {
                "hosts": {host: self._host(host) for host in HOSTS},
                "children": {
                    group: {"hosts": dict.fromkeys(hosts)} for group, hosts in GROUPS.items()
                },
            }
        }
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (self.folder / "given.json").write_text(json.dumps(given))
        plays: list[dict[str, Any]] = [
            {
                "hosts": "{{ limit | default('all') }}",
                "gather_facts": False,
                "roles": [{"role": "operate", "operate_do": step}],
            }
            for step in steps
        ]
        if take_lock:
            plays.insert(0, {"import_playbook": str(REPO / "playbooks/lock.yml")})
        (self.folder / "play.yml").write_text(yaml.safe_dump(plays))
        files = [f"@{self.folder}/given.json", *service_files()]
        more = [word for file in files for word in ("-e", file)]
        where = str(self.folder / "hosts.yml")
        # A deploy's last step uses a module of a role that it has run before.
        known = {"ANSIBLE_LIBRARY": str(REPO / "roles/images/library"), "HOST": "", "ENV": "fleet"}
        return play(str(self.folder / "play.yml"), "-i", where, *more, *options, **known)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Whole hosts."""
    return Fleet(tmp_path)


def said(played: Played) -> str:
    """Return the output in one line."""
    return " ".join(played.output.split())


@pytest.mark.slow
def test_status_asks_once_and_tells_who_should_answer(fleet: Fleet) -> None:
    """A host was missing the containers of workers that its inventory does not give it."""
    played = fleet.operate("status")
    assert played.code == 0, played.output
    assert "NOT THERE" not in played.output
    assert played.output.count("answer of ") == 1
    (asked,) = fleet.did
    assert asked.startswith("worker-1 exec -i -e CELRAY_EXPECTED_NODES=")
    assert json.loads(asked.partition("NODES=")[2].partition("] ")[0] + "]") == NODES
    assert asked.endswith("celery-worker-data python -m tasks.ops status")
    for host in HOSTS:
        assert f"==> {host}" in played.output


@pytest.mark.slow
def test_status_asks_the_first_host_whose_workers_run(fleet: Fleet) -> None:
    fleet.states["worker-1"] = dict.fromkeys(HOSTS["worker-1"], "exited")
    played = fleet.operate("status")
    assert played.code != 0
    told = said(played)
    assert "not running: celery-worker-ml, celery-worker-data" in told
    assert "make deploy ENV=fleet brings it back" in told
    assert [line.split()[0] for line in fleet.did] == ["worker-2"]


@pytest.mark.slow
def test_logs_of_each_host_stand_under_its_name(fleet: Fleet) -> None:
    played = fleet.operate("known", "logs", what="worker-data")
    assert played.code == 0, played.output
    for host in ("worker-1", "worker-2"):
        assert f"==> {host}: celery-worker-data" in played.output
        assert f"log of celery-worker-data on {host}" in played.output
    alone = fleet.operate("known", "logs", what="worker-data", limit="worker-2")
    assert alone.code == 0, alone.output
    assert "==>" not in alone.output
    assert "on worker-1" not in alone.output


@pytest.mark.slow
def test_a_service_of_one_host_is_no_question_to_the_others(fleet: Fleet) -> None:
    """`make logs WHAT=worker-ml` failed on every host that has no such worker."""
    played = fleet.operate("known", "logs", "restart", what="worker-ml")
    assert played.code == 0, played.output
    assert fleet.did == ["worker-1 restart celery-worker-ml"]
    wrong = fleet.operate("known", what="worker-ml", limit="worker-2")
    assert wrong.code != 0
    expected = "WHAT=worker-ml: there is no such service on worker-2; there is worker-data, worker-"
    assert expected in said(wrong)


@pytest.mark.slow
def test_a_shell_is_in_one_host_that_is_named(fleet: Fleet) -> None:
    several = fleet.operate("known", "attach", what="worker-data", do="shell")
    assert several.code != 0
    told = "WHAT=worker-data runs on worker-1, worker-2: choose one of them, as in LIMIT=worker-1"
    assert told in said(several)
    one = fleet.operate("known", "attach", what="worker-data", do="shell", limit="worker-2")
    assert one.code == 0, one.output
    assert "docker-worker-2 exec -it celery-worker-data" in one.output


@pytest.mark.slow
def test_queues_and_tasks_are_asked_once_for_all_hosts(fleet: Fleet) -> None:
    played = fleet.operate("queues", "inspect", options=("--check",))
    assert played.code == 0, played.output
    assert [line.rpartition("tasks.ops ")[2] for line in fleet.did] == ["queues", "inspect"]


@pytest.mark.slow
def test_a_purge_is_shown_and_done_once_confirmed(fleet: Fleet) -> None:
    shown = fleet.operate("queues", queue="data")
    assert shown.code == 0, shown.output
    assert "queue data: 3 waiting messages would be lost" in shown.output
    assert "nothing was removed; CONFIRM=yes removes them" in shown.output
    checked = fleet.operate("purge", queue="data", options=("--check",))
    assert "nothing was removed" in checked.output
    assert not [line for line in fleet.did if "--confirmed" in line]
    done = fleet.operate("purge", queue="data")
    assert done.code == 0, done.output
    assert "queue data: 3 waiting messages removed" in done.output
    assert "nothing was removed" not in done.output
    assert fleet.did[-1].endswith("tasks.ops purge data --confirmed")


@pytest.mark.slow
def test_hosts_that_are_drained_together_do_not_count_for_each_other(fleet: Fleet) -> None:
    given: dict[str, Any] = {"limit": "worker-1,worker-2", "wait": "9", "force": "no"}
    checked = fleet.operate("drain", options=("--check",), **given)
    assert checked.code == 0, checked.output
    assert "plan of worker-1" in checked.output
    assert not [line for line in fleet.did if "--wait" in line]
    played = fleet.operate("drain", **given)
    assert played.code == 0, played.output
    both = "--host=h-worker-1 --host=h-worker-2"
    done = sorted(line for line in fleet.did if "--wait" in line)
    assert done == [
        f"worker-1 exec celery-worker-data python -m tasks.ops drain --wait 9 {both}",
        f"worker-2 exec celery-worker-default python -m tasks.ops drain --wait 9 {both}",
    ]
    forced = fleet.operate("drain", limit="worker-1", wait="9", force="yes")
    assert forced.code == 0, forced.output
    assert fleet.did[-1].endswith("drain --wait 9 --host=h-worker-1 --force")


@pytest.mark.slow
def test_a_host_without_workers_cannot_be_drained(fleet: Fleet) -> None:
    played = fleet.operate("drain", limit="broker", wait="9", force="no")
    assert played.code != 0
    told = "LIMIT=broker: no worker runs on broker; the hosts with workers: worker-1, worker-2"
    assert told in said(played)
    assert fleet.did == []


@pytest.mark.slow
def test_a_host_is_undrained_also_while_its_workers_are_stopped(fleet: Fleet) -> None:
    fleet.states["worker-2"] = dict.fromkeys(HOSTS["worker-2"], "exited")
    marker = fleet.folder / "worker-2/celray/outcomes/drained"
    marker.parent.mkdir(parents=True)
    marker.touch()
    played = fleet.operate("undrain", limit="celery_worker")
    assert played.code == 0, played.output
    assert not marker.exists()
    assert fleet.did == ["worker-1 exec celery-worker-data python -m tasks.ops undrain"]


@pytest.mark.slow
def test_stop_and_start_go_through_the_services_in_their_order(fleet: Fleet) -> None:
    checked = fleet.operate("stop", options=("--check",))
    assert checked.code == 0, checked.output
    assert "broker: redis-celery would stop" in said(checked)
    assert not [line for line in fleet.did if " stop " in line]

    played = fleet.operate("stop")
    assert played.code == 0, played.output
    stopped = [line for line in fleet.did if " stop " in line]
    assert stopped[0] == "head stop celery-beat"
    assert sorted(stopped[1:3]) == [
        "worker-1 stop celery-worker-ml celery-worker-data",
        "worker-2 stop celery-worker-data celery-worker-default",
    ]
    assert stopped[3:] == ["head stop ray-head", "broker stop redis-celery"]

    for host in fleet.states.values():
        host.update(dict.fromkeys(host, "exited"))
    status = said(fleet.operate("status"))
    assert (
        "stopped by make stop: redis-celery; make start ENV=fleet LIMIT=broker starts it" in status
    )
    assert "stopped by make stop at 20" in status

    (fleet.folder / "did").unlink()
    started = fleet.operate("start")
    assert started.code == 0, started.output
    assert [line.split()[0] for line in fleet.did][:2] == ["broker", "head"]
    assert fleet.did[-1] == "head start celery-beat"
    assert "stopped by make stop" not in fleet.operate("status").output


@pytest.mark.slow
def test_stop_of_one_host_leaves_the_others(fleet: Fleet) -> None:
    played = fleet.operate("stop", limit="worker-1")
    assert played.code == 0, played.output
    stopped = [line for line in fleet.did if " stop " in line]
    assert stopped == ["worker-1 stop celery-worker-ml celery-worker-data"]


@pytest.mark.slow
def test_verify_is_told_of_every_hosts_containers_and_of_no_service_that_is_not_there(
    fleet: Fleet,
) -> None:
    """An inventory without Flower failed where its address was asked for."""
    given: dict[str, Any] = {
        "celray_compose_found": {"version": "2"},
        "operate_reports_dir": str(fleet.folder),
    }
    played = fleet.operate("verify", **given)
    assert played.code == 0, played.output
    asked = json.loads((fleet.folder / "asked.json").read_text())
    assert "flower" not in asked
    assert {(box["host"], box["name"]) for box in asked["containers"]} == {
        (host, name) for host, names in HOSTS.items() for name in names
    }
    assert len(list(fleet.folder.glob("*-h-worker-1.md"))) == 1


@pytest.mark.slow
def test_credentials_without_flower_have_no_line_of_it(fleet: Fleet) -> None:
    played = fleet.operate("credentials")
    assert played.code == 0, played.output
    assert "CELERY_BROKER_URL=redis://" in played.output
    assert "RAY_ADDRESS=http://" in played.output
    assert "FLOWER" not in played.output


@pytest.mark.slow
def test_a_deploys_last_words_name_every_host_and_no_service_that_is_not_there(
    fleet: Fleet,
) -> None:
    images: dict[str, Any] = {"code_version": "0123456789ab", "source": "debian", "missing": []}
    images |= {"images": {"ray": "celray/ray:1"}}
    given: dict[str, Any] = {"images_found": images, "operate_train": False}
    played = fleet.operate("summary", take_lock=True, **given)
    assert played.code == 0, played.output
    assert "celray runs on broker, head, worker-1, worker-2, code 0123456789ab" in played.output
    assert "Broker     redis://:PASSWORD@127.0.0.1:6380/0" in played.output
    assert "Flower" not in played.output
    assert "make credentials ENV=fleet" in played.output
