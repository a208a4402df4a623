"""A host that a deployment would fail on: one problem that names it before anything changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from celray.compose import choose_compose
from celray.preflight import engine
from celray.preflight.connection import connection_problem
from celray.preflight.identity import check_identity
from celray.preflight.machine import check_names, check_size
from celray.preflight.ports import check_port_range, check_ports
from celray.preflight.storage import check_paths

PATHS = ["celray_home"]
PORTS = {"celray_port_redis": 6380, "celray_port_flower": 5555}
PLACE = {
    "path": "/home/op/celray",
    "parent": "/home/op",
    "is_directory": True,
    "writable": True,
    "read_only_mount": False,
    "free_mb": 50_000,
}
HOST: dict[str, Any] = {
    "user": "op",
    "uid": 1000,
    "gid": 1000,
    "service": {"uid": 10001, "gid": 10001},
    "free_id": 10003,
    "owners": {"uid": "", "gid": ""},
    "hostname": "gpu-7",
    "sudo": True,
    "os": {"id": "debian", "id_like": "", "version_id": "12"},
    "memory_mb": 16_000,
    "skew_seconds": 0.2,
    "engine": {
        "path": "/usr/bin/docker",
        "clients": [{"path": "/usr/bin/docker", "kind": "docker"}],
        "clients_failed": [],
        "daemon": "/usr/sbin/dockerd",
        "package": "docker.io",
        "kind": "docker",
        "rootless": False,
        "name": "gpu-7",
        "endpoint": [],
        "units": {},
        "last_lines": [],
        "socket": "/var/run/docker.sock",
        "snap": False,
        "access": "direct",
        "error": "",
        "version": "20.10.24",
        "min_api": "1.12",
    },
    "compose": {"v1": {"command": ["docker-compose"], "version": "1.29.2"}},
    "containers": [],
    "ports": {},
    "paths": [PLACE],
    "docker_root": {**PLACE, "path": "/var/lib/docker"},
}
SPACE = {"celray_home": 2048, "the engine's data": 8192}


def problems_of(host: dict[str, Any], wanted: str = "auto") -> list[str]:
    found = engine.check(host, wanted)
    found += check_ports(host, PORTS, {})
    found += check_names(host, ["redis-celery", "ray-head"])
    found += check_paths(host, PATHS, SPACE)
    found += check_size(host, 3500)
    assert all(problem.source and problem.fix for problem in found)
    return [str(problem) for problem in found]


def put(*path: str | int, **values: Any) -> Callable[[dict[str, Any]], None]:
    """A change to the healthy host: the mapping at a path gets these values."""

    def change(host: Any) -> None:
        for key in path:
            host = host[key]
        host.update(values)

    return change


def absent_without_sudo(host: dict[str, Any]) -> None:
    host.update(sudo=False, compose={})
    host["engine"].update(path="", clients=[], kind="", access="absent")


def unknown_system(host: dict[str, Any]) -> None:
    host.update(os={"id": "alpine", "id_like": ""}, compose={})
    host["engine"].update(path="", clients=[], kind="", access="absent")


def somebody_elses_redis(host: dict[str, Any]) -> None:
    host["containers"] = [{"name": "redis-celery", "project": "", "state": "running"}]


TROUBLE: dict[str, tuple[Callable[[dict[str, Any]], None], tuple[str, ...]]] = {
    "snap Docker": (
        put("engine", snap=True, path="/snap/bin/docker"),
        ("/snap/bin/docker", "snap", "operation not permitted", "snap remove docker"),
    ),
    "no access to the engine": (
        put("engine", access="denied", error="permission denied on the socket"),
        ("op@gpu-7", "permission denied on the socket", "usermod -aG docker op"),
    ),
    "no engine and no privilege": (
        absent_without_sudo,
        ("is not installed", "op@gpu-7 has no privilege", "sudo without a password"),
    ),
    "a stopped engine and no privilege": (
        lambda host: (
            put("engine", access="stopped", error="no socket")(host),
            put(sudo=False)(host),
        )[0],
        ("does not answer (no socket)", "op@gpu-7"),
    ),
    "a system without packages for it": (unknown_system, ("alpine", "install Docker")),
    "v1 with an engine that refuses it": (
        put("engine", version="29.1.0", min_api="1.44"),
        ("docker-compose 1.29.2", "engine 29.1.0", "1.44", "v1 speaks 1.38", "Compose v2"),
    ),
    "a port that a process has": (
        put("ports", **{"5555": {"pid": 42, "name": "nginx", "container": ""}}),
        ("port 5555 is taken by nginx (pid 42)", "celray_port_flower", "free port"),
    ),
    "a port that another user's process has": (
        put("ports", **{"6380": None}),
        ("port 6380 is taken by a process of another user", "celray_port_redis"),
    ),
    "a container with our name": (somebody_elses_redis, ("redis-celery", "not celray's")),
    "a path that cannot be written": (
        put("paths", 0, writable=False),
        ("/home/op/celray cannot be created: op may not write /home/op", "celray_home", "chown op"),
    ),
    "a path that is not absolute": (
        put("paths", 0, path="data/celray"),
        ("data/celray cannot be created: it does not begin with /", "celray_home", "whole path"),
    ),
    "a read-only file system": (
        put("paths", 0, read_only_mount=True, writable=False),
        ("/home/op is on a read-only file system", "celray_home", "elsewhere"),
    ),
    "a file where a directory is needed": (
        put("paths", 0, is_directory=False),
        ("/home/op is not a directory",),
    ),
    "a full disk": (
        put("paths", 0, free_mb=100),
        ("/home/op/celray has 100 MB free, 2048 MB are needed", "preflight_min_free_mb"),
    ),
    "a full disk below the engine": (
        put("docker_root", free_mb=100),
        ("/var/lib/docker has 100 MB free, 8192 MB are needed",),
    ),
    "little memory": (
        put(memory_mb=1024),
        ("gpu-7 has 1024 MB of memory, 3500 MB are needed", "preflight_min_memory_mb"),
    ),
}


def test_a_healthy_host_has_no_problem() -> None:
    assert problems_of(HOST) == []


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_is_one_problem_that_names_it_and_the_way_out(trouble: str) -> None:
    change, words = TROUBLE[trouble]
    host = copy.deepcopy(HOST)
    change(host)
    (problem,) = problems_of(host)
    for word in words:
        assert word in problem


@pytest.mark.parametrize("skew", [95.0, -95.0])
def test_a_clock_that_is_off_is_named_with_how_much(skew: float) -> None:
    (problem,) = problems_of({**HOST, "skew_seconds": skew})
    assert f"the clock of gpu-7 is {skew:+.0f} s off" in problem
    assert problems_of({**HOST, "skew_seconds": skew / 10}) == []


def test_asking_for_a_generation_that_is_not_there_is_named() -> None:
    (problem,) = problems_of(HOST, wanted="v2")
    assert "compose v2 is asked for, but only v1 is there" in problem
    assert "celray_compose" in problem


def test_v2_is_taken_where_both_are_there_and_v1_where_it_is_asked_for() -> None:
    both = {**HOST["compose"], "v2": {"command": ["docker", "compose"], "version": "2.26.1"}}
    newest, asked = choose_compose(both, "auto"), choose_compose(both, "v1")
    assert newest
    assert newest["generation"] == "v2"
    assert asked
    assert asked["command"] == ["docker-compose"]
    assert choose_compose({}, "auto") is None


def test_what_can_be_installed_here_is_no_problem() -> None:
    host = copy.deepcopy(HOST)
    host.update(compose={})
    host["engine"].update(path="", clients=[], kind="", access="absent")
    assert problems_of(host) == []


def test_a_port_of_our_own_running_service_is_no_problem() -> None:
    owner = {"pid": 7, "name": "redis-server", "container": "a" * 64}
    host = {**HOST, "ports": {"6380": owner}}
    assert check_ports(host, PORTS, {"a" * 64: "redis"}) == []
    assert len(check_ports(host, PORTS, {"b" * 64: "redis"})) == 1


def test_a_port_whose_owner_only_root_could_see_is_its_running_services() -> None:
    host = {**HOST, "ports": {"6380": None}}
    assert check_ports(host, PORTS, {"a" * 64: "redis"}) == []
    assert len(check_ports(host, PORTS, {"a" * 64: "flower"})) == 1


@pytest.mark.parametrize("port", ["6380", 0, 70_000, None, [1]])
def test_what_is_no_port_is_named(port: Any) -> None:
    (problem,) = check_ports(HOST, {"celray_port_redis": port}, {})
    assert f"celray_port_redis is {port!r}, not a port" in str(problem)


def test_one_port_for_two_services_is_named_with_both() -> None:
    ports = {"celray_port_redis": 7000, "celray_port_flower": 7000}
    (problem,) = check_ports(HOST, ports, {})
    assert "port 7000 is given to celray_port_redis and celray_port_flower" in str(problem)


RANGE = {"celray_port_ray_workers_first": 11002, "celray_port_ray_workers_last": 19999}


@pytest.mark.parametrize("port", [11002, 15000, 19999])
def test_a_port_that_ray_workers_may_take_is_refused(port: int) -> None:
    (problem,) = check_port_range({"celray_port_redis": port}, RANGE)
    assert f"port {port} lies in the range 11002 to 19999" in str(problem)
    assert "set celray_port_redis to a port outside" in str(problem)


def test_ports_beside_the_range_and_hosts_without_ray_are_fine() -> None:
    assert check_port_range({"a": 11001, "b": 20000, "c": "x"}, RANGE) == []
    assert check_port_range({"a": 15000}, {}) == []


def test_a_range_upside_down_is_named() -> None:
    (problem,) = check_port_range({}, {"first": 19999, "last": 11002})
    assert "first and last" in str(problem)


ANSWERS = {
    "a wrong user": (
        "Failed to connect: warning: x\nop@10.0.0.84: Permission denied (publickey).",
        ("10.0.0.84 refuses user op", "SSH_USER", "ssh-copy-id op@10.0.0.84"),
    ),
    "an unknown host key": (
        "Host key verification failed.",
        ("10.0.0.84 is not in known_hosts", "ssh 10.0.0.84 once"),
    ),
    "a host that is down": (
        "ssh: connect to host 10.0.0.84 port 22: No route to host",
        ("10.0.0.84 cannot be reached", "No route to host", "HOST / ansible_host"),
    ),
    "silence": ("", ("10.0.0.84 cannot be reached: no answer",)),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_host_that_cannot_be_reached_is_named_with_the_reason(answer: str) -> None:
    error, words = ANSWERS[answer]
    problem = str(connection_problem(error, "10.0.0.84", "op"))
    for word in words:
        assert word in problem


@pytest.mark.parametrize("deployer", [0, 1000])
@pytest.mark.parametrize("asked", ["unasked", 0, 1000, 10001, 10002, -1, "x", True, None, "10002"])
@pytest.mark.parametrize("owner", ["", "bob", "celray"])
def test_the_containers_user_is_nobody_elses(deployer: int, asked: Any, owner: str) -> None:
    """Every deployer with every wish and every owner: it is fine, or one problem that names it."""
    host = {**HOST, "uid": deployer, "gid": deployer, "owners": {"uid": owner, "gid": ""}}
    found = [str(p) for p in check_identity(host, {} if asked == "unasked" else {"uid": asked})]
    number = (deployer or 10001) if asked == "unasked" else asked
    if isinstance(asked, bool) or asked in ("x", None, -1):
        assert "not a number" in found[0]
    elif number == 0:
        assert "would run as root" in found[0]
    elif int(number) == deployer or owner in ("", "celray"):
        assert found == []
    else:
        assert f"uid {number}, as which the containers would run, is bob's on gpu-7" in found[0]
        assert "set celray_uid and celray_gid to 10003" in found[0]
        assert ("kept from an earlier deploy" in found[0]) == (asked == "unasked")
    assert len(found) <= 1


def test_a_group_may_be_shared_on_purpose_and_is_never_roots() -> None:
    host = {**HOST, "uid": 0, "gid": 0, "owners": {"uid": "", "gid": "staff"}}
    assert check_identity(host, {"uid": 10003, "gid": 50}) == []
    (problem,) = check_identity(host, {"uid": 10003, "gid": 0})
    assert "celray_gid is 0" in str(problem)
    (problem,) = check_identity(host, {})
    assert "gid 10001, as which the containers would run, is staff's" in str(problem)
