"""What host_facts sees of the machine that it runs on: of the host, and of what is used there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parts import load, run_module

MODULE = "roles/host_facts/library/celray_host.py"
RESOURCES = "roles/host_facts/library/celray_resources.py"
celray_host: Any = load(MODULE)
celray_resources: Any = load(RESOURCES)
celray_look: Any = celray_host.celray_look


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that this process listens on."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        server = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    with server:
        yield server.getsockname()[1]


def test_a_listening_port_is_found_with_its_process(listening: int) -> None:
    owner = run_module(RESOURCES, {"ports": [listening]})["ports"][str(listening)]
    assert owner["pid"] == os.getpid()
    assert owner["name"] == Path("/proc/self/comm").read_text().strip()


def test_a_port_of_an_outgoing_connection_is_not_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        port = client.getsockname()[1]
        assert run_module(RESOURCES, {"ports": [port]})["ports"] == {}


def test_the_scan_is_a_program_of_its_own() -> None:
    """Under sudo it runs without Ansible and without this package."""
    scope: dict[str, Any] = {}
    exec(celray_resources.SCAN_SOURCE, scope)  # noqa: S102 - as the module does
    assert scope["listeners"](set()) == {}


def test_the_user_memory_and_processors_are_this_machines() -> None:
    host = run_module(MODULE, {})["host"]
    assert host["uid"] == os.getuid()
    assert host["hostname"] == socket.gethostname()
    assert host["cpus"] == len(os.sched_getaffinity(0))
    assert 0 < host["memory_available_mb"] <= host["memory_mb"]
    assert host["engine"]["access"] in ("direct", "sudo", "stopped", "denied", "absent")


def test_looking_is_the_same_in_check_mode() -> None:
    looked = run_module(MODULE, {}, check=True)
    assert looked["changed"] is False
    assert looked["host"]["user"]
    looked = run_module(RESOURCES, {"ports": [1]}, check=True)
    assert (looked["changed"], looked["ports"]) == (False, {})


def test_the_distribution_is_read_without_its_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'ID=ubuntu\nID_LIKE="debian rhel"\nVERSION_ID="24.04"\n# a comment\nNAME=x'
    monkeypatch.setattr(celray_look, "read_first", lambda *_: text)
    assert celray_host.os_release() == {
        "id": "ubuntu",
        "id_like": "debian rhel",
        "version_id": "24.04",
        "version_codename": "",
    }


def test_a_path_is_judged_by_its_nearest_directory(tmp_path: Path) -> None:
    assert celray_look.nearest_parent(str(tmp_path / "a/b/c")) == str(tmp_path)
    look = celray_look.look_at_path(str(tmp_path / "a/b"))
    assert look["parent"] == str(tmp_path)
    assert look["is_directory"]
    assert look["writable"]
    assert not look["read_only_mount"]
    assert look["free_mb"] > 0


def test_a_path_that_is_not_absolute_is_looked_at_too() -> None:
    assert celray_look.look_at_path("relative/path")["parent"] == "/"


def test_a_file_in_the_way_of_a_directory_is_seen(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not celray_look.look_at_path(str(tmp_path / "file/a"))["is_directory"]


def test_a_read_only_file_system_is_seen() -> None:
    read_only = next(
        (
            row.split()[1]
            for row in Path("/proc/mounts").read_text().splitlines()
            if "ro" in row.split()[3].split(",") and os.access(row.split()[1], os.R_OK)
        ),
        None,
    )
    if read_only is None:
        pytest.skip("this machine mounts nothing read-only")
    assert celray_look.look_at_path(f"{read_only}/celray")["read_only_mount"]


def test_the_uplinks_mtu_is_that_of_the_default_route(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/net/route": "Iface Destination\neth1 0000FEA9\neth0 00000000 x\n",
        "/sys/class/net/eth0/mtu": "1450",
    }
    monkeypatch.setattr(
        celray_look, "read_first", lambda path, default="": files.get(path, default)
    )
    assert celray_host.uplink_mtu() == 1450
    files["/proc/net/route"] = ""
    assert celray_host.uplink_mtu() == 1500


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Who has an account here; a test adds some."""
    there: dict[int, str] = {}

    def find(number: int) -> Any:
        return SimpleNamespace(pw_name=there[number], gr_name=there[number])

    monkeypatch.setattr(celray_resources.pwd, "getpwuid", find)
    monkeypatch.setattr(celray_resources.grp, "getgrgid", find)
    monkeypatch.setattr(celray_look, "read_first", lambda *_: "bob:10002:2\nno line\na:b:c")
    return there


def test_the_services_number_is_the_first_that_is_nobodys(accounts: dict[int, str]) -> None:
    assert celray_resources.look_at_identity([], {})["service"] == {"uid": 10001, "gid": 10001}
    accounts.update({10001: "bob", 10004: "eve"})
    # 10002 and 10003 are numbers that bob hands to containers.
    found = celray_resources.look_at_identity(["/nowhere"], {"uid": None, "gid": "none of ours"})
    assert found["service"] == {"uid": 10005, "gid": 10005}
    assert found["owners"] == {"uid": "", "gid": ""}


@pytest.mark.skipif(os.getuid() != 0, reason="gives a directory away")
def test_the_services_number_is_kept(accounts: dict[int, str], tmp_path: Path) -> None:
    """Also when it has become somebody's: that is for a person to decide."""
    ours, roots = tmp_path / "redis", tmp_path / "projects"
    for path in (ours, roots):
        path.mkdir()
    os.chown(ours, 10001, 10009)
    kept = [str(roots), str(ours)]
    assert celray_resources.look_at_identity(kept, {})["service"] == {"uid": 10001, "gid": 10009}
    accounts[10001] = "bob"
    found = celray_resources.look_at_identity(kept, {"uid": None})
    assert found["service"] == {"uid": 10001, "gid": 10009}
    assert found["owners"] == {"uid": "bob", "gid": ""}
    assert found["free_id"] == 10004


def test_an_account_that_the_inventory_asks_for_is_named(accounts: dict[int, str]) -> None:
    accounts[7000] = "celray"
    assert celray_resources.look_at_identity([], {"uid": 7000})["owners"]["uid"] == "celray"
