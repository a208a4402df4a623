"""Look at a host and hold it, the catalogue and the inventory against what a deployment needs.

Nothing is changed. Every problem is collected, so that one run shows them all; each names the
value, where it came from and the way out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

REPO = Path(__file__).resolve().parents[3]
# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils"), str(REPO / "tasks_pkg/src")]
from celray.preflight import engine, ray
from celray.preflight.connection import connection_problem
from celray.preflight.fleet import check_consumers, check_reach, check_single
from celray.preflight.identity import UNASKED, check_identity, numbers
from celray.preflight.inventory import check_groups, check_names, check_services
from celray.preflight.machine import check_host, check_size
from celray.preflight.ports import PORTS, check_port_range
from celray.preflight.problem import Problem, report


class ActionModule(ActionBase):
    """Arguments: see roles/preflight/tasks/main.yml. Gives host, wanted, compose, skew_seconds."""

    _requires_connection = True

    def value(self, name: str, task_vars: dict[str, Any], home: str | None = None) -> Any:
        """A variable's value, before the host has been seen: its home is then `~`."""
        unseen = {
            "host": {
                "home": home or "~",
                "uid": 0,
                "gid": 0,
                "service": {"uid": UNASKED, "gid": UNASKED},
                "address": "",
                "engine": {"access": ""},
            }
        }
        self._templar.available_variables = {**task_vars, "preflight_found": unseen}
        return self._templar.template(trust_as_template("{{ " + name + " }}"))

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = self._task.args
        ports = {name: self.value(name, task_vars) for name in args["port_variables"]}
        paths = {name: self.value(name, task_vars) for name in args["path_variables"]}
        before = time.time()
        try:
            seen = self._execute_module(
                module_name="celray_host",
                module_args={
                    "ports": [port for port in ports.values() if port in PORTS],
                    "paths": list(paths.values()),
                    "kept": [self.value(name, task_vars) for name in args["kept_variables"]],
                    "wanted": numbers(self.wanted_identity(task_vars)),
                },
                task_vars=task_vars,
            )
        except AnsibleConnectionFailure as error:
            address = self.value("ansible_host | default(inventory_hostname)", task_vars)
            user = self.value("ansible_user | default('', true)", task_vars)
            user = user or self._play_context.remote_user or "(default)"
            problem = connection_problem(str(error), str(address), str(user))
            return result | {"failed": True, "msg": report([problem])}
        if seen.get("failed"):
            return {**result, **seen}
        host = seen["host"]
        skew = host["epoch"] - (before + time.time()) / 2
        problems: list[Problem] = []
        if args["judge"]:
            problems = self.of_inventory(args, task_vars)
            limits = {name: self.value(name, task_vars) for name in args["port_range_variables"]}
            problems += check_port_range(ports, limits)
            problems += check_host(args, host, ports, paths)
            problems += check_reach(
                task_vars["inventory_hostname"],
                self.value("celray_address", task_vars) or host["address"],
                args["single"],
                task_vars["groups"],
                set(args["known_groups"]),
            )
            problems += self.of_ray(args, host, task_vars)
            problems += check_identity(host, self.wanted_identity(task_vars))
            problems += check_size(host, args["min_memory_mb"], skew)
        else:
            # Whatever the operation is, it is never done on another machine.
            problems = engine.wrong_machine(host)
        if problems:
            return result | {"failed": True, "msg": report(problems)}
        compose = engine.choose_compose(host["compose"], args["compose"])
        notes = args["notes"] if args["judge"] else []
        return result | {
            "diff": {"prepared": "".join(f"  {note}\n" for note in notes)} if notes else {},
            "changed": False,
            "host": host,
            # What this host's part of the deployment consists of, whether it is there or not.
            "wanted": args["containers"],
            "compose": compose,
            "skew_seconds": round(skew, 1),
        }

    def wanted_identity(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The numbers that the inventory asks for; what is none is for check_identity to name."""
        return {kind: self.value(f"celray_{kind}", task_vars) for kind in ("uid", "gid")}

    def of_inventory(self, args: dict[str, Any], task_vars: dict[str, Any]) -> list[Problem]:
        """What can be said without having seen the host."""
        name = task_vars["inventory_hostname"]
        problems = check_services(args, lambda: self.value("celray_worker_names", task_vars))
        # What concerns all hosts is said once, by the first of the run, and of a right catalogue.
        if not problems and name == task_vars["ansible_play_hosts_all"][0]:
            problems = self.of_fleet(args, task_vars)
        problems += check_groups(name, args["groups"], args["known_groups"])
        # Without a play: what the inventory and -e set, and nothing of the roles.
        return problems + check_names(task_vars, task_vars["hostvars"].raw_get(name))

    def of_fleet(self, args: dict[str, Any], task_vars: dict[str, Any]) -> list[Problem]:
        """What only all hosts together can get wrong."""
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        placed = {}
        for host in groups.get("celery_worker", []):
            own, name = hostvars.raw_get(host), "celray_worker_names"
            every = [worker["name"] for worker in args["workers"]]
            placed[host] = self.value(name, {**task_vars, **own}) if name in own else every
        return check_single(args["single"], groups) + check_consumers(args["workers"], placed)

    def of_ray(
        self, args: dict[str, Any], host: dict[str, Any], task_vars: dict[str, Any]
    ) -> list[Problem]:
        """A Ray cluster that is there already, as this host sees it."""
        address, mode = args["ray_address"], args["ray_auth_mode"]
        found = ray.check_settings(address, mode, args["ray_runtime_env"])
        if address and not found:
            home = self.value("celray_secrets_dir", task_vars, host["home"])
            token = args["ray_token"] if mode == "token" else ""
            answer = self._execute_module(
                module_name="celray_ray",
                module_args={
                    "address": address,
                    "token": token,
                    **({"secrets_file": f"{home}/secrets.json"} if mode == "token" else {}),
                },
                task_vars=task_vars,
            )
            if answer.get("failed"):
                answer = {**answer, "error": answer.get("msg", "the question failed")}
            found = ray.check_answer(address, mode, answer, ray.ours(), host["hostname"])
        return found
