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


def celray_needed(services: Iterable[Service], groups: Mapping[str, Any]) -> dict[str, str]:
    """Return host -> what it runs, of the hosts without which no other can be deployed.

    Parameters:
        groups: Ansible's: group to host names.
    """
    found: dict[str, list[str]] = {}
    for one in celray_single(services):
        for host in groups.get(one["group"], [])[:1]:
            found.setdefault(host, []).append(one["name"])
    return {host: " and ".join(names) for host, names in found.items()}


def celray_needing(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return name, group and needs of each service, and whether others run it for this inventory.

    It goes to a plugin as a whole: what else services say may have no value in a wrong inventory.
    """
    return [
        {
            "name": str(one["name"]),
            "group": str(one["group"]),
            "needs": list(one.get("needs", [])),
            "elsewhere": bool(one.get("elsewhere", False)),
        }
        for one in services
    ]


def celray_sharing(services: Iterable[Service], groups: Mapping[str, Any]) -> list[str]:
    """Return the hosts that must see the same files, in the order of their services.

    Parameters:
        groups: Ansible's: group to host names.
    """
    sharing = [
        host
        for one in sorted(services, key=lambda one: int(one["order"]))
        if one.get("shared") and one.get("wanted", True)
        for host in groups.get(one["group"], [])
    ]
    return list(dict.fromkeys(sharing))


def celray_reached(
    services: Iterable[Service], groups: Mapping[str, Any], ports: Mapping[str, Any]
) -> list[str]:
    """Return a line for each port that others than its own host must reach: what a firewall opens.

    Parameters:
        groups: Ansible's: group to host names.
        ports: number by variable, of the ports that services name.
    """
    placed = [one for one in services if one.get("wanted", True)]
    of = {str(one["name"]): list(groups.get(one["group"], [])) for one in placed}
    rows = []
    for one in sorted(placed, key=lambda one: int(one["order"])):
        for host in of[str(one["name"])]:
            for port, who in one.get("reached", {}).items():
                # A name that is no service is somebody outside of the inventory.
                asking = [name for asker in who for name in of.get(asker, [asker])]
                others = [name for name in dict.fromkeys(asking) if name != host]
                if others:
                    rows.append(f"{ports[port]:>5} of {host} ({one['name']}): {', '.join(others)}")
    return rows


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
            "celray_reached": celray_reached,
            "celray_needed": celray_needed,
            "celray_needing": celray_needing,
            "celray_sharing": celray_sharing,
        }
