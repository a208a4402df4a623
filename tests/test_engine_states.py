"""Every state of a host's engine either works or is one problem with the way out.

The kind of fault: an engine was judged by a client on PATH. Here whole hosts are made of real files
and, where an engine runs, of a real server on a socket: every combination of engine, clients,
compose, endpoint, privilege and system. What is expected follows from what the host is made of.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import platform
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from celray.compose import choose_compose
from celray.preflight import engine
from parts import load

celray_host: Any = load("roles/host_facts/library/celray_host.py")
celray_engine: Any = celray_host.celray_engine
starter: Any = load("roles/docker/library/celray_engine_start.py")

HERE = platform.node()
ENGINES: dict[str, dict[str, Any]] = {
    "docker": {},
    "newest docker": {"Version": "29.1.0", "ApiVersion": "1.52", "MinAPIVersion": "1.44"},
    "rootless": {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]},
    "snap": {"DockerRootDir": "/var/snap/docker/common/var-lib-docker"},
    "podman": {"Components": [{"Name": "Podman Engine"}]},
    "another machine": {"Name": "other-host"},
}
#: What is at the socket, or what there is of an engine that is not running.
STATES = (*ENGINES, "absent", "stopped", "masked", "dead socket", "hung")
RUNNING = tuple(ENGINES)
#: The API versions that a client speaks: it negotiates downwards, to a floor.
CLIENTS = {
    "old": (1.12, 1.38),
    "distribution": (1.12, 1.41),
    "stray": (1.24, 1.50),
    "newest": (1.44, 1.52),
}


class Engine(socketserver.ThreadingUnixStreamServer):
    """The part of an engine that answers who it is."""

    daemon_threads = True
    answers: dict[str, Any]


class Answer(BaseHTTPRequestHandler):
    """GET /version and GET /info."""

    def do_GET(self) -> None:
        """As the engine does."""
        assert isinstance(self.server, Engine)
        body = json.dumps(self.server.answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A socket of this family has no address."""
        return "local"

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@dataclass
class Host:
    """A host made of files below one folder."""

    root: Path
    state: str = "absent"

    def program(self, path: str, script: str) -> Path:
        """An executable of this host."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def client(self, kind: str, path: str = "usr/local/bin/docker") -> Path:
        """A docker that speaks a range of versions, as its kind does."""
        if kind == "podman":
            return self.program(path, 'exec /usr/bin/podman "$@"')
        oldest, newest = CLIENTS[kind]
        engine = self.engine()
        fits = self.state in RUNNING and (
            float(engine["MinAPIVersion"]) <= newest and oldest <= float(engine["ApiVersion"])
        )
        said = f"echo '{json.dumps(engine)}'" if fits else "echo 'wrong version' >&2; exit 1"
        compose = f"[ -e {self.root}/plugin ] && echo 2.26.1 || exit 1"
        return self.program(
            path,
            f"case $1 in version) {said};; compose) {compose};; esac",
        )

    def engine(self) -> dict[str, Any]:
        """What the engine says of its version."""
        plain = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
        return plain | {k: v for k, v in ENGINES.get(self.state, {}).items() if k in plain}

    def look(self, **environ: str) -> dict[str, Any]:
        """The engine and compose as celray_host sees them."""
        run = functools.partial(run_here)
        environ = {"PATH": "", **environ}
        engine = celray_engine.look(run, sudo=False, environ=environ)
        module = Module()
        compose = {
            **celray_host.look_at_standalone_compose(module, environ),
            **celray_host.look_at_plugin(module, engine),
        }
        return {"engine": engine, "compose": compose}


def run_here(*argv: str, timeout: int = 20) -> tuple[int, str, str]:
    """As the module runs a program."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout)
    except FileNotFoundError:
        return 127, "", "not found"
    return done.returncode, done.stdout.strip(), done.stderr.strip()


class Module:
    """What look_at_… needs of Ansible's module."""

    def run_command(self, argv: list[str], **_: Any) -> tuple[int, str, str]:
        """As Ansible does."""
        return run_here(*argv)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Host]]:
    """Makes hosts, one after the other."""
    with short_folder() as folder:
        servers: list[Engine] = []

        def make(state: str) -> Host:
            root = tmp_path / hashlib.sha256(os.urandom(8)).hexdigest()[:8]
            root.mkdir()
            made = Host(root, state)
            sock = folder / root.name
            monkeypatch.setattr(celray_engine, "SOCKET", str(sock))
            places = [str(root / p) for p in ("usr/local/bin", "usr/sbin", "usr/bin", "snap/bin")]
            monkeypatch.setattr(celray_engine, "PROGRAM_DIRS", tuple(places))
            monkeypatch.setattr(celray_engine, "PACKAGE_LISTS", str(root / "dpkg"))
            monkeypatch.setattr(celray_engine, "SYSTEMD", str(root / "systemd"))
            monkeypatch.setattr(celray_engine, "LOG", str(root / "docker.log"))
            monkeypatch.setattr(celray_engine, "ASK_SECONDS", 0.1)
            monkeypatch.setenv("HOME", str(root))
            monkeypatch.delenv("DOCKER_HOST", raising=False)
            monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
            monkeypatch.delenv("DOCKER_CONFIG", raising=False)
            if state != "absent":
                made.program("usr/sbin/dockerd", "exit 1")
                (root / "dpkg").mkdir()
                (root / "dpkg/docker.io.list").touch()
            if state in RUNNING:
                server = Engine(str(sock), Answer)
                server.answers = answers_of(made)
                threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
                servers.append(server)
            elif state in ("dead socket", "hung"):
                silent = socketserver.UnixStreamServer(str(sock), Answer)
                if state == "dead socket":
                    silent.server_close()
                else:
                    made.silent = silent  # type: ignore[attr-defined]  # kept open, never served
            elif state == "masked":
                (root / "systemd").mkdir()
                states = "LoadState=masked\nActiveState=inactive\nSubState=dead"
                made.program("bin/systemctl", f"printf '{states}\\n'")
                monkeypatch.setenv("PATH", f"{root}/bin:{os.environ['PATH']}")
            return made

        yield make
        for server in servers:
            server.shutdown()
            server.server_close()


def short_folder() -> Any:
    """A socket's path may have 107 characters; pytest's own folders are longer."""
    import contextlib  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    @contextlib.contextmanager
    def folder() -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as path:
            yield Path(path)

    return folder()


def answers_of(host: Host) -> dict[str, Any]:
    special = ENGINES[host.state]
    info = {"Name": HERE, "DockerRootDir": "/var/lib/docker", "SecurityOptions": []}
    return {
        "/version": {
            **host.engine(),
            "Components": special.get("Components", [{"Name": "Engine"}]),
        },
        "/info": info | {k: v for k, v in special.items() if k in info},
    }


def judged(look: dict[str, Any], *, sudo: bool = True, system: str = "debian 13") -> list[Any]:
    name, _, number = system.partition(" ")
    whole = {
        "user": "op",
        "hostname": HERE,
        "sudo": sudo,
        "os": {"id": name, "id_like": "", "version_id": number},
        **look,
    }
    found = engine.check(whole, "auto")
    for problem in found:
        assert problem.what
        assert problem.source
        assert problem.fix
    return [(problem.what, problem.source, problem.fix) for problem in found]


CLIENT_SETS: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (),
    "distribution": (("distribution", "usr/bin/docker"),),
    "stray newer": (("stray", "usr/local/bin/docker"),),
    "stray older beside the distribution's": (
        ("old", "usr/local/bin/docker"),
        ("newest", "usr/bin/docker"),
    ),
    "stray too new beside the distribution's": (
        ("newest", "usr/local/bin/docker"),
        ("distribution", "usr/bin/docker"),
    ),
    "podman": (("podman", "usr/bin/docker"),),
    "podman before the distribution's": (
        ("podman", "usr/local/bin/docker"),
        ("distribution", "usr/bin/docker"),
    ),
}
WRONG = {
    "rootless": "rootless",
    "snap": "snap",
    "podman": "podman",
    "another machine": "other-host",
    "masked": "systemctl unmask",
}
ACCESS = {
    "absent": "absent",
    "stopped": "stopped",
    "masked": "stopped",
    "dead socket": "stopped",
    "hung": "stopped",
}


SYSTEMS = ("debian 12", "debian 13", "alpine 3")


def words_for(state: str, clients: str, engine: dict[str, Any], *, sudo: bool, system: str) -> str:
    """What the one problem of such a host says; "" where the host works."""
    access = ACCESS.get(state, "direct")
    podman = state == "absent" and clients.startswith("podman")
    running = access == "direct"
    # Compose comes with a client, or is installed where that can be.
    foreign = system == "alpine 3" and (state == "absent" or not engine["path"])
    cases = {
        WRONG.get(state, ""): state in WRONG,
        "apt-get remove podman-docker": podman,
        "has no privilege to change that": not running and not sudo,
        "celray cannot install it on alpine": not running and foreign,
        "no docker command fits it": running and not engine["path"] and system != "debian 13",
        "compose is missing and op@": running and not engine["path"] and not sudo,
    }
    return next((words for words, holds in cases.items() if holds), "")


@pytest.mark.parametrize("state", STATES)
def test_every_engine_with_every_set_of_clients_works_or_is_one_problem(
    state: str, host: Callable[..., Host]
) -> None:
    """States of the engine times clients times privilege times system."""
    for clients, kinds in CLIENT_SETS.items():
        made = host(state)
        for kind, path in kinds:
            made.client(kind, path)
        (made.root / "plugin").touch()
        look = made.look()
        engine = look["engine"]
        assert engine["access"] == ACCESS.get(state, "direct"), (state, clients)
        if engine["access"] == "direct" and engine["path"]:
            # Whichever client comes first on PATH: the chosen one reaches the engine.
            assert run_here(engine["path"], "version")[0] == 0
        for sudo, system in itertools.product((True, False), SYSTEMS):
            found = judged(look, sudo=sudo, system=system)
            expected = words_for(state, clients, engine, sudo=sudo, system=system)
            text = " ".join(found[0]) if found else ""
            case = (state, clients, sudo, system, found)
            assert len(found) == bool(expected), case
            assert expected in text, case


def test_a_stray_client_is_no_engine(host: Callable[..., Host]) -> None:
    """The README's first command failed on this: a client of version 28, and no engine."""
    made = host("absent")
    made.client("stray")
    look = made.look()
    assert look["engine"]["access"] == "absent"
    assert judged(look) == []


def test_the_client_that_fits_is_chosen_not_the_first_on_path(host: Callable[..., Host]) -> None:
    made = host("docker")
    made.client("newest", "usr/local/bin/docker")
    fits = made.client("distribution", "usr/bin/docker")
    assert made.look(PATH=str(made.root / "usr/local/bin"))["engine"]["path"] == str(fits)


def test_an_engine_without_a_client_gets_the_distributions(host: Callable[..., Host]) -> None:
    look = host("docker").look()
    assert look["engine"]["path"] == ""
    assert judged(look, system="debian 13") == []
    ((what, _, fix),) = judged(look, system="debian 12")
    assert "answers, but no docker command fits it (there is none)" in what
    assert "install the docker client" in fix


ELSEWHERE = {
    "DOCKER_HOST over TCP": {"DOCKER_HOST": "tcp://192.0.2.7:2375"},
    "DOCKER_HOST over SSH": {"DOCKER_HOST": "ssh://deploy@192.0.2.7"},
    "DOCKER_HOST at loopback, which may be a tunnel": {"DOCKER_HOST": "tcp://127.0.0.1:2375"},
    "DOCKER_HOST of another socket": {"DOCKER_HOST": "unix:///srv/forwarded.sock"},
    "DOCKER_CONTEXT": {"DOCKER_CONTEXT": "lab"},
    "a context in config.json": {},
    "a context that is gone": {"DOCKER_CONTEXT": "gone"},
    "both, where DOCKER_HOST wins": {
        "DOCKER_HOST": "tcp://192.0.2.7:2375",
        "DOCKER_CONTEXT": "lab",
    },
}


@pytest.mark.parametrize("setting", ELSEWHERE)
@pytest.mark.parametrize("state", ["docker", "absent", "stopped", "podman"])
def test_an_endpoint_elsewhere_is_refused_before_anything_else(
    setting: str, state: str, host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = host(state)
    made.client("stray")
    meta = made.root / ".docker/contexts/meta" / hashlib.sha256(b"lab").hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Endpoints": {"docker": {"Host": "tcp://192.0.2.8:2376"}}}
    (meta / "meta.json").write_text(json.dumps(endpoint))
    if not ELSEWHERE[setting]:
        (made.root / ".docker/config.json").write_text('{"currentContext": "lab"}')
    for name, value in ELSEWHERE[setting].items():
        monkeypatch.setenv(name, value)
    look = made.look()
    ((what, source, fix),) = judged(look)
    address, _ = look["engine"]["endpoint"]
    assert address in what
    assert "not the engine of" in what
    assert source == look["engine"]["endpoint"][1]
    assert "make deploy HOST=" in fix
    assert ("unset DOCKER_" in fix) == bool(ELSEWHERE[setting])
    whole = {"user": "op", "hostname": HERE, **look}
    assert engine.wrong_machine(whole), "operations that do not judge refuse it too"


@pytest.mark.parametrize(
    ("setting", "content"),
    [
        ({}, '{"currentContext": "default"}'),
        ({}, '{"auths": {}}'),
        ({}, "not JSON"),
        ({"DOCKER_HOST": "unix://SOCKET"}, "{}"),
        ({"DOCKER_HOST": ""}, "{}"),
        ({"DOCKER_CONTEXT": "default"}, '{"currentContext": "lab"}'),
    ],
)
def test_an_endpoint_that_is_this_engine_is_fine(
    setting: dict[str, str],
    content: str,
    host: Callable[..., Host],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = host("docker")
    made.client("distribution")
    (made.root / "plugin").touch()
    (made.root / ".docker").mkdir()
    (made.root / ".docker/config.json").write_text(content)
    for name, value in setting.items():
        monkeypatch.setenv(name, value.replace("SOCKET", celray_engine.SOCKET))
    assert judged(made.look()) == []


@pytest.mark.parametrize("state", ["absent", "docker", "podman"])
@pytest.mark.parametrize("path", ["/run/podman/podman.sock", "/run/user/1000/podman/podman.sock"])
def test_what_podmans_package_sets_for_every_login_is_named_as_podman(
    state: str, path: str, host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen on Debian 13: podman-docker brings /etc/profile.d/podman-docker.sh."""
    made = host(state)
    made.client("podman", "usr/bin/docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    ((what, source, fix),) = judged(made.look())
    assert f"is podman (unix://{path})" in what
    assert source == "DOCKER_HOST in the environment"
    assert "apt-get remove podman-docker" in fix
    assert "log in again" in fix


def test_a_rootless_endpoint_is_named_as_that(
    host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = host("absent")
    made.client("stray")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    ((what, _, fix),) = judged(made.look())
    assert "rootless" in what
    assert "systemctl --user disable --now docker" in fix


COMPOSES = {
    "none": {},
    "v1": {"docker-compose": "1.29.2"},
    "standalone v2": {"docker-compose": "v2.26.1"},
}


@pytest.mark.parametrize("plugin", [True, False])
@pytest.mark.parametrize("compose", COMPOSES)
@pytest.mark.parametrize("state", ["docker", "newest docker"])
def test_each_compose_works_or_is_one_problem(
    state: str, compose: str, plugin: bool, host: Callable[..., Host]
) -> None:
    made = host(state)
    made.client("newest" if state == "newest docker" else "distribution", "usr/bin/docker")
    if plugin:
        (made.root / "plugin").touch()
    for name, version in COMPOSES[compose].items():
        made.program(f"usr/local/bin/{name}", f"echo {version}")
    look = made.look()
    chosen = choose_compose(look["compose"], "auto")
    if plugin or compose == "standalone v2":
        assert chosen
        assert chosen["generation"] == "v2"
        assert chosen["command"][-1].endswith("compose")
        assert judged(look) == []
    elif state == "newest docker" and compose == "v1":
        ((what, _, _),) = judged(look)
        assert "cannot talk to engine 29.1.0" in what
    elif state == "newest docker":
        assert judged(look, system="debian 13") == []
        ((what, _, _),) = judged(look, system="debian 12")
        assert "the v1 that debian 12 has cannot talk to engine 29.1.0" in what
    else:
        assert judged(look) == []
    for problem in judged(look, sudo=False):
        assert chosen is None or "cannot talk" in problem[0]


def test_a_compose_that_does_not_run_is_none(host: Callable[..., Host]) -> None:
    made = host("docker")
    made.program("usr/local/bin/docker-compose", "exit 127")
    made.program("usr/bin/docker-compose", "echo 1.29.2")
    assert set(made.look()["compose"]) == {"v1"}


# --- starting -------------------------------------------------------------------------------------

CRASHES = {
    "a daemon.json that is no JSON": (
        (
            "echo 'unable to configure the Docker daemon with file /etc/docker/daemon.json: "
            "invalid character' >&2; exit 1"
        ),
        "unable to configure the Docker daemon with file /etc/docker/daemon.json",
    ),
    "no cgroups": ("echo 'Devices cgroup isn'\"'\"'t mounted'; exit 3", "cgroup isn't mounted"),
    "silence": ("exit 2", "exit code 2"),
}


@pytest.fixture
def no_init_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(starter, "INIT_SCRIPT", str(tmp_path / "none"))
    monkeypatch.setattr(starter.celray_engine, "LAST_LINES", 12)


@pytest.mark.usefixtures("no_init_script")
@pytest.mark.parametrize("crash", CRASHES)
def test_an_engine_that_ends_at_start_shows_its_last_lines_at_once(
    crash: str, host: Callable[..., Host]
) -> None:
    script, words = CRASHES[crash]
    made = host("stopped")
    made.program("usr/sbin/dockerd", script)
    with pytest.raises(starter.StartError) as said:
        # An hour: nothing waits for an engine that has ended.
        starter.start(run_here, str(made.root / "docker.log"), 3600)
    assert words in str(said.value)
    assert "way out" in str(said.value)


def test_an_engine_that_systemd_cannot_start_shows_its_journal(
    host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = host("stopped")
    (made.root / "systemd").mkdir()
    made.program(
        "bin/systemctl",
        "[ $1 != enable ] || { echo 'Job for docker.service failed' >&2; exit 1; }",
    )
    made.program("bin/journalctl", "echo 'failed to start daemon: no space left on device'")
    monkeypatch.setenv("PATH", f"{made.root}/bin:{os.environ['PATH']}")
    with pytest.raises(starter.StartError) as said:
        starter.start(run_here, "/nowhere", 3600)
    assert "Job for docker.service failed" in str(said.value)
    assert "no space left on device" in str(said.value)


@pytest.mark.usefixtures("no_init_script")
def test_an_engine_that_comes_up_is_waited_for_and_an_engine_that_runs_is_left_alone(
    host: Callable[..., Host],
) -> None:
    made = host("docker")
    log = made.root / "docker.log"
    assert starter.start(run_here, str(log), 60) == "running"
    assert not log.exists()


@pytest.mark.usefixtures("no_init_script")
def test_a_client_without_an_engine_cannot_be_started(host: Callable[..., Host]) -> None:
    made = host("absent")
    made.client("stray")
    with pytest.raises(starter.StartError, match="no dockerd on this host"):
        starter.start(run_here, str(made.root / "docker.log"), 60)


@pytest.mark.usefixtures("no_init_script")
@pytest.mark.skipif(
    shutil.which("dockerd", path="/usr/sbin:/usr/bin") is None or os.getuid() != 0,
    reason="needs the real dockerd, as root",
)
def test_the_real_engine_that_cannot_start_says_why(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    """The real dockerd, with a configuration that it refuses before it touches anything."""
    made = host("stopped")
    real = shutil.which("dockerd", path="/usr/sbin:/usr/bin")
    config = tmp_path / "daemon.json"
    config.write_text("{ not json")
    made.program("usr/sbin/dockerd", f"exec {real} --config-file {config}")
    with pytest.raises(starter.StartError, match=r"daemon\.json"):
        starter.start(run_here, str(made.root / "docker.log"), 3600)
