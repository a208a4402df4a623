"""Check ports: used by other programs, given twice, or in the range of Ray's workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .problem import Problem

PORTS = range(1, 65536)


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
