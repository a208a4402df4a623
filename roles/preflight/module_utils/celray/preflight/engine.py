"""Check a host's engine, client and compose against a deployment's requirements.

Every state is one that works (what is missing is installed, what is stopped is started) or one
problem with the way out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celray.compose import choose_compose

from .problem import Problem

# docker-compose 1.29.2 never asks for a newer API than this.
COMPOSE_V1_API = (1, 38)
INSTALLABLE = ("debian", "ubuntu")
#: Where the distribution's docker-compose became the second generation.
COMPOSE_V2_SINCE = {"debian": (13,), "ubuntu": (99,)}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def check(host: Mapping[str, Any], wanted: str) -> list[Problem]:
    """Return the first reason why this host's engine cannot be used."""
    problems = wrong_machine(host) or wrong_engine(host) or out_of_reach(host) or no_client(host)
    return problems or check_compose(host, wanted)


def wrong_machine(host: Mapping[str, Any]) -> list[Problem]:
    """Return a problem if the engine is another host's: it must never be changed."""
    engine = host["engine"]
    who = f"{host['user']}@{host['hostname']}"
    if engine["endpoint"]:
        address, source = engine["endpoint"]
        if address.startswith("unix://") and "podman" in address:
            # Debian's podman-docker sets it for every login.
            return [podman_problem(host, address, source)]
        if "rootless" in source or re.match(r"unix://(/var)?/run/user/\d+/", address):
            return [rootless(f"docker of {who} uses {address}", source)]
        variable = re.search(r"\bDOCKER_(HOST|CONTEXT)\b", source)
        undo = (
            f"unset {variable[0]}" if variable else f"docker context use default, as {host['user']}"
        )
        return [
            Problem(
                (
                    f"docker of {who} goes to {address}, which is not the engine of "
                    f"{host['hostname']} "
                    f"(unix://{engine['socket']}); nothing is ever deployed through such a setting"
                ),
                source,
                f"{undo}; to deploy to another machine: make deploy HOST=<its address>",
            )
        ]
    if engine["kind"] and engine["name"] not in ("", host["hostname"]):
        return [
            Problem(
                (
                    f"{engine['socket']} of {host['hostname']} leads to the engine of another "
                    "machine, "
                    f"{engine['name']}"
                ),
                "that socket, mounted or forwarded from there",
                (
                    f"deploy to that machine: make deploy HOST=<address of {engine['name']}>; or "
                    "remove the socket, and an engine is installed here"
                ),
            )
        ]
    return []


def podman_problem(host: Mapping[str, Any], where: str, source: str) -> Problem:
    return Problem(
        (
            f"docker on {host['hostname']} is podman ({where}), which handles neither restart "
            "policies nor compose as Docker does"
        ),
        source,
        (
            "apt-get remove podman-docker and rm -f /run/docker.sock (podman itself may stay), "
            "then log in again, because it sets DOCKER_HOST; deploying then installs docker.io"
        ),
    )


def rootless(what: str, source: str) -> Problem:
    return Problem(
        (
            f"{what}: a rootless engine, whose containers have a network of their own and "
            "cannot serve "
            "on this host's addresses"
        ),
        source,
        (
            "stop it and use a system-wide engine: systemctl --user disable --now docker; docker "
            "context use default; unset DOCKER_HOST; deploying then installs docker.io where "
            "it is missing"
        ),
    )


def wrong_engine(host: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for Podman, a rootless engine or a snap, which only resemble Docker."""
    engine = host["engine"]
    podman = [client["path"] for client in engine["clients"] if client["kind"] == "podman"]
    if engine["kind"] == "podman" or (podman and engine["access"] == "absent"):
        where = engine["socket"] if engine["kind"] == "podman" else podman[0]
        return [podman_problem(host, where, "the host's packages")]
    if engine["rootless"]:
        return [rootless(f"the engine at {engine['socket']}", "the host's engine")]
    if engine["snap"]:
        return [
            Problem(
                (
                    f"Docker at {engine['path'] or engine.get('root', '')} is packaged as a snap, "
                    "which cannot run containers under no-new-privileges ('operation not "
                    "permitted') "
                    "and sees /opt read-only"
                ),
                "the host's packages",
                "snap remove docker, then install docker.io from the distribution",
            )
        ]
    return []


def out_of_reach(host: Mapping[str, Any]) -> list[Problem]:
    """Return a problem if an engine may not be used, or is missing and cannot be installed."""
    engine = host["engine"]
    who = f"{host['user']}@{host['hostname']}"
    give = f"give {host['user']} sudo without a password"
    if engine["access"] == "denied":
        return [
            Problem(
                f"{who} may not talk to the container engine: {engine['error']}",
                "the host's groups and sudoers",
                f"usermod -aG docker {host['user']}, or {give}",
            )
        ]
    masked = [name for name, state in engine["units"].items() if state == "masked"]
    if engine["access"] == "stopped" and masked:
        return [
            Problem(
                (
                    f"the container engine is stopped and masked ({', '.join(masked)}): "
                    "somebody has "
                    "forbidden that it is started"
                ),
                "systemd of the host",
                f"systemctl unmask {' '.join(masked)}, then deploy again",
            )
        ]
    if engine["access"] in ("absent", "stopped") and not host["sudo"]:
        said = "".join(f"\n       {line}" for line in engine["last_lines"])
        state = (
            "is not installed"
            if engine["access"] == "absent"
            else f"does not answer ({engine['error']})"
        )
        return [
            Problem(
                f"the container engine {state} and {who} has no privilege to change that{said}",
                "the host",
                f"install and start Docker yourself, or {give}",
            )
        ]
    if engine["access"] == "absent" and not installable(host):
        return [
            Problem(
                *missing("a container engine", host),
                "install Docker and compose yourself, then deploy again",
            )
        ]
    return []


def installable(host: Mapping[str, Any]) -> bool:
    return bool({host["os"]["id"], *host["os"]["id_like"].split()} & set(INSTALLABLE))


def missing(what: str, host: Mapping[str, Any]) -> tuple[str, str]:
    system = host["os"]["id"] or "this system"
    return f"{what} is missing, and celray cannot install it on {system}", "the host"


def no_client(host: Mapping[str, Any]) -> list[Problem]:
    """An engine that answers, and no `docker` that it answers to."""
    engine = host["engine"]
    if engine["access"] not in ("direct", "sudo") or engine["path"] or client_package(host):
        return []
    tried = "; ".join(f"{c['path']}: {c['error']}" for c in engine["clients_failed"])
    package = "docker-ce-cli" if engine["package"] == "docker-ce" else "the docker client"
    return [
        Problem(
            (
                f"the engine {engine['version']} of {host['hostname']} answers, but no docker "
                "command "
                f"fits it ({tried or 'there is none'})"
            ),
            "the host's packages",
            f"install {package} of the engine's own version, then deploy again",
        )
    ]


def client_package(host: Mapping[str, Any]) -> str:
    """The package of the client that belongs to the distribution's own engine, or ""."""
    debian = version(host["os"].get("version_id", "")) >= (13,) and host["os"]["id"] == "debian"
    return "docker-cli" if debian and host["engine"]["package"] == "docker.io" else ""


def check_compose(host: Mapping[str, Any], wanted: str) -> list[Problem]:
    engine, compose = host["engine"], choose_compose(host["compose"], wanted)
    too_new = version(engine.get("min_api", "1.0")) > COMPOSE_V1_API
    install_v2 = "install Compose v2: apt-get install docker-compose-v2 or docker-compose-plugin"
    if wanted != "auto" and not compose and host["compose"]:
        return [
            Problem(
                f"compose {wanted} is asked for, but only {', '.join(host['compose'])} is there",
                "celray_compose",
                "set celray_compose: auto, or install the other generation",
            )
        ]
    if not compose and not host["sudo"]:
        return [
            Problem(
                (
                    f"compose is missing and {host['user']}@{host['hostname']} has no privilege to "
                    "install it"
                ),
                "the host",
                f"install docker-compose yourself, or give {host['user']} sudo without a password",
            )
        ]
    if not compose and not installable(host):
        return [Problem(*missing("compose", host), "install compose yourself, then deploy again")]
    if too_new and ((compose or {}).get("generation") == "v1" or (not compose and only_v1(host))):
        system = f"{host['os']['id']} {host['os']['version_id']}"
        who = f"compose is missing, and the v1 that {system} has"
        if compose:
            who = f"docker-compose {compose['version']}"
        return [
            Problem(
                (
                    f"{who} cannot talk to engine {engine['version']}, whose oldest API is "
                    f"{engine['min_api']} (v1 speaks {'.'.join(map(str, COMPOSE_V1_API))})"
                ),
                "the host's packages",
                install_v2,
            )
        ]
    return []


def only_v1(host: Mapping[str, Any]) -> bool:
    """Whether what would be installed here is compose v1; Docker's own packages have v2."""
    since = COMPOSE_V2_SINCE.get(host["os"]["id"], (0,))
    return (
        host["engine"]["package"] != "docker-ce"
        and version(host["os"].get("version_id", "")) < since
    )
