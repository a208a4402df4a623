"""Decide which images a host needs, by content, and which of them it lacks.

A tag is a digest over everything that goes into the image, so that "is it there" answers "is it
right", nothing is ever rebuilt or shipped twice, and check mode knows what a deploy would build.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

REPO = Path(__file__).resolve().parents[3]
# Ansible adds a role's Python to the path only for modules, not for code on the control node.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils")]
from celray import task_packages

PACKAGE = REPO / "tasks_pkg"
SOURCES = ("registry", "distro")


def digest(*parts: str | bytes) -> str:
    """Return 12 hex digits of a digest over the parts and their boundaries."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:12]


def files_below(folder: Path) -> list[Path]:
    """Return every file of a directory except compiled Python."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sorted(path for path in found if "__pycache__" not in path.relative_to(folder).parts)


def code_version(folder: Path = PACKAGE / "src/tasks") -> str:
    """Return the version of celray's code: a digest over the package's files."""
    pairs = ((str(path.relative_to(folder)), path.read_bytes()) for path in files_below(folder))
    return digest(*(part for pair in pairs for part in pair))


def with_packages(version: str, code: Mapping[str, str]) -> str:
    """Return the version of celray's code and of the task packages with it."""
    return (
        digest(version, *(part for pair in sorted(code.items()) for part in pair))
        if code
        else version
    )


def images_for(source: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return image name -> tag, for one source; upstream images keep their own tags.

    Where task packages need more than our locks, `worker_extra` lies between the worker's
    dependencies and its code, and `ray` is a layer above `ray_deps`. A worker with an image of its
    own has the same chain under names that end in its own: `worker_deps_NAME` and so on.
    """
    planned = settings["plan"]
    if source == "registry":
        base, redis = settings["upstream"]["base"], settings["upstream"]["redis"]
    else:
        distro = settings["distro"]
        recipe = (distro["suite"], *distro["options"])
        base = f"celray/base:{digest(*recipe, *distro['base_packages'])}"
        redis = f"celray/redis:{digest(*recipe, *distro['redis_packages'])}"
    own = {
        name: digest(
            base,
            (PACKAGE / f"{name}.Dockerfile").read_bytes(),
            (PACKAGE / f"requirements/{name}.lock").read_bytes(),
        )
        for name in ("worker", "ray")
    }
    images = {
        "base": base,
        "redis": redis,
        "ray": f"celray/ray:{own['ray']}",
        "worker_deps": f"celray/worker-deps:{own['worker']}",
    }
    extra = (PACKAGE / "extra.Dockerfile").read_bytes()
    if planned.ray:
        images["ray_deps"] = images["ray"]
        images["ray"] = f"celray/ray-extra:{digest(own['ray'], extra, *planned.ray)}"
    for step in own_images(source, settings, images):
        if step["bootstrap"]:
            images[f"base_{step['worker']}"] = step["base"]
        images[f"worker_deps_{step['worker']}"] = step["image"]
    version = with_packages(code_version(), planned.code)
    for name in [name for name in images if name.startswith("worker_deps")]:
        suffix = name.removeprefix("worker_deps")
        below = images[name].partition(":")[2]
        if planned.worker:
            below = digest(below, extra, *planned.worker)
            images[f"worker_extra{suffix}"] = f"celray/worker-extra:{below}"
        code = digest(below, (PACKAGE / "code.Dockerfile").read_bytes(), version)
        images[f"worker{suffix}"] = f"celray/worker:{code}"
    return images


def own_images(
    source: str, settings: Mapping[str, Any], images: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What the workers' own images are made of: one step for each worker that has one.

    Debian packages of a worker are part of a base bootstrapped for it; on an image from elsewhere
    they are installed by its own apt.
    """
    steps = []
    distro = settings["distro"]
    for worker in settings.get("workers", []):
        packages = list(worker.get("packages", []))
        if not packages and not worker.get("image"):
            continue
        base, bootstrap = worker.get("image") or images["base"], []
        if source == "distro" and not worker.get("image"):
            bootstrap = sorted({*distro["base_packages"], *packages})
            base = f"celray/base:{digest(distro['suite'], *distro['options'], *bootstrap)}"
        apt = "" if bootstrap else " ".join(packages)
        recipe = (PACKAGE / "own.Dockerfile").read_bytes()
        number = digest(recipe, base, apt, images["worker_deps"])
        steps.append(
            {
                "worker": worker["name"],
                "image": f"celray/worker-deps:{number}",
                "base": base,
                "bootstrap": bootstrap,
                "pull": worker.get("image") or "",
                "apt": apt,
            }
        )
    return steps


def bootstrapped(
    distro: Mapping[str, Any], images: Mapping[str, str], steps: Iterable[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return tag -> Debian packages, for every image that is bootstrapped."""
    own = {step["base"]: list(step["bootstrap"]) for step in steps if step["bootstrap"]}
    return {
        images["base"]: list(distro["base_packages"]),
        images["redis"]: list(distro["redis_packages"]),
        **own,
    }


def laid_on_the_host(images: Mapping[str, str]) -> set[str]:
    """Images that are a layer above one that was shipped: small, and built where they are used."""
    above = {n for n in images if n.startswith("worker") and not n.startswith("worker_deps")}
    return above | ({"ray"} if "ray_deps" in images else set())


def shipped_of(candidates: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Return the tags of all images, of each source, that no host builds for itself alone."""
    return {
        tag
        for images in candidates.values()
        for name, tag in images.items()
        if name not in laid_on_the_host(images)
    }


def layers(images: Mapping[str, str], missing: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Return the layers to build on the host: those with wheels, then those with code."""
    found: dict[str, list[dict[str, str]]] = {"extra": [], "code": []}
    for name in missing:
        if name == "ray" and "ray_deps" in images:
            step = {"image": images[name], "above": images["ray_deps"], "wheelhouse": "ray"}
            found["extra"].append(step)
        elif name.startswith("worker_extra"):
            above = images["worker_deps" + name.removeprefix("worker_extra")]
            step = {"image": images[name], "above": above, "wheelhouse": "worker_extra"}
            found["extra"].append(step)
        elif name in laid_on_the_host(images):
            suffix = name.removeprefix("worker")
            above = images.get(f"worker_extra{suffix}", images[f"worker_deps{suffix}"])
            found["code"].append({"image": images[name], "above": above})
    return found


def choose(
    wanted: str,
    there: Mapping[str, Iterable[str]],
    candidates: Mapping[str, Mapping[str, str]],
    names: Iterable[str],
) -> str:
    """Return the source to use, or '' if a registry has to be asked first.

    `auto` stays with the source whose images the host has: a registry that comes and goes must not
    recreate everything.

    Parameters:
        names: the images that the host needs.
    """
    if wanted != "auto":
        return wanted
    for source in SOURCES:
        images = candidates[source]
        small = laid_on_the_host(images)
        if {images[name] for name in names if name in images and name not in small} <= set(there):
            return source
    return ""


class ActionModule(ActionBase):
    """Arguments: see roles/images/tasks/plan.yml. Result: source, images, missing and more."""

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = self._task.args
        try:
            planned = task_packages.plan(args["packages"], Path(args["base"]), args["python"])
        except (task_packages.PackageError, OSError) as error:
            return result | {"failed": True, "msg": f"celery_packages: {error}"}
        settings = {**args, "plan": planned}
        candidates = {source: images_for(source, settings) for source in SOURCES}
        there: dict[str, str] = {}
        if args["docker"]:
            seen = self._execute_module(
                module_name="celray_image",
                task_vars=task_vars,
                module_args={"do": "list", "docker": args["docker"]},
            )
            if seen.get("failed"):
                return {**result, **seen}
            there = seen["images"]
        source = choose(args["source"], there, candidates, args["needed"])
        images = candidates[source or "distro"]
        suffixes = ["", *(f"_{worker['name']}" for worker in args["workers"])]
        needed = [
            part + suffix
            for part in args["needed"]
            for suffix in (suffixes if part.startswith("worker") else [""])
        ]
        missing = [n for n in needed if n in images and images[n] not in there]
        steps = own_images(source or "distro", settings, images)
        return result | {
            "changed": False,
            "source": source,
            "images": images,
            "missing": missing,
            "own": [step for step in steps if f"worker_deps_{step['worker']}" in missing],
            "bootstrap": bootstrapped(args["distro"], images, steps),
            "layers": layers(images, missing),
            "shipped": [name for name in missing if name not in laid_on_the_host(images)],
            "code_version": with_packages(code_version(), planned.code),
            # For the choice of the machine that builds for all hosts (celray_images_run).
            "has": sorted(shipped_of(candidates) & set(there)),
            "engine": bool(args["docker"]),
            "machine": args["machine"],
            "local": self._connection.transport == "local",
            "diff": {"prepared": self.announce(images, missing, planned.code)}
            if missing and self._task.check_mode
            else {},
        }

    @staticmethod
    def announce(images: Mapping[str, str], missing: Iterable[str], code: Mapping[str, str]) -> str:
        lines = [f"  + {images[name]:<37} build\n" for name in missing]
        if "worker" in missing:
            lines += [f"      package {name} {content}\n" for name, content in code.items()]
        return "images\n" + "".join(lines)
