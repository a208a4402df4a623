"""Check the user of the containers: its own number, and never root's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .problem import Problem

#: Stands for a uid or gid that the inventory leaves to the host.
UNASKED = -1


def numbers(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Return the wanted uid and gid that are numbers."""
    return {kind: int(value) for kind, value in wanted.items() if is_number(value)}


def is_number(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"-1|\d{1,9}", str(value)) is not None


def check_identity(host: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Problem]:
    """A number for the containers' user that is somebody else's, root's, or none.

    Parameters:
        wanted: `uid` and `gid` of the inventory, UNASKED where it leaves them to the host.
    """
    found = [*identity_problem(host, "uid", wanted["uid"])]
    # A group may be shared on purpose, for access to its files.
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
            "everything below celray_home; an account made for this service is named celray",
        )
    ]
