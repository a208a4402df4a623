"""Check for mistakes that only all hosts together can have."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .problem import Problem

#: How alike, from 0 to 1, a group's name is to one that it is a typo of.
ALIKE = 0.86
#: Host names by group, as in Ansible.
Groups = Mapping[str, Sequence[str]]


def check_seen(
    hosts: Sequence[str], seen: Sequence[str], needed: Mapping[str, str]
) -> list[Problem]:
    """Return a problem if hosts that all others need could not be looked at.

    Parameters:
        hosts: all hosts of this run.
        seen: those that were looked at.
        needed: what a host runs that the others need, by host.
    """
    missing = [host for host in hosts if host not in seen and host in needed]
    return [
        Problem(
            f"{host} could not be looked at, and runs {needed[host]} for all others",
            "its own error, above",
            "solve that first",
        )
        for host in missing
    ]


def tell_behind(hosts: Sequence[str], seen: Sequence[str]) -> list[str]:
    """Return a line for each host that could not be looked at: the others go on without it."""
    return [
        f"{host} could not be looked at: it is left as it is, and the next deploy brings it up"
        for host in hosts
        if host not in seen
    ]


def check_single(services: Iterable[Mapping[str, str]], groups: Groups) -> list[Problem]:
    """Return a service that several hosts would run, while all others ask the first one alone.

    Parameters:
        services: name and group of each service that one host runs for all.
    """
    return [
        Problem(
            f"{' and '.join(hosts)} would each run {service['name']}, and all hosts would ask "
            f"{hosts[0]} alone",
            f"the inventory's group {service['group']}",
            "leave one host in that group",
        )
        for service in services
        if len(hosts := groups.get(service["group"], [])) > 1
    ]


def check_needs(services: Sequence[Mapping[str, Any]], groups: Groups) -> list[Problem]:
    """Return each service that the inventory places nowhere, although others need it.

    Parameters:
        services: name, group, needs, and whether others run it (`elsewhere`), of each service.
    """
    missing = {
        one["name"]: one
        for one in services
        if not groups.get(one["group"]) and not one["elsewhere"]
    }
    asking = {
        name: [
            one["name"]
            for one in services
            if name in one["needs"] and groups.get(one["group"]) and not one["elsewhere"]
        ]
        for name in missing
    }
    return [
        Problem(
            f"no host runs {name}, which {' and '.join(others)} need{'s' * (len(others) == 1)}",
            f"the inventory's group {missing[name]['group']}",
            "put one host into that group",
        )
        for name, others in asking.items()
        if others
    ]


def check_addresses(addresses: Mapping[str, str]) -> list[Problem]:
    """Return hosts of the inventory that are one machine: each deploy would undo the other's.

    Parameters:
        addresses: what Ansible connects to, by host.
    """
    hosts: dict[str, list[str]] = {}
    for host, address in addresses.items():
        hosts.setdefault(address, []).append(host)
    return [
        Problem(
            f"{' and '.join(names)} are one machine ({address}): each would remove what the other "
            "deploys",
            f"ansible_host of {', '.join(names)}",
            "give each its own address, or make one host of them that is in all their groups",
        )
        for address, names in hosts.items()
        if len(names) > 1
    ]


def check_owners(owners: Mapping[str, Sequence[Any]]) -> list[Problem]:
    """Return a problem if containers that share files have different users on different hosts.

    Parameters:
        owners: uid and gid of the containers, by host that shares files with the others.
    """
    numbers = {host: "{}:{}".format(*pair) for host, pair in owners.items()}
    if len(set(numbers.values())) < 2:  # noqa: PLR2004 - one for all
        return []
    told = ", ".join(f"{number} on {host}" for host, number in numbers.items())
    return [
        Problem(
            f"the containers would have different users ({told}), so one host could not read what "
            "another writes into the datasets and models that they share",
            "celray_uid and celray_gid, or the deploying users where these are not set",
            "set celray_uid and celray_gid to one number for all hosts, as 10001",
        )
    ]


def check_group_names(groups: Groups, known: Iterable[str]) -> list[Problem]:
    """Return the groups that are a service's group misspelt: it would be left out.

    A group of the operator's own is none, however it is called, where the service has hosts.
    """
    empty = [name for name in known if not groups.get(name)]
    return [
        Problem(
            f"group {name} places no service (did you mean {near[0]}?)",
            "the inventory's groups",
            "correct the name, or give the group one that is like no service's",
        )
        for name, hosts in groups.items()
        if hosts
        and name not in known
        and (near := difflib.get_close_matches(name, empty, 1, ALIKE))
    ]


def check_consumers(
    workers: Iterable[Mapping[str, Any]], placed: Mapping[str, Any]
) -> list[Problem]:
    """Return the queues of the catalogue that no host's worker consumes.

    Parameters:
        placed: worker names by host; empty where the inventory has no host for workers.
    """
    if not placed:
        return []
    running = {
        name
        for names in placed.values()
        for name in (names if isinstance(names, list) else [names])
    }
    idle: dict[str, list[str]] = {}
    consumed: set[str] = set()
    for worker in workers:
        if worker["name"] in running:
            consumed.update(worker["queues"])
        else:
            for queue in worker["queues"]:
                idle.setdefault(queue, []).append(worker["name"])
    return [
        Problem(
            f"no host consumes queue {queue!r}: its tasks would wait for ever",
            f"celray_worker_names of {', '.join(placed)}",
            f"add {' or '.join(names)} to one of them",
        )
        for queue, names in idle.items()
        if queue not in consumed
    ]


def check_machines(machines: Mapping[str, str]) -> list[Problem]:
    """Return a problem if no image can run on all hosts, which one of them builds for the others.

    Parameters:
        machines: the kind of machine, as `uname -m` says it, by host.
    """
    kinds: dict[str, list[str]] = {}
    for host, machine in machines.items():
        kinds.setdefault(machine, []).append(host)
    if len(kinds) < 2:  # noqa: PLR2004 - one kind, or none
        return []
    said = ", ".join(f"{machine} ({' and '.join(hosts)})" for machine, hosts in kinds.items())
    return [
        Problem(
            f"the hosts are machines of several kinds: {said}; an image runs on one kind",
            "uname -m of each host",
            "give the hosts of each kind an inventory and a deployment of their own",
        )
    ]


def check_reach(
    host: str, address: str, services: Iterable[Mapping[str, str]], groups: Groups, others: set[str]
) -> list[Problem]:
    """Return a service that this host runs for others, at an address that only it reaches.

    Parameters:
        address: under which the others are told to reach this host.
        others: the groups whose hosts ask it.
    """
    here = [one["name"] for one in services if list(groups.get(one["group"], []))[:1] == [host]]
    asking = sorted({name for group in others for name in groups.get(group, [])} - {host})
    if not here or not asking or not is_loopback(address):
        return []
    return [out_of_reach(", ".join(asking), " and ".join(here), host, address)]


def out_of_reach(asking: str, what: str, host: str, address: str) -> Problem:
    """Return the problem that hosts cannot reach a service of another host."""
    return Problem(
        f"{asking} cannot reach {what} of {host} at {address}",
        f"celray_address of {host} (the address that SSH came in on, loopback without SSH)",
        f"set celray_address of {host} to an address that they reach, or deploy to it over SSH",
    )


def check_ray_nodes(groups: Groups, address: str) -> list[Problem]:
    """Return what is wrong with where the nodes of celray's Ray cluster are.

    Parameters:
        address: of a Ray cluster of others; empty where celray has its own.
    """
    nodes, heads = list(groups.get("ray_worker", [])), list(groups.get("ray_head", []))
    if nodes and address:
        return [
            Problem(
                f"{' and '.join(nodes)} would run Ray nodes, and Ray is elsewhere: {address}",
                "the inventory's group ray_worker; ray_address",
                "leave ray_worker empty, or ray_address, where these are to be celray's own Ray",
            )
        ]
    return [
        Problem(
            f"{host} would run both Ray's head and a node of it, which take the same ports",
            "the inventory's groups ray_worker and ray_head",
            f"take {host} out of ray_worker: the head runs jobs as well (ray_cpus of {host})",
        )
        for host in nodes
        if host in heads
    ]


def check_node_reach(host: str, address: str, groups: Groups) -> list[Problem]:
    """Return a Ray node at an address that only it reaches: nodes ask each other and the head."""
    if host not in groups.get("ray_worker", []) or not is_loopback(address):
        return []
    others = sorted({*groups["ray_worker"], *groups.get("ray_head", [])} - {host})
    return [out_of_reach(", ".join(others), "the Ray node", host, address)] if others else []


def is_loopback(address: str) -> bool:
    """Return whether an address leads to the host itself; a name leads wherever it leads."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
