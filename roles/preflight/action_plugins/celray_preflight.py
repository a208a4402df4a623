"""Hold a host, as host_facts found it, and the inventory against what a deployment needs.

Nothing is changed. Every problem is collected, so that one run shows them all; each names the
value, where it came from and the way out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

REPO = Path(__file__).resolve().parents[3]
# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils"), str(REPO / "tasks_pkg/src")]
from celray.preflight import ray
from celray.preflight.fleet import (
    check_addresses,
    check_consumers,
    check_group_names,
    check_needs,
    check_owners,
    check_reach,
    check_seen,
    check_single,
    tell_behind,
)
from celray.preflight.identity import check_identity
from celray.preflight.inventory import check_groups, check_names, check_services
from celray.preflight.machine import check_host, check_size
from celray.preflight.ports import check_port_range
from celray.preflight.problem import Problem, report


class ActionModule(ActionBase):
    """Arguments: see roles/preflight/tasks/main.yml. It fails with every problem, or says notes."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = self._task.args
        host = args["host"]
        name = task_vars["inventory_hostname"]
        # Without a play: what the inventory and -e set, and nothing of the roles.
        given = task_vars["hostvars"].raw_get(name)
        problems = self.of_inventory(args, task_vars, given)
        problems += check_port_range(args["ports"], args["port_range"])
        problems += check_host(args, host)
        problems += check_reach(
            name, args["address"], args["single"], task_vars["groups"], set(args["known_groups"])
        )
        problems += self.of_ray(args, task_vars)
        asked = {kind: id_ for kind, id_ in args["identity"].items() if f"celray_{kind}" in given}
        problems += check_identity(host, asked)
        problems += check_size(host, args["min_memory_mb"])
        if problems:
            return result | {"failed": True, "msg": report(problems)}
        seen, told = task_vars["ansible_play_hosts"], list(args["notes"])
        if name == seen[0]:
            told += tell_behind(task_vars["ansible_play_hosts_all"], seen)
        notes = "".join(f"  {note}\n" for note in told)
        return result | {"changed": False, "diff": {"prepared": notes} if notes else {}}

    def of_inventory(
        self, args: dict[str, Any], task_vars: dict[str, Any], given: dict[str, Any]
    ) -> list[Problem]:
        """What can be said without having seen the host."""
        name, seen = task_vars["inventory_hostname"], task_vars["ansible_play_hosts"]
        problems = check_services(args, lambda: self.worker_names(task_vars))
        # What concerns all hosts is said once, by the first of the run.
        if name == seen[0]:
            # Of a right catalogue alone.
            problems += [] if problems else self.of_fleet(args, task_vars)
            problems += check_seen(task_vars["ansible_play_hosts_all"], seen, args["needed"])
        problems += check_groups(name, args["groups"], args["known_groups"])
        return problems + check_names(task_vars, given)

    def of_fleet(self, args: dict[str, Any], task_vars: dict[str, Any]) -> list[Problem]:
        """What only all hosts together can get wrong."""
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        placed = {}
        for host in groups.get("celery_worker", []):
            own = hostvars.raw_get(host)
            every = [worker["name"] for worker in args["workers"]]
            there = "celray_worker_names" in own
            placed[host] = self.worker_names({**task_vars, **own}) if there else every
        found = check_single(args["single"], groups) + check_consumers(args["workers"], placed)
        found += check_group_names(groups, args["known_groups"])
        found += check_needs(args["services"], groups)
        seen = task_vars["ansible_play_hosts_all"]
        found += check_addresses({host: self.address(task_vars, host) for host in seen})
        sharing = [host for host in args["sharing"] if "host_facts" in hostvars.raw_get(host)]
        return found + check_owners({host: self.owner(task_vars, host) for host in sharing})

    def value(self, task_vars: dict[str, Any], host: str, name: str) -> Any:
        """What a host's own inventory says; None where it says nothing."""
        own = task_vars["hostvars"].raw_get(host)
        if name not in own:
            return None
        self._templar.available_variables = {**task_vars, **own}
        return self._templar.template(own[name])

    def address(self, task_vars: dict[str, Any], host: str) -> str:
        """What Ansible connects to for a host."""
        if self.value(task_vars, host, "ansible_connection") == "local":
            return "this machine"
        port = self.value(task_vars, host, "ansible_port") or 22
        return f"{self.value(task_vars, host, 'ansible_host') or host} port {port}"

    def owner(self, task_vars: dict[str, Any], host: str) -> list[Any]:
        """Uid and gid that the containers of a host get."""
        facts = task_vars["hostvars"].raw_get(host)
        found = []
        for kind in ("uid", "gid"):
            asked = self.value(task_vars, host, f"celray_{kind}")
            seen = facts["host_facts"][kind] or facts["host_facts_resources"]["service"][kind]
            found.append(seen if asked is None else asked)
        return found

    def worker_names(self, variables: dict[str, Any]) -> Any:
        """Which workers a host runs; of a wrong catalogue this may have no value."""
        self._templar.available_variables = variables
        return self._templar.template(trust_as_template("{{ celray_worker_names }}"))

    def of_ray(self, args: dict[str, Any], task_vars: dict[str, Any]) -> list[Problem]:
        """A Ray cluster that is there already, as this host sees it."""
        address, mode = args["ray_address"], args["ray_auth_mode"]
        found = ray.check_settings(address, mode, args["ray_runtime_env"])
        if address and not found:
            token = args["ray_token"] if mode == "token" else ""
            answer = self._execute_module(
                module_name="celray_ray",
                module_args={"address": address, "token": token},
                task_vars=task_vars,
            )
            if answer.get("failed"):
                answer = {**answer, "error": answer.get("msg", "the question failed")}
            found = ray.check_answer(address, mode, answer, ray.ours(), args["host"]["hostname"])
        return found
