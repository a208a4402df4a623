"""Look at a host and hold it, the catalogue and the inventory against what a deployment needs.

Nothing is changed. Every problem is collected, so that one run shows them all; each names the
value, where it came from and the way out.
"""

from __future__ import annotations

import importlib.util
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
from celray.preflight import engine, packages, ray
from celray.preflight.catalogue import (
    check_catalogue,
    check_nodes,
    check_overrides,
    check_placement,
    check_routes,
    read_routes,
)
from celray.preflight.connection import connection_problem
from celray.preflight.identity import UNASKED, check_identity, numbers
from celray.preflight.machine import check_names, check_size
from celray.preflight.ports import PORTS, check_port_range, check_ports
from celray.preflight.problem import Problem, report
from celray.preflight.schedule import check_schedule
from celray.preflight.storage import check_paths
from celray.preflight.variables import (
    check_derived,
    check_variables,
    derived_variables,
    known_variables,
    prefixes_of,
)


def load(path: Path) -> Any:
    """A module of this repository that no Python path leads to."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101 - for the type checker; the file is ours
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


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
            problems += self.of_host(args, host, ports, paths)
            problems += self.of_ray(args, host, task_vars)
            problems += check_identity(host, self.wanted_identity(task_vars))
            problems += check_size(host, args["min_memory_mb"], skew)
        else:
            # Whatever the operation is, it is never done on another machine.
            problems = engine.wrong_machine(host)
        if problems:
            return result | {"failed": True, "msg": report(problems)}
        compose = engine.choose_compose(host["compose"], args["compose"])
        notes = self.notes(args) if args["judge"] else []
        return result | {
            "diff": {"prepared": "".join(f"  {note}\n" for note in notes)} if notes else {},
            "changed": False,
            "host": host,
            # What this host's part of the deployment consists of, whether it is there or not.
            "wanted": args["containers"],
            "compose": compose,
            "skew_seconds": round(skew, 1),
        }

    @staticmethod
    def notes(args: dict[str, Any]) -> list[str]:
        """What is no problem, and still worth a word: which of two sizes of a worker holds."""
        sizes = load(REPO / "roles/celray/filter_plugins/celray_catalogue.py")
        told: list[str] = sizes.which_hold(
            args["catalogue"], args["overrides"], args["scaled_from"]
        )
        return told

    def wanted_identity(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The numbers that the inventory asks for; what is none is for check_identity to name."""
        return {kind: self.value(f"celray_{kind}", task_vars) for kind in ("uid", "gid")}

    def of_inventory(self, args: dict[str, Any], task_vars: dict[str, Any]) -> list[Problem]:
        """What can be said without having seen the host."""
        problems = check_catalogue(args["workers"])
        routes = read_routes(REPO / "tasks_pkg/src/tasks/routes.py")
        if not problems:
            queues = {queue for worker in args["workers"] for queue in worker["queues"]}
            problems = check_routes(args["workers"], routes)
            problems += check_nodes(args["workers"])
            problems += check_overrides(args["overrides"], args["workers"])
            wrong, schedule = packages.check(
                args["packages"], Path(args["packages_base"]), queues, set(routes)
            )
            problems += wrong
            theirs = packages.tasks_of(args["packages"], args["schedule"], schedule)
            problems += check_schedule(args["schedule"], routes | theirs, queues, schedule)
            problems += check_placement(
                self.value("celray_worker_names", task_vars), args["workers"]
            )
        if not args["groups"]:
            problems.append(
                Problem(
                    f"host {task_vars['inventory_hostname']} has no service",
                    "the inventory's groups",
                    f"put it into one of {', '.join(args['known_groups'])}",
                )
            )
        roles = REPO / "roles"
        problems += check_variables(task_vars, known_variables(roles), prefixes_of(roles))
        # Without a play: what the inventory and -e set, and nothing of the roles.
        given = task_vars["hostvars"].raw_get(task_vars["inventory_hostname"])
        return problems + check_derived(given, derived_variables(roles))

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

    @staticmethod
    def of_host(
        args: dict[str, Any], host: dict[str, Any], ports: dict[str, Any], paths: dict[str, str]
    ) -> list[Problem]:
        """What the host has against it. Space is asked for before the first deploy alone."""
        running = {
            box["id"]: box["name"].split("-")[0]
            for box in host["containers"]
            if box["project"] == "celray" and box["state"] == "running"
        }
        problems = engine.check(host, args["compose"])
        problems += check_ports(host, ports, running)
        problems += check_names(host, args["containers"])
        needed = {"celray_home": "home", "the engine's data": "engine"} if not running else {}
        space = {place: args["min_free_mb"][key] for place, key in needed.items()}
        return problems + check_paths(host, paths, space)
