"""A new service needs only a role, a template and a line in the inventory.

It is followed from preflight to destroy; the last of the promises, because it ends the deployment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest
from deployment import REPO, Deployment, Run, in_default_alone

pytestmark = in_default_alone("what roles read of a service; compose has no part in that")

FILES = {
    "roles/demo/service.yml": """
celray_service_demo:
  name: demo
  role: demo
  group: demo
  order: 60
  containers: {demo: celray-demo}
  images: [worker_deps, worker_extra, worker]
  ports: [celray_port_demo]
  folders: [celray_demo_dir]
  secrets: {demo_password: 24}
  credentials: {DEMO_PASSWORD: "{{ celray_secret.demo_password }}"}
  summary: {Demo: "http://127.0.0.1:{{ celray_port_demo }}"}
celray_port_demo: "{{ demo_port | default(5599) }}"
celray_demo_dir: "{{ celray_home }}/demo"
""",
    "roles/demo/defaults/main.yml": "demo_memory: 64m\ndemo_port: 5599\n",
    "roles/demo/meta/main.yml": "dependencies: [celray]\n",
    "roles/demo/tasks/main.yml": """
- name: Converge the demonstration
  ansible.builtin.import_role:
    name: compose_project
  vars:
    compose_project_name: demo
    compose_project_files: [{name: demo_password, content: "{{ celray_secret.demo_password }}"}]
""",
    "compose/demo.yml.j2": """
{% import '_macros.j2' as celray with context %}
services:
  demo:
{{ celray.service('celray-demo', images_found.images.worker, demo_memory) }}
    command: [python3, -u, -m, http.server, --bind, 127.0.0.1, "{{ celray_port_demo }}"]
    volumes:
      - {{ compose_project_folder }}/files/demo_password:/run/secrets/demo_password:ro
{{ celray.http('http://127.0.0.1:' ~ celray_port_demo) }}
""",
}

Play = Callable[..., Run]


@pytest.fixture(scope="module")
def play(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Return a function that runs a playbook of a copy of the project with one more role."""
    copy = tmp_path_factory.mktemp("copy")
    tracked = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO
    )
    for name in tracked.decode().split("\0"):
        if name and (REPO / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name)
    for name, content in FILES.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(content.lstrip())
    inventory = copy / "demo.ini"
    inventory.write_text(f"[demo]\n{deployment.name}\n")

    def run(playbook: str, *arguments: str, code: int | None = 0, logged: bool = True) -> Run:
        more = (f"--inventory={inventory}", *arguments)
        return deployment.play(playbook, *more, code=code, repo=copy, logged=logged)

    return run


def test_it_is_checked_before_anything_changes(play: Play) -> None:
    refused = play("site.yml", "--check", "-e", '{"demo_port": 22}', code=None)
    assert refused.code != 0
    assert "celray_port_demo" in refused.output
    assert "sshd" in refused.output

    announced = play("site.yml", "--check", "--diff")
    assert announced.actions == {"celray-demo": "create"}


def test_it_is_deployed_and_nothing_else_is_touched(play: Play, deployment: Deployment) -> None:
    before = deployment.look().running()
    done = play("site.yml")
    assert done.actions == {"celray-demo": "create"}
    assert "http://127.0.0.1:5599" in done.output
    after = deployment.look()
    assert {name: after.running()[name] for name in before} == before
    assert after.containers["celray-demo"]["State"]["Health"]["Status"] == "healthy"


def test_it_has_a_secret_of_its_own(play: Play, deployment: Deployment) -> None:
    kept = json.loads(deployment.ssh("sudo", "cat", f"{deployment.home}/secrets/secrets.json"))
    kept = kept["demo_password"]
    mounted = deployment.docker("exec", "celray-demo", "cat", "/run/secrets/demo_password")
    assert mounted == kept
    assert f"DEMO_PASSWORD={kept}" in play("playbooks/credentials.yml", logged=False).output


def test_status_shows_it_and_says_when_it_is_gone(play: Play, deployment: Deployment) -> None:
    assert "celray-demo" in play("playbooks/status.yml").output
    deployment.docker("rm", "--force", "celray-demo")
    gone = play("playbooks/status.yml", code=None)
    assert gone.code != 0
    assert "not there: celray-demo" in gone.output
    assert play("site.yml").actions == {"celray-demo": "create"}


def test_its_log_is_shown_and_it_is_restarted(play: Play, deployment: Deployment) -> None:
    assert "Serving HTTP" in play("playbooks/logs.yml", "-e", "what=demo").output
    before = deployment.look().running()
    play("playbooks/restart.yml", "-e", "what=demo")
    after = deployment.look().running()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"celray-demo"}


def test_it_is_verified_with_the_rest(play: Play, deployment: Deployment) -> None:
    there = deployment.look().containers
    assert "celray-demo" in there
    assert f"{len(there)} run, and are healthy" in play("playbooks/verify.yml").output


def test_it_is_destroyed_with_the_rest(play: Play, deployment: Deployment) -> None:
    play("playbooks/destroy.yml", "-e", "confirm=yes", "-e", "purge=yes")
    assert deployment.look().containers == {}
    assert deployment.ssh(f"sudo ls -A {deployment.home} 2>/dev/null || true") == ""
