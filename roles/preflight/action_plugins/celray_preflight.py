"""Look at a host and hold it, the catalogue and the inventory against what a deployment needs.

Nothing is changed. Every problem is collected, so that one run shows them all; each names the
value, where it came from and the way out.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

REPO = Path(__file__).resolve().parents[3]
PACKAGES = "celery_packages (your inventory; docs/extend.md)"
CATALOGUE = "celery_workers (roles/celray/defaults/main/workers.yml, or your inventory)"
WORKER_KEYS = {"name": str, "queues": list, "concurrency": int, "memory": str}
WORKER_OPTIONS = {"autoscale": list, "replicas": int, "image": str, "packages": list}
#: Keys of which a worker has one.
EITHER = ("concurrency", "autoscale")
OVERRIDES = "celray_worker_overrides (make scale, or group_vars/all/worker_overrides.yml)"
WORDS = {str: "a text", list: "a list", int: "a whole number"}
DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]+")
SIZE = re.compile(r"^[1-9][0-9]*[bkmg]$")
CLOCK_TOLERANCE_SECONDS = 30
PORTS = range(1, 65536)
#: Stands for a uid or gid that the inventory leaves to the host.
UNASKED = -1


@dataclass(frozen=True)
class Problem:
    """One reason not to deploy: what is wrong, where the value comes from, the way out."""

    what: str
    source: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}\n     from: {self.source}\n     way out: {self.fix}"


def load(path: Path) -> Any:
    """A module of this repository that no Python path leads to."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # noqa: S101 - for the type checker; the file is ours
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


#: What Beat reads too: one file says what an entry of the schedule may be.
schedules = load(REPO / "tasks_pkg/src/tasks/schedules.py")


def nearest(word: Any, known: Iterable[str]) -> str:
    return str(schedules.nearest(word, known))


# --- the catalogue and what refers to it ----------------------------------------------------------


def read_routes(path: Path) -> dict[str, str]:
    """The package's routes without importing it: ROUTES is a literal at the module's top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.AnnAssign):
            target: ast.expr = node.target
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
        else:
            continue
        if isinstance(target, ast.Name) and target.id == "ROUTES" and node.value:
            return dict(ast.literal_eval(node.value))
    raise ValueError(f"{path} has no ROUTES")


def check_worker(worker: Any, position: int) -> list[Problem]:
    if not isinstance(worker, Mapping):
        return [
            Problem(
                f"worker number {position} is {worker!r}, not a mapping",
                CATALOGUE,
                "see the example there",
            )
        ]
    label = f"worker {worker.get('name', f'number {position}')}"
    known = WORKER_KEYS | WORKER_OPTIONS
    problems = [
        Problem(
            f"{label} has an unknown key {key!r}{nearest(key, known)}",
            CATALOGUE,
            f"use only {', '.join(known)}",
        )
        for key in worker
        if key not in known
    ]
    either = EITHER if "autoscale" in worker else ()
    problems += [
        Problem(f"{label} lacks {key!r}", CATALOGUE, f"add {key}")
        for key in WORKER_KEYS
        if key not in worker and key not in either
    ]
    if all(key in worker for key in EITHER):
        problems.append(
            Problem(
                f"{label} has both {' and '.join(EITHER)}",
                CATALOGUE,
                "keep concurrency for a fixed number of processes, autoscale for [least, most]",
            )
        )
    problems += [
        Problem(
            f"{label}: {key} is {worker[key]!r}, not {WORDS[kind]}",
            CATALOGUE,
            f"write {WORDS[kind]}",
        )
        for key, kind in known.items()
        if key in worker and (not isinstance(worker[key], kind) or isinstance(worker[key], bool))
    ]
    if problems:
        return problems
    rules = [
        (
            re.fullmatch(r"[a-z][a-z0-9-]*", worker["name"]),
            f"name {worker['name']!r} is no container name",
            "use lower-case letters, digits and dashes",
        ),
        (
            worker["queues"]
            and all(isinstance(queue, str) and queue for queue in worker["queues"]),
            f"queues is {worker['queues']!r}",
            "name at least one queue",
        ),
        (
            worker.get("concurrency", 1) >= 1,
            f"concurrency is {worker.get('concurrency')}",
            "give it at least 1",
        ),
        (
            worker.get("replicas", 1) >= 1,
            f"replicas is {worker.get('replicas')}",
            "give it at least 1; a worker that is not wanted leaves the catalogue",
        ),
        (
            bounds(worker.get("autoscale", [1, 1])),
            f"autoscale is {worker.get('autoscale')!r}",
            "write two whole numbers, the least and the most processes, such as [3, 10]",
        ),
        (
            SIZE.match(worker["memory"]),
            f"memory is {worker['memory']!r}",
            "write a size such as 512m or 4g",
        ),
        (
            re.fullmatch(r"[\w./:-]+[:@][\w.:-]+", worker.get("image", "a:1"))
            and not worker.get("image", "").endswith(":latest"),
            f"image {worker.get('image')!r} has no tag that stays what it is",
            "name a tag other than latest, or a digest",
        ),
        (
            all(DEBIAN.fullmatch(str(name)) for name in worker.get("packages", [])),
            f"packages is {worker.get('packages')!r}",
            "list names of Debian packages, as [gdal-bin, libgeos-c1v5]",
        ),
    ]
    return [Problem(f"{label}: {what}", CATALOGUE, fix) for good, what, fix in rules if not good]


def bounds(autoscale: list[Any]) -> bool:
    """Whether this is [least, most], both at least 1."""
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in autoscale)
    return whole and len(autoscale) == len(("least", "most")) and 1 <= autoscale[0] <= autoscale[1]


def check_overrides(overrides: Any, workers: list[dict[str, Any]]) -> list[Problem]:
    """Every override is of a worker that there is, and of a key that may be overridden."""
    if not isinstance(overrides, Mapping):
        return [Problem(f"the overrides are {overrides!r}", OVERRIDES, "write {worker: {key: …}}")]
    known = [worker["name"] for worker in workers]
    problems = []
    for name, changes in overrides.items():
        if name not in known:
            what = f"there is no worker {name!r}{nearest(name, known)}"
            problems.append(Problem(what, OVERRIDES, f"there is {', '.join(known)}"))
        elif not isinstance(changes, Mapping):
            what = f"the overrides of worker {name} are {changes!r}"
            problems.append(Problem(what, OVERRIDES, "write {concurrency: 8}"))
    return problems


def check_nodes(workers: list[dict[str, Any]]) -> list[Problem]:
    """No replica has another worker's name."""
    names = {worker["name"] for worker in workers}
    return [
        Problem(
            f"replica {number} of worker {worker['name']} has the name of worker {twin}",
            CATALOGUE,
            "rename one of the two workers",
        )
        for worker in workers
        for number in range(2, worker.get("replicas", 1) + 1)
        if (twin := f"{worker['name']}-{number}") in names
    ]


def check_catalogue(workers: Any) -> list[Problem]:
    """Shape of the catalogue: keys, types, ranges, duplicates."""
    if not isinstance(workers, list) or not workers:
        return [Problem(f"the catalogue is {workers!r}", CATALOGUE, "list at least one worker")]
    problems = [found for n, worker in enumerate(workers, 1) for found in check_worker(worker, n)]
    names = Counter(str(worker.get("name")) for worker in workers if isinstance(worker, Mapping))
    problems += [
        Problem(
            f"worker {name} is listed {count} times", CATALOGUE, "give each worker its own name"
        )
        for name, count in names.items()
        if count > 1
    ]
    return problems


def check_routes(workers: list[dict[str, Any]], routes: Mapping[str, str]) -> list[Problem]:
    """Every routed queue is consumed by somebody."""
    consumed = {queue for worker in workers for queue in worker["queues"]}
    return [
        Problem(
            f"task {task} is routed to queue {queue!r}, which no worker consumes"
            f"{nearest(queue, consumed)}",
            f"ROUTES in tasks_pkg/src/tasks/routes.py against {CATALOGUE}",
            f"add {queue} to a worker's queues, or route {task} to one of "
            f"{', '.join(sorted(consumed))}",
        )
        for task, queue in routes.items()
        if queue not in consumed
    ]


def check_placement(placed: Any, workers: list[dict[str, Any]]) -> list[Problem]:
    """Every worker that a host is to run is in the catalogue."""
    known = [worker["name"] for worker in workers]
    return [
        Problem(
            f"celray_worker_names has {name!r}, which is no worker of the catalogue"
            f"{nearest(name, known)}",
            "celray_worker_names (the host's inventory)",
            f"use names of the catalogue: {', '.join(known)}",
        )
        for name in (placed if isinstance(placed, list) else [placed])
        if name not in known
    ]


def check_schedule(
    schedule: Any, routes: Mapping[str, str], queues: set[str], brought: Any = ()
) -> list[Problem]:
    """Every entry means something to Beat, names a task and a queue that there are, and itself.

    Parameters:
        brought: the entries that packages bring.
    """
    source = "celery_beat_schedule (roles/celray/defaults/main/schedule.yml, or your inventory)"
    if not isinstance(schedule, list):
        return [Problem(f"the schedule is {schedule!r}, not a list", source, "list its entries")]
    problems = [
        found
        for entries, where in ((schedule, source), (brought, PACKAGES))
        for entry in entries
        for found in check_entry(entry, routes, queues, where)
    ]
    every = [*schedule, *brought]
    names = [schedules.entry_name(entry) for entry in every if isinstance(entry, Mapping)]
    return problems + [
        Problem(f"schedule {name} is listed more than once", source, "give each its own name")
        for name in schedules.twice(names)
        if name != "?"
    ]


def check_entry(
    entry: Any, routes: Mapping[str, str], queues: set[str], source: str
) -> list[Problem]:
    """One entry of the schedule."""
    name = schedules.entry_name(entry)
    problems = [
        Problem(f"schedule {name}: {what}", source, fix) for what, fix in schedules.problems(entry)
    ]
    if not isinstance(entry, Mapping) or not {"name", "task"} <= set(entry):
        return problems
    if isinstance(entry["task"], str) and entry["task"] not in routes:
        problems.append(
            Problem(
                f"schedule {name} names task {entry['task']}, which does not exist"
                f"{nearest(entry['task'], routes)}",
                source,
                "name a registered task",
            )
        )
    queue = entry.get("queue")
    if isinstance(queue, str) and queue not in queues:
        problems.append(
            Problem(
                f"schedule {name} names queue {queue!r}, which no worker consumes",
                source,
                f"use one of {', '.join(sorted(queues))}",
            )
        )
    return problems


def known_variables(roles: Path) -> set[str]:
    """Every variable that a role has a default for, and the results that roles register."""
    known = {
        "preflight_found",
        "images_found",
        "secrets_store",
        "history_taken",
        "history_version",
        "images_plan_source",
        "images_registry",
        "images_pull",
        "docker_now",
        "docker_service",
        "docker_answer",
        "celery_worker",
        "celery_beat",
    }
    for files in ("*/defaults/main.yml", "*/defaults/main/*.yml", "*/service.yml"):
        known |= variables_in(roles.glob(files))
    return known | derived_variables(roles)


def derived_variables(roles: Path) -> set[str]:
    """Return the variables that a role derives: they win over an inventory's."""
    return variables_in(roles.glob("*/vars/main.yml"))


def variables_in(files: Iterable[Path]) -> set[str]:
    """Return the variables that files of variables set."""
    found = (re.findall(r"^([a-z_]+):", file.read_text(), flags=re.MULTILINE) for file in files)
    return {name for names in found for name in names}


def prefixes_of(roles: Path) -> tuple[str, ...]:
    """How our variables begin: with their role's name, or with the operator's word for a worker."""
    return ("celery_", *(f"{role.name}_" for role in sorted(roles.iterdir()) if role.is_dir()))


def check_variables(
    names: Iterable[str], known: set[str], prefixes: tuple[str, ...]
) -> list[Problem]:
    """A variable with one of our prefixes that no role knows is a typo."""
    return [
        Problem(
            f"variable {name} means nothing{nearest(name, known)}",
            "your inventory or -e",
            "correct the name or remove it",
        )
        for name in sorted(names)
        if name.startswith(prefixes) and name not in known
    ]


def check_derived(given: Iterable[str], derived: set[str]) -> list[Problem]:
    """A variable that a role derives is set, which has no effect, or half of one.

    Parameters:
        given: the variables that the inventory and the command line set.
    """
    return [
        Problem(
            f"variable {name} follows from others and cannot be set",
            "your inventory or -e",
            "remove it and set what it follows from, which roles/celray/vars/main.yml shows",
        )
        for name in sorted(set(given) & derived)
    ]


# --- the host -------------------------------------------------------------------------------------


def engine_checks() -> Any:
    return load(REPO / "roles/preflight/action_plugins/celray_preflight_engine.py")


def check_engine(host: Mapping[str, Any], wanted: str) -> list[Problem]:
    return [Problem(*found) for found in engine_checks().check(host, wanted)]


def check_ports(
    host: Mapping[str, Any], ports: Mapping[str, Any], ours: Mapping[str, str]
) -> list[Problem]:
    """Ports taken by others.

    Parameters:
        ours: our running containers, id to service: what they have is theirs. Where only root could
            see whose a port is, it counts as its service's own while that runs.
    """
    problems = [
        Problem(f"{name} is {port!r}, not a port", name, "use a number from 1 to 65535")
        for name, port in ports.items()
        if port not in PORTS
    ]
    ports = {name: port for name, port in ports.items() if port in PORTS}
    for port, count in Counter(ports.values()).items():
        if count > 1:
            names = [name for name in ports if ports[name] == port]
            problems.append(
                Problem(
                    f"port {port} is given to {' and '.join(names)}",
                    " and ".join(names),
                    "give each its own",
                )
            )
    for name, port in ports.items():
        if str(port) not in host["ports"]:
            continue
        owner = host["ports"][str(port)]
        service = name.removeprefix("celray_port_").split("_")[0]
        if not (owner["container"] in ours if owner else service in ours.values()):
            by = f"{owner['name']} (pid {owner['pid']})" if owner else "a process of another user"
            problems.append(
                Problem(
                    f"port {port} is taken by {by}",
                    f"{name} (roles/celray/defaults/main/network.yml)",
                    f"stop that process, or set {name} to a free port",
                )
            )
    return problems


def check_port_range(ports: Mapping[str, Any], limits: Mapping[str, Any]) -> list[Problem]:
    """Ports of services inside the range from which Ray's worker processes take theirs.

    Parameters:
        limits: the variables of the first and the last port of the range; empty without Ray.
    """
    if not limits:
        return []
    (first_name, first), (last_name, last) = limits.items()
    if first not in PORTS or last not in PORTS or first >= last:
        return [
            Problem(
                f"Ray's workers get the ports {first!r} to {last!r}",
                f"{first_name} and {last_name}",
                "use two numbers from 1 to 65535, the lower one first",
            )
        ]
    return [
        Problem(
            f"port {port} lies in the range {first} to {last} of Ray's workers",
            name,
            f"set {name} to a port outside, or move {first_name} and {last_name}",
        )
        for name, port in ports.items()
        if port in PORTS and first <= port <= last
    ]


def check_names(host: Mapping[str, Any], wanted: Iterable[str]) -> list[Problem]:
    wanted = set(wanted)
    return [
        Problem(
            f"container {box['name']} exists and is not celray's ({box['state']})",
            "the host's engine",
            f"move its data, then docker rm -f {box['name']}; docs/operate.md has the migration",
        )
        for box in host["containers"]
        if box["name"] in wanted and box["project"] != "celray"
    ]


def check_paths(
    host: Mapping[str, Any], names: Mapping[str, str], needed_mb: Mapping[str, int]
) -> list[Problem]:
    problems = []
    found = dict(zip(names, host["paths"], strict=True))
    for name, look in found.items():
        if look["read_only_mount"]:
            why, fix = (
                f"{look['parent']} is on a read-only file system",
                "name a directory elsewhere",
            )
        elif not look["is_directory"]:
            why, fix = f"{look['parent']} is not a directory", "remove it or name another"
        elif not look["writable"]:
            why = f"{host['user']} may not write {look['parent']}"
            fix = f"chown {host['user']} {look['parent']}, or name a directory of {host['user']}'s"
        else:
            continue
        problems.append(Problem(f"{look['path']} cannot be made: {why}", name, fix))
    places = {**found, "the engine's data": host["docker_root"]}
    for name, need in needed_mb.items():
        look = places[name]
        if look["free_mb"] < need:
            problems.append(
                Problem(
                    f"{look['path']} has {look['free_mb']} MB free, {need} MB are needed",
                    f"{name}; threshold preflight_min_free_mb",
                    "free some space, or move it to a larger disk",
                )
            )
    return problems


def numbers(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Those of the wanted uid and gid that are numbers."""
    return {kind: int(value) for kind, value in wanted.items() if is_number(value)}


def is_number(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"-1|\d{1,9}", str(value)) is not None


def check_identity(host: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Problem]:
    """A number for the containers' user that is somebody else's, root's, or none.

    Parameters:
        wanted: `uid` and `gid` of the inventory, UNASKED where it leaves them to the host.
    """
    found = [*identity_problem(host, "uid", wanted["uid"])]
    # A group may be shared on purpose, to reach files that belong to it.
    if wanted["gid"] == UNASKED or not is_number(wanted["gid"]) or int(wanted["gid"]) == 0:
        found += identity_problem(host, "gid", wanted["gid"])
    return found[:1]


def identity_problem(host: Mapping[str, Any], kind: str, asked: Any) -> list[Problem]:
    free = host["free_id"]
    source = f"celray_{kind} (your inventory)"
    if not is_number(asked):
        return [
            Problem(f"celray_{kind} is {asked!r}, not a number", source, f"use a number, as {free}")
        ]
    unasked = int(asked) == UNASKED
    number = (host[kind] or host["service"][kind]) if unasked else int(asked)
    if number == 0:
        return [
            Problem(
                f"celray_{kind} is 0: the containers would run as root",
                source,
                f"leave it out, or set it to a number that is nobody's, as {free}",
            )
        ]
    owner = host["owners"][kind]
    # The deploying user's own is no stranger's, nor is an account that was made for this service.
    if number == host[kind] or owner in ("", "celray"):
        return []
    if unasked:
        source = f"celray_{kind} (kept from an earlier deploy: its files have that number)"
    return [
        Problem(
            f"{kind} {number}, as which the containers would run, is {owner}'s on "
            f"{host['hostname']}: each could read the other's files",
            source,
            f"set celray_uid and celray_gid to {free}, which is free, and chown -R {free}:{free} "
            "what lies below celray_home; an account made for this service is named celray",
        )
    ]


def check_size(host: Mapping[str, Any], min_memory_mb: int, skew: float) -> list[Problem]:
    problems = []
    if host["memory_mb"] < min_memory_mb:
        problems.append(
            Problem(
                f"{host['hostname']} has {host['memory_mb']} MB of memory, {min_memory_mb} MB are "
                "needed",
                "preflight_min_memory_mb",
                "use a larger host, or lower the threshold",
            )
        )
    if abs(skew) > CLOCK_TOLERANCE_SECONDS:
        problems.append(
            Problem(
                f"the clock of {host['hostname']} is {skew:+.0f} s off this machine's",
                "the host's clock",
                "synchronise both (apt-get install chrony)",
            )
        )
    return problems


def connection_problem(error: str, host: str, user: str) -> Problem:
    lowered = error.lower()
    last = error.strip().splitlines()[-1] if error.strip() else "no answer"
    if "permission denied" in lowered:
        # ssh may have taken the user from its own configuration, and says whom.
        refused = re.search(r"(?i)(\S+)@\S+: permission denied", error)
        user = refused[1] if refused else user
        return Problem(
            f"{host} refuses user {user}: {last}",
            "SSH_USER / ansible_user and your SSH keys",
            f"make deploy HOST={host} SSH_USER=<name>, or ssh-copy-id {user}@{host}",
        )
    if "host key verification failed" in lowered:
        return Problem(
            f"{host} is not in known_hosts, or its key has changed",
            "~/.ssh/known_hosts",
            f"ssh {host} once and confirm its key",
        )
    return Problem(
        f"{host} cannot be reached: {last}",
        "HOST / ansible_host",
        "check the address and the network",
    )


def report(problems: list[Problem]) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = [f"{number:>3}. {problem}" for number, problem in enumerate(problems, 1)]
    return f"preflight found {count}; nothing has been changed.\n" + "\n".join(lines)


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
            problems = [Problem(*found) for found in engine_checks().wrong_machine(host)]
        if problems:
            return result | {"failed": True, "msg": report(problems)}
        compose = engine_checks().choose_compose(host["compose"], args["compose"])
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
            checks = load(REPO / "roles/preflight/action_plugins/celray_preflight_packages.py")
            wrong, schedule = checks.check(
                args["packages"], Path(args["packages_base"]), queues, set(routes), nearest
            )
            problems += [Problem(what, PACKAGES, fix) for what, fix in wrong]
            theirs = checks.tasks_of(args["packages"], args["schedule"], schedule)
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
        checks = load(REPO / "roles/preflight/action_plugins/celray_preflight_ray.py")
        address, mode = args["ray_address"], args["ray_auth_mode"]
        found = checks.check_settings(address, mode, args["ray_runtime_env"], nearest)
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
            found = checks.check_answer(address, mode, answer, checks.ours(), host["hostname"])
        return [Problem(what, f"{name} (your inventory)", fix) for what, name, fix in found]

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
        problems = check_engine(host, args["compose"])
        problems += check_ports(host, ports, running)
        problems += check_names(host, args["containers"])
        needed = {"celray_home": "home", "the engine's data": "engine"} if not running else {}
        space = {place: args["min_free_mb"][key] for place, key in needed.items()}
        return problems + check_paths(host, paths, space)
