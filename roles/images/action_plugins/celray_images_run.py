"""Choose for all hosts of a run where images come from, and who makes those that hosts lack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible adds a role's Python to the path only for modules, not for code on the control node.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "module_utils")]
from celray_layer_cache import LayerCache

CONTROL_NODE = "localhost"

Found = Mapping[str, Mapping[str, Any]]
Recipes = dict[str, dict[str, Any]]


def engine_here(machine: str) -> bool:
    """Return whether `docker` talks to an engine of this machine that runs the hosts' images.

    Parameters:
        machine: the hosts' kind, as `uname -m` says it there.
    """
    docker = shutil.which("docker")
    if not docker:
        return False
    endpoint = (docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    asked = subprocess.run(endpoint, capture_output=True, text=True, check=False)
    if asked.returncode == 0 and not asked.stdout.startswith("unix://"):
        return False
    kind = (docker, "info", "--format", "{{.Architecture}}")
    told = subprocess.run(kind, capture_output=True, text=True, check=False)
    return told.returncode == 0 and told.stdout.strip() == machine


def lacking(found: Mapping[str, Any]) -> set[str]:
    """Return the tags that a host needs, lacks, and does not build for itself."""
    return {found["images"][name] for name in found["shipped"]}


def builder_of(found: Found, make: Collection[str], *, engine: bool) -> str:
    """Return who makes images for all hosts: this machine if it has an engine, else one host.

    Of the hosts, the one that has most of what is needed; of equal ones the first of the run.

    Parameters:
        engine: whether this machine has an engine that its user may use.
    """
    hosts = [host for host in found if found[host]["engine"]] or list(found)
    # This machine as a host of the inventory: its images need not be sent to it.
    local = [host for host in hosts if found[host]["local"]]
    if local:
        return local[0]
    if engine:
        return CONTROL_NODE
    # A base image is worth something too: nobody needs it, but the others are built on it.
    return max(hosts, key=lambda h: (len({*make} & {*found[h]["has"]}), len(found[h]["has"])))


def choose(found: Found, cached: Collection[str], *, engine: bool) -> dict[str, Any]:
    """Return the source, the builder and what it makes, for all hosts of a run.

    Parameters:
        found: for each host, in the run's order, what celray_images has found.
        cached: the images that this machine can send without a builder.
    """
    needed: set[str] = set().union(*map(lacking, found.values()))
    make = needed - set(cached)
    builder = builder_of(found, make, engine=engine)
    ill_provided = [host for host in found if lacking(found[host]) & (make or needed)]
    others = (lacking(found[host]) for host in found if host != builder)
    decided = [found[host]["source"] for host in found if found[host]["source"]]
    return {
        "undecided": any(not found[host]["source"] for host in found),
        # One source for all: a host that decides now follows those that have images.
        "source": decided[0] if decided else "",
        "builder": builder,
        # The host whose tasks make the images: the builder itself, or one that lacks some.
        "leader": builder if builder in found else (ill_provided or list(found))[0],
        "make": sorted(make),
        "keep": sorted(make & set().union(*others)),
        "needed": sorted(needed),
        "recipes": recipes(found),
    }


def recipes(found: Found) -> Recipes:
    """Return how each image is made that a host lacks, and each image below it."""
    made: Recipes = {}
    for host in found.values():
        if host["shipped"]:
            made |= recipes_of(host)
    return made


def recipes_of(found: Mapping[str, Any]) -> Recipes:
    images = found["images"]
    if found["source"] == "registry":
        made: Recipes = {images[name]: {"kind": "pull"} for name in ("base", "redis")}
    else:
        made = {
            tag: {"kind": "bootstrap", "packages": list(packages)}
            for tag, packages in found["bootstrap"].items()
        }
    for name, tag in (
        ("worker", images["worker_deps"]),
        ("ray", images.get("ray_deps", images["ray"])),
    ):
        made[tag] = {"kind": "build", "name": name, "below": [images["base"]]}
    for step in found["own"]:
        below = [images["worker_deps"], *({step["base"]} & set(made))]
        made[step["image"]] = {"kind": "own", **step, "below": below}
    return made


def steps(made: Mapping[str, Mapping[str, Any]], make: Iterable[str], has: Collection[str]) -> Any:
    """Return the steps in which a builder makes images, without those that it has.

    Parameters:
        made: how each image is made.
        has: the images that the builder has.
    """
    wanted: set[str] = set()
    waiting = list(make)
    while waiting:
        tag = waiting.pop()
        if tag not in has and tag not in wanted:
            wanted.add(tag)
            waiting += made[tag].get("below", [])
    by_kind: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for tag in sorted(wanted):
        by_kind.setdefault(made[tag]["kind"], []).append((tag, made[tag]))
    builds = [
        {"image": tag, "name": recipe["name"], "base": recipe["below"][0]}
        for tag, recipe in by_kind.get("build", [])
    ]
    return {
        "bootstrap": {tag: recipe["packages"] for tag, recipe in by_kind.get("bootstrap", [])},
        "pull": [tag for tag, _ in by_kind.get("pull", [])],
        "builds": builds,
        "wheels": sorted({build["name"] for build in builds}),
        "own": [
            {**recipe, "worker_deps": recipe["below"][0]} for _, recipe in by_kind.get("own", [])
        ],
    }


def said(chosen: Mapping[str, Any], found: Found, why: str, registry: str) -> str:
    """Return one line on where the images come from; nothing where no host lacks any."""
    if chosen["undecided"] or not chosen["needed"]:
        return ""
    sources = " and ".join(sorted({host["source"] for host in found.values() if host["shipped"]}))
    refused = f" (the registry: {why})" if why else ""
    if registry:
        place = f"from {registry}, what it lacks built on {named(chosen['builder'])}"
    elif chosen["make"]:
        place = f"built on {named(chosen['builder'])}"
    else:
        place = "from this machine's cache"
    return f"Images: {sources}{refused}, {place}."


def named(builder: str) -> str:
    return "this machine" if builder == CONTROL_NODE else builder


class ActionModule(ActionBase):
    """Run for one host, for all of them: `do: choose`; then for the builder: `do: steps`.

    Arguments of choose: hosts, cache, registry, why. Arguments of steps: recipes, make, has.
    """

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args, task_vars = self._task.args, task_vars or {}
        if args["do"] == "steps":
            return result | {
                "changed": False,
                **steps(args["recipes"], args["make"], args["has"]),
            }
        known = ((host, task_vars["hostvars"][host]) for host in args["hosts"])
        # A host that has just failed has found nothing.
        found = {host: seen["images_found"] for host, seen in known if "images_found" in seen}
        registry, cache = args["registry"], LayerCache(args["cache"])
        cached = set() if registry else cache.tags()
        machine = next(iter(found.values()))["machine"]
        chosen = choose(found, cached, engine=engine_here(machine))
        # This run uses them: none is tidied away before it has been sent.
        for tag in [] if self._task.check_mode else cached.intersection(chosen["needed"]):
            cache.get(tag)
        return result | {
            "changed": False,
            **chosen,
            "said": said(chosen, found, args["why"], registry),
        }
