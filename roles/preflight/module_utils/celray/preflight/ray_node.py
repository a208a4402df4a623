"""Check the settings of a node of celray's own Ray cluster, and its host's GPUs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .problem import Problem
from .ray import refused

#: Ray's syntax of labels is that of Kubernetes.
WORD = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")
PREFIX = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9-]*[a-zA-Z0-9])*")
MOST_PREFIX_CHARACTERS = 253
#: What Ray counts by options of its own.
COUNTED = {
    "CPU": "ray_cpus",
    "GPU": "ray_gpus",
    "memory": "ray_memory_mb",
    "object_store_memory": "ray_object_store_mb",
}
RESOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}")
#: The least number that a variable may hold; Ray has no smaller object store than 75 MB.
LEAST = {"ray_cpus": 0, "ray_gpus": 0, "ray_memory_mb": 512, "ray_object_store_mb": 75}


def check(given: Mapping[str, Any], host: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the settings of a Ray node.

    Parameters:
        given: those that the inventory sets, by the names of their variables.
        host: what was found there.
    """
    found = [
        refused(f"{name} is {given[name]!r}", name, f"use a whole number from {least} on")
        for name, least in LEAST.items()
        if name in given and (number(given[name]) is None or int(given[name]) < least)
    ]
    for name, judge in (("ray_resources", resource), ("ray_labels", label)):
        if name in given:
            found += check_mapping(name, given[name], judge)
    if found:
        return found
    memory, store = number(given.get("ray_memory_mb")), number(given.get("ray_object_store_mb"))
    if memory and store and store >= memory:
        what = f"the object store of {store} MB leaves nothing of the {memory} MB of Ray's memory"
        fix = "give a third of ray_memory_mb, or leave ray_object_store_mb out"
        found.append(refused(what, "ray_object_store_mb, ray_memory_mb", fix))
    return found + check_gpus(number(given.get("ray_gpus")) or 0, host)


def number(value: Any) -> int | None:
    """Return a whole number, also one that -e gives as text; None for what is none."""
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)):
        return None
    return int(value)


def check_mapping(variable: str, given: Any, judge: Callable[[Any, Any], str]) -> list[Problem]:
    """Return a problem for each entry that Ray would refuse; its node would not start."""
    if not isinstance(given, Mapping):
        fix = "write {name: value}"
        return [refused(f"{variable} is {given!r}, not a mapping", variable, fix)]
    return [
        refused(f"{variable} has {key!r}: {value!r}", variable, fix)
        for key, value in given.items()
        if (fix := judge(key, value))
    ]


def resource(name: Any, amount: Any) -> str:
    """Return what to do about a resource; empty where it is right."""
    if name in COUNTED:
        return f"set {COUNTED[name]} for that"
    if not isinstance(name, str) or not RESOURCE.fullmatch(name) or name.startswith("node:"):
        return "name it with letters, digits and _ . : / -, and not node: first, which is Ray's own"
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount < 10**9:
        return "give a whole number above 0"
    return ""


def label(key: Any, value: Any) -> str:
    """Return what to do about a label; empty where it is right."""
    prefix, _, name = key.rpartition("/") if isinstance(key, str) else ("", "", "")
    if not WORD.fullmatch(name) or (
        prefix and (len(prefix) > MOST_PREFIX_CHARACTERS or not PREFIX.fullmatch(prefix))
    ):
        return "use a key of letters, digits and - _ . inside, as disk or example.com/disk"
    if prefix == "ray.io":
        return "use another prefix: labels of ray.io are Ray's own"
    if not isinstance(value, str) or (value and not WORD.fullmatch(value)):
        return "use a text of letters, digits and - _ . inside, in quotes where it is a number"
    return ""


def check_gpus(wanted: int, host: Mapping[str, Any]) -> list[Problem]:
    """Return why a host cannot give its containers as many GPUs."""
    if not wanted:
        return []
    found, name = host["nvidia"], host["hostname"]
    source = f"ray_gpus of {name}"
    if not found["driver"]:
        what = f"{name} has no driver of NVIDIA's, and Ray is to offer {wanted} GPUs"
        return [Problem(what, source, "install it (Debian: nvidia-driver), or set ray_gpus: 0")]
    if found["gpus"] < wanted:
        what = f"{name} has {found['gpus']} GPUs, and Ray is to offer {wanted}"
        return [Problem(what, source, f"set ray_gpus to at most {found['gpus']}")]
    if not found["toolkit"]:
        what = f"{name} has no nvidia-container-runtime-hook, by which containers get GPUs"
        fix = "install nvidia-container-toolkit and restart the engine, or set ray_gpus: 0"
        return [Problem(what, source, fix)]
    return []
