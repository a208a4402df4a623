"""Check an existing Ray cluster (`ray_address`), used instead of celray's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from celray import REPO

from .problem import Problem, nearest

URL = re.compile(r"https?://[^/\s:@]+(:\d{1,5})?")
KEYS = {"pip": list, "env_vars": Mapping}
AUTHENTICATION_STATUSES = (401, 403)
OK = 200


def refused(what: str, variable: str, fix: str) -> Problem:
    """Return a problem of a variable that the inventory sets."""
    return Problem(what, f"{variable} (your inventory)", fix)


def ours() -> dict[str, str]:
    """Return the versions that jobs are written for: the lock's Ray, the images' Python."""
    lock = (REPO / "tasks_pkg/requirements/ray.lock").read_text()
    ray = re.search(r"^ray(?:\[[^]]*\])?==(\S+)", lock, flags=re.MULTILINE)
    images = yaml.safe_load((REPO / "roles/images/defaults/main.yml").read_text())
    return {"ray": ray[1] if ray else "", "python": str(images["images_python"])}


def check_settings(address: Any, mode: Any, environment: Any) -> list[Problem]:
    """Return the problems that are known without asking the cluster."""
    found: list[Problem] = []
    if not isinstance(address, str) or (address and not URL.fullmatch(address)):
        fix = "write its dashboard's URL, as in http://10.0.0.90:8265, without a path"
        found.append(refused(f"ray_address is {address!r}", "ray_address", fix))
    if mode not in ("token", "disabled"):
        found.append(
            refused(f"ray_auth_mode is {mode!r}", "ray_auth_mode", "use token or disabled")
        )
    if not isinstance(environment, Mapping):
        what = f"ray_runtime_env is {environment!r}, not a mapping"
        return [
            *found,
            refused(what, "ray_runtime_env", "use pip and env_vars, as the example there"),
        ]
    for key, value in environment.items():
        if key not in KEYS:
            what = f"ray_runtime_env has an unknown key {key!r}{nearest(key, KEYS)}"
            found.append(refused(what, "ray_runtime_env", f"use only {', '.join(KEYS)}"))
        elif not isinstance(value, KEYS[key]):
            what = f"ray_runtime_env.{key} is {value!r}"
            fix = "list requirements" if key == "pip" else "map names to values"
            found.append(refused(what, "ray_runtime_env", fix))
    return found


def check_answer(
    address: str, mode: str, answer: Mapping[str, Any], own: Mapping[str, str], host: str
) -> list[Problem]:
    """Return why the cluster cannot be used: no answer, a refused token, other versions."""
    if answer["error"]:
        what = f"Ray at {address} does not answer {host}: {answer['error']}"
        return [refused(what, "ray_address", f"correct it, or allow connections to it from {host}")]
    if answer["status"] in AUTHENTICATION_STATUSES:
        if mode == "disabled":
            fix = "set ray_auth_mode: token and give its token"
        else:
            fix = "give the cluster's own token as celray_secrets.ray_auth_token, from a vault"
        what = f"Ray at {address} does not accept the token (HTTP {answer['status']})"
        return [refused(what, "celray_secrets.ray_auth_token, ray_auth_mode", fix)]
    if answer["status"] != OK or not answer["ray"]:
        what = f"{address} answers HTTP {answer['status']}, not as a Ray dashboard does"
        return [refused(what, "ray_address", "name the dashboard's port, 8265 by default")]
    python = ".".join(answer["python"].split(".")[:2])
    if (answer["ray"], python) == (own["ray"], own["python"]):
        return []
    what = (
        f"Ray at {address} is {answer['ray']} on Python {answer['python']}; celray's client and "
        f"jobs are for Ray {own['ray']} on Python {own['python']}"
    )
    fix = "give that cluster these versions, or leave ray_address empty and use celray's own Ray"
    return [refused(what, "ray_address", fix)]
