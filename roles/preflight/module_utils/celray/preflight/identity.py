"""Check the user of the containers: its own number, and never root's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .problem import Problem


def is_number(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\d{1,9}", str(value)) is not None


def check_identity(host: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Problem]:
    """A number for the containers' user that is somebody else's, root's, or none.

    Parameters:
        asked: `uid` and `gid` of the inventory, without one that it leaves to the host.
    """
    found = [*identity_problem(host, "uid", asked)]
    # A group may be shared on purpose, for access to its files.
    if "gid" not in asked or not is_number(asked["gid"]) or int(asked["gid"]) == 0:
        found += identity_problem(host, "gid", asked)
    return found[:1]


def identity_problem(host: Mapping[str, Any], kind: str, asked: Mapping[str, Any]) -> list[Problem]:
    free = host["free_id"]
    source = f"celray_{kind} (your inventory)"
    value = asked.get(kind, host[kind] or host["service"][kind])
    if not is_number(value):
        return [
            Problem(f"celray_{kind} is {value!r}, not a number", source, f"use a number, as {free}")
        ]
    number = int(value)
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
    if kind not in asked:
        source = f"celray_{kind} (kept from an earlier deploy: its files have that number)"
    return [
        Problem(
            f"{kind} {number}, as which the containers would run, is {owner}'s on "
            f"{host['hostname']}: each could read the other's files",
            source,
            f"set celray_uid and celray_gid to {free}, which is free, and chown -R {free}:{free} "
            "everything below celray_home; an account made for this service is named celray",
        )
    ]
