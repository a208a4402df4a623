"""Filters over the services and their properties (roles/*/service.yml)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Service = Mapping[str, Any]


def celray_here(services: Iterable[Service], group_names: Iterable[str]) -> list[Service]:
    """Return the services that a host of these groups runs, in the order in which they start."""
    names = set(group_names)
    found = [one for one in services if one["group"] in names and one.get("wanted", True)]
    return sorted(found, key=lambda one: int(one["order"]))


def celray_placed(services: Iterable[Service], groups: Mapping[str, Any]) -> list[Service]:
    """Return the services that the inventory places, or that exist without a deploy.

    Parameters:
        groups: Ansible's: group to host names.
    """
    found = [one for one in services if groups.get(one["group"]) or one.get("elsewhere", False)]
    return sorted(found, key=lambda one: int(one["order"]))


def celray_all(services: Iterable[Service], key: str) -> list[Any]:
    """Return what the services list under a key, each value once, in their order."""
    found = [value for one in services for value in one.get(key, [])]
    return list(dict.fromkeys(found))


def celray_merged(services: Iterable[Service], key: str) -> dict[str, Any]:
    """Return what the services map under a key, in one mapping, in their order."""
    return {name: value for one in services for name, value in one.get(key, {}).items()}


def celray_own_containers(services: Iterable[Service]) -> list[str]:
    """Return the containers that a host has of the services that it runs."""
    return [
        str(container)
        for one in services
        for container in one.get("containers_here", one["containers"]).values()
    ]


def celray_having(hosts: Mapping[str, Iterable[Mapping[str, Any]]], container: str) -> list[str]:
    """Return the hosts that have a container of the deployment.

    Parameters:
        hosts: each host's containers.
    """
    return [
        host
        for host, boxes in hosts.items()
        if any(box["name"] == container and box.get("project") == "celray" for box in boxes)
    ]


def celray_single(services: Iterable[Service]) -> list[dict[str, str]]:
    """Return name and group of the services that one host runs for all."""
    return [
        {"name": str(one["name"]), "group": str(one["group"])}
        for one in services
        if one.get("single", False) and one.get("wanted", True)
    ]


class FilterModule:
    """Return the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        return {
            "celray_here": celray_here,
            "celray_placed": celray_placed,
            "celray_all": celray_all,
            "celray_merged": celray_merged,
            "celray_own_containers": celray_own_containers,
            "celray_having": celray_having,
            "celray_single": celray_single,
        }
