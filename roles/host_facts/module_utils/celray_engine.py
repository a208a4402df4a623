"""A host's container engine as it is, whatever client happens to be on PATH. Read-only.

The engine is asked over its socket; a client is only looked for once that has answered. So a client
without an engine, an engine without a client, podman under docker's name, and a client that talks
to another machine are each seen as what they are.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

#: Runs a read-only program and returns (exit code, output, errors); 127 for a missing one.
Run = Callable[..., tuple[int, str, str]]

SOCKET = "/var/run/docker.sock"
#: Where a system-wide engine or client lies; a user's PATH over SSH leaves out half of these.
PROGRAM_DIRS = (
    *("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin"),
)
PACKAGE_LISTS = "/var/lib/dpkg/info"
SYSTEMD = "/run/systemd/system"
#: The log of an engine that no service manager has started.
LOG = "/var/log/docker.log"
LAST_LINES = 12

# Runs as a program of its own too: under sudo, which is another user with other settings.
ASK_SOURCE = r"""
import errno, hashlib, http.client, json, os, socket

# What the engine says of itself, or why it says nothing.
def ask(path, seconds):
    def get(what):
        connection = http.client.HTTPConnection("localhost", timeout=seconds)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(seconds)
        try:
            connection.sock.connect(path)
            connection.request("GET", what)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise ValueError("HTTP status %d" % answer.status)
            return json.loads(body.decode("utf-8", "replace"))
        finally:
            connection.close()
    try:
        return {"version": get("/version"), "info": get("/info")}
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        silent = isinstance(error, socket.timeout)
        why = "no answer within %d s" % seconds if silent else error.strerror or str(error)
        return {"denied": denied, "error": "%s: %s" % (path, why.lower())}
    except (ValueError, http.client.HTTPException) as error:
        return {"denied": False, "error": "%s: no answer of an engine (%s)" % (path, error)}

# Where this user's client goes, and what says so; [] where nothing does.
def endpoint(environ):
    if environ.get("DOCKER_HOST"):
        return [environ["DOCKER_HOST"], "DOCKER_HOST in the environment"]
    folder = environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    name, source = environ.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT in the environment"
    if not name:
        source = os.path.join(folder, "config.json")
        try:
            name = json.load(open(source)).get("currentContext")
        except (OSError, ValueError, AttributeError):
            name = ""
    if name in (None, "", "default"):
        return []
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.load(open(os.path.join(folder, "contexts", "meta", digest, "meta.json")))
        host = meta["Endpoints"]["docker"]["Host"]
    except (OSError, ValueError, LookupError, TypeError):
        host = "unknown"
    return [host, "context %s of %s" % (name, source)]
"""
ASK_SECONDS = 20


def programs(name: str, environ: dict[str, str]) -> list[str]:
    """Return every executable of a name, PATH first; two paths of one file count once."""
    found: dict[str, str] = {}
    for folder in [*environ.get("PATH", "").split(os.pathsep), *PROGRAM_DIRS]:
        path = os.path.join(folder, name)
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def is_podman(path: str) -> bool:
    """Return whether a `docker` is podman, by a link or by a script that calls it."""
    if os.path.basename(os.path.realpath(path)).startswith("podman"):
        return True
    try:
        with open(path, "rb") as handle:
            head = handle.read(4096)
    except OSError:
        return False
    return head.startswith(b"#!") and b"podman" in head


def is_ours(host: str) -> bool:
    """Return whether an endpoint is the socket of this machine's own engine."""
    path = host.removeprefix("unix://")
    return host.startswith("unix://") and os.path.realpath(path) == os.path.realpath(SOCKET)


def package_of_the_engine() -> str:
    """Return the Debian package of the engine, or ""."""
    there = (name for name in ("docker.io", "docker-ce") if is_installed(name))
    return next(there, "")


def is_installed(package: str) -> bool:
    return os.path.exists(os.path.join(PACKAGE_LISTS, f"{package}.list"))


def ask(run: Run, *, sudo: bool) -> dict[str, Any]:
    """Return the engine's answer and the client's endpoint, as this user or as root."""
    if sudo:
        call = (
            f"said = ask({SOCKET!r}, {ASK_SECONDS})\n"
            "print(json.dumps(dict(said, endpoint=endpoint(os.environ))))"
        )
        rc, out, err = run("sudo", "-n", sys.executable, "-c", f"{ASK_SOURCE}\n{call}", timeout=45)
        if rc != 0:
            return {"denied": True, "error": err or f"sudo: exit {rc}", "endpoint": []}
        return dict(json.loads(out))
    scope: dict[str, Any] = {}
    exec(ASK_SOURCE, scope)  # noqa: S102 - our own constant, shared with the sudo call above
    return {**scope["ask"](SOCKET, ASK_SECONDS), "endpoint": scope["endpoint"](os.environ)}


def unit(run: Run) -> dict[str, str]:
    """Return systemd's state of the engine by unit: masked, failed, ...; {} without systemd."""
    if not os.path.isdir(SYSTEMD):
        return {}
    states = {}
    for name in ("docker.service", "docker.socket"):
        rc, out, _ = run("systemctl", "show", name, "--property=LoadState,ActiveState,SubState")
        found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if rc == 0 and found:
            masked = found.get("LoadState") == "masked"
            states[name] = "masked" if masked else found.get("ActiveState", "")
    return states


def last_lines(run: Run, prefix: list[str]) -> list[str]:
    """Return the end of the engine's own log."""
    if os.path.isdir(SYSTEMD):
        wanted = ("-u", "docker.service", "-n", str(LAST_LINES), "-o", "cat", "--no-pager")
        rc, out, _ = run(*prefix, "journalctl", *wanted)
    else:
        rc, out, _ = run(*prefix, "tail", "-n", str(LAST_LINES), LOG)
    return out.splitlines()[-LAST_LINES:] if rc == 0 else []


def last_line(out: str, err: str, rc: int) -> str:
    said = [line for line in (err or out).splitlines() if line.strip()]
    return said[-1].strip() if said else f"exit {rc}"


def choose_client(
    run: Run, prefix: list[str], clients: list[dict[str, str]]
) -> tuple[str, list[dict[str, str]]]:
    """Return the first client that works with this engine, and the output of the others."""
    tried: list[dict[str, str]] = []
    for client in clients:
        if client["kind"] == "docker":
            words = ("version", "--format", "{{json .Server}}")
            rc, out, err = run(*prefix, client["path"], *words)
            if rc == 0 and out not in ("", "null"):
                return client["path"], tried
            tried.append({**client, "error": last_line(out, err, rc)})
    return "", tried


def look(run: Run, *, sudo: bool, environ: dict[str, str]) -> dict[str, Any]:
    """Return how the engine is reached, what it is, and the client that fits it.

    Parameters:
        sudo: whether this user, who is not root, has sudo without a password.

    Returns:
        access: direct | sudo | denied | stopped | absent. path: the client, "" without one that
        fits. kind: docker | podman, "" while nothing answers. endpoint: [address, source] where a
        client of this user would go elsewhere than to this machine's engine, else [].
    """
    clients = [
        {"path": path, "kind": "podman" if is_podman(path) else "docker"}
        for path in programs("docker", environ)
    ]
    daemons = [path for path in programs("dockerd", {}) if not path.startswith("/snap/")]
    first = next((client["path"] for client in clients if client["kind"] == "docker"), "")
    engine: dict[str, Any] = {
        "path": first,
        "clients": clients,
        "daemon": daemons[0] if daemons else "",
        "package": package_of_the_engine(),
        "snap": first.startswith("/snap/") or os.path.realpath(first).startswith("/snap/"),
        "kind": "",
        "rootless": False,
        "name": "",
        "error": "",
        "units": {},
        "last_lines": [],
        "socket": SOCKET,
    }
    access, prefix = "direct", []
    answer = ask(run, sudo=False)
    endpoints = [answer["endpoint"]]
    if answer.get("denied") and sudo:
        access, prefix = "sudo", ["sudo", "-n"]
        answer = ask(run, sudo=True)
        # The user's own settings do not matter: every command runs as root.
        endpoints = [answer["endpoint"]]
    engine["endpoint"] = next((e for e in endpoints if e and not is_ours(e[0])), [])
    if "version" in answer:
        return engine | described(answer) | found_client(run, prefix, clients) | {"access": access}
    engine["error"] = answer["error"]
    if answer.get("denied"):
        return engine | {"access": "denied"}
    if not engine["daemon"]:
        return engine | {"access": "absent"}
    reading = ["sudo", "-n"] if sudo else []
    return engine | {
        "access": "stopped",
        "units": unit(run),
        "last_lines": last_lines(run, reading),
    }


def found_client(run: Run, prefix: list[str], clients: list[dict[str, str]]) -> dict[str, Any]:
    path, failed = choose_client(run, prefix, clients)
    return {"path": path, "clients_failed": failed}


def described(answer: dict[str, Any]) -> dict[str, Any]:
    """Version and kind; engine and API numbers are strings such as 1.41, held against v1's."""
    version, info = answer["version"], answer["info"]
    components = [str(part.get("Name", "")) for part in version.get("Components") or []]
    root = str(info.get("DockerRootDir", ""))
    return {
        "version": version["Version"],
        "api": version["ApiVersion"],
        "min_api": version.get("MinAPIVersion", "1.12"),
        "kind": "podman" if any("podman" in name.lower() for name in components) else "docker",
        "rootless": "name=rootless" in (info.get("SecurityOptions") or []),
        "snap": root.startswith(("/var/snap/", "/snap/")),
        "root": root,
        "name": str(info.get("Name") or platform.node()),
    }
