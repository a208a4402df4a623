"""What only all hosts together can get wrong: each mistake is one problem, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from celray.preflight.fleet import (
    check_addresses,
    check_consumers,
    check_group_names,
    check_machines,
    check_needs,
    check_node_reach,
    check_owners,
    check_ray_nodes,
    check_reach,
    check_seen,
    check_single,
    tell_behind,
)
from parts import play

SINGLE = [{"name": "redis", "group": "redis"}, {"name": "ray", "group": "ray_head"}]
WORKERS: list[dict[str, Any]] = [
    {"name": "ml", "queues": ["ml"]},
    {"name": "data", "queues": ["data", "spare"]},
    {"name": "spare", "queues": ["spare"]},
]


def test_one_host_for_each_service_is_fine() -> None:
    assert check_single(SINGLE, {"redis": ["a"], "ray_head": ["b"], "flower": ["a", "b"]}) == []
    assert check_single(SINGLE, {"redis": []}) == []


def test_a_second_head_is_refused() -> None:
    (problem,) = check_single(SINGLE, {"redis": ["a"], "ray_head": ["b", "c"]})
    assert "b and c would each run ray, and all hosts would ask b alone" in problem.what
    assert "group ray_head" in problem.source


def test_a_misspelt_group_is_named_and_an_operators_own_is_not() -> None:
    """A deploy left the service out, and said nothing."""
    known = ["redis", "celery_beat", "flower"]
    groups = {"all": ["a"], "redis": ["a"], "flwer": ["a"], "celery": ["a"], "flowr": []}
    (problem,) = check_group_names(groups, known)
    assert "group flwer places no service (did you mean flower?)" in problem.what
    assert check_group_names({**groups, "flower": ["a"]}, known) == []
    of_their_own = {"gpu_worker": ["a"], "my_worker": ["a"], "flowers_db": ["a"]}
    assert check_group_names(of_their_own, [*known, "ray_worker"]) == []


def test_hosts_of_several_kinds_are_named_and_of_one_kind_are_fine() -> None:
    assert check_machines({}) == []
    assert check_machines({"a": "x86_64", "b": "x86_64"}) == []
    (problem,) = check_machines({"a": "x86_64", "b": "aarch64", "c": "x86_64"})
    assert "x86_64 (a and c), aarch64 (b)" in problem.what


@pytest.mark.parametrize(
    "placed", [{}, {"a": ["ml", "data"]}, {"a": ["ml"], "b": ["data"]}, {"a": "ml", "b": ["data"]}]
)
def test_every_queue_is_consumed_by_some_host(placed: dict[str, Any]) -> None:
    assert check_consumers(WORKERS, placed) == []


def test_a_queue_that_no_host_consumes_is_named_with_who_could() -> None:
    first, second = check_consumers(WORKERS, {"a": ["ml"], "b": []})
    assert "no host consumes queue 'data'" in first.what
    assert (first.source, first.fix) == ("celray_worker_names of a, b", "add data to one of them")
    assert "queue 'spare'" in second.what
    assert "add data or spare" in second.fix


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.0.1.1", "localhost"])
def test_loopback_is_no_address_for_others(address: str) -> None:
    groups = {"redis": ["a"], "ray_head": ["a"], "celery_worker": ["a", "b"]}
    (problem,) = check_reach("a", address, SINGLE, groups, {"redis", "celery_worker"})
    assert problem.what == f"b cannot reach redis and ray of a at {address}"
    assert "celray_address of a" in problem.source


@pytest.mark.parametrize(
    ("host", "address", "workers"),
    [
        ("a", "10.0.0.84", ["a", "b"]),
        ("a", "fd00::5", ["b"]),
        ("a", "a.example", ["b"]),
        ("a", "127.0.0.1", ["a"]),
        ("b", "127.0.0.1", ["a", "b"]),
    ],
)
def test_an_address_that_others_reach_or_nobody_needs_is_fine(
    host: str, address: str, workers: list[str]
) -> None:
    groups = {"redis": ["a"], "ray_head": [], "celery_worker": workers}
    assert check_reach(host, address, SINGLE, groups, set(groups)) == []


def service(name: str, *needs: str, elsewhere: bool = False) -> dict[str, Any]:
    return {"name": name, "group": name, "needs": list(needs), "elsewhere": elsewhere}


NEEDING = [service("redis"), service("ray", "redis"), service("workers", "redis", "ray")]


def test_what_a_service_needs_is_placed_somewhere() -> None:
    groups = {"redis": ["a"], "ray": ["b"], "workers": ["c"]}
    assert check_needs(NEEDING, groups) == []
    assert check_needs(NEEDING, {"redis": ["a"], "ray": ["a"]}) == []
    assert check_needs(NEEDING, {}) == []


def test_a_service_that_others_need_and_no_host_runs_is_named_with_them() -> None:
    first, second = check_needs(NEEDING, {"workers": ["c"], "redis": []})
    assert first.what == "no host runs redis, which workers needs"
    assert first.source == "the inventory's group redis"
    assert second.what == "no host runs ray, which workers needs"
    (problem,) = check_needs(NEEDING, {"workers": ["c"], "ray": ["b"]})
    assert problem.what == "no host runs redis, which ray and workers need"


def test_what_others_run_is_placed_nowhere_and_needs_nothing() -> None:
    known = [service("redis"), service("ray", "redis", elsewhere=True), NEEDING[2]]
    assert check_needs(known, {"redis": ["a"], "workers": ["c"]}) == []


def test_two_hosts_that_are_one_machine_are_named() -> None:
    assert check_addresses({"a": "192.0.2.1 port 22", "b": "192.0.2.1 port 2222"}) == []
    (problem,) = check_addresses({"a": "192.0.2.1 port 22", "b": "x", "c": "192.0.2.1 port 22"})
    assert problem.what.startswith("a and c are one machine (192.0.2.1 port 22)")


@pytest.mark.parametrize("owners", [{}, {"a": [7, 7]}, {"a": [7, 7], "b": ["7", "7"]}])
def test_one_user_for_all_who_share_files(owners: dict[str, Any]) -> None:
    assert check_owners(owners) == []


@pytest.mark.parametrize("other", [[8, 7], [7, 8], ["08", "7"]])
def test_users_that_differ_where_files_are_shared_are_named(other: list[Any]) -> None:
    (problem,) = check_owners({"a": [7, 7], "b": other})
    assert f"7:7 on a, {other[0]}:{other[1]} on b" in problem.what
    assert "celray_uid" in problem.source


def test_a_host_that_others_need_must_have_been_looked_at() -> None:
    needed = {"a": "redis and ray"}
    assert check_seen(["a", "b"], ["a", "b"], needed) == []
    assert check_seen(["a", "b"], ["a"], needed) == [], "the others go on"
    (problem,) = check_seen(["a", "b", "c"], ["b"], needed)
    assert problem.what == "a could not be looked at, and runs redis and ray for all others"


def test_a_host_that_is_left_out_is_named() -> None:
    assert tell_behind(["a", "b"], ["a", "b"]) == []
    (line,) = tell_behind(["a", "b", "c"], ["a", "c"])
    assert line.startswith("b could not be looked at")


def test_nodes_beside_one_head_are_fine() -> None:
    assert check_ray_nodes({"ray_head": ["a"], "ray_worker": ["b", "c"]}, "") == []
    assert check_ray_nodes({"ray_head": ["a"], "ray_worker": []}, "http://ray.example") == []
    assert check_ray_nodes({}, "http://ray.example") == []


@pytest.mark.parametrize(
    ("groups", "address", "what", "fix"),
    [
        (
            {"ray_head": ["a"], "ray_worker": ["a", "b"]},
            "",
            "a would run both Ray's head and a node of it, which take the same ports",
            "take a out of ray_worker",
        ),
        (
            {"ray_head": ["a"], "ray_worker": ["b"]},
            "http://ray.example:8265",
            "b would run Ray nodes, and Ray is elsewhere: http://ray.example:8265",
            "leave ray_worker empty, or ray_address",
        ),
    ],
)
def test_ray_nodes_in_a_wrong_place_are_named(
    groups: dict[str, list[str]], address: str, what: str, fix: str
) -> None:
    (problem,) = check_ray_nodes(groups, address)
    assert problem.what == what
    assert "ray_worker" in problem.source
    assert fix in problem.fix


def test_a_ray_node_is_reached_by_the_others() -> None:
    groups = {"ray_head": ["a"], "ray_worker": ["b", "c"]}
    (problem,) = check_node_reach("b", "127.0.0.1", groups)
    assert problem.what == "a, c cannot reach the Ray node of b at 127.0.0.1"
    assert check_node_reach("b", "10.0.0.5", groups) == []
    assert check_node_reach("a", "127.0.0.1", groups) == []


@pytest.mark.slow
def test_site_names_each_of_them_once(tmp_path: Path) -> None:
    """Two hosts that are this machine: each finds its own mistakes, the first those of all."""
    home = {"celray_home": str(tmp_path / "celray"), "ansible_connection": "local"}
    one = {**home, "celray_worker_names": ["ml"], "ray_labels": {"disk": 1}}
    last = "{{ celery_workers | map(attribute='name') | select('eq', 'default') | list }}"
    two = {
        **home,
        "celray_worker_names": last,
        "celray_uid": "{{ 12300 + 45 }}",
        "celray_gid": 12345,
    }
    both: dict[str, Any] = {"hosts": {"one": {}, "two": {}}}
    places = {"redis": {"hosts": {"one": {}}}, "ray_head": both, "celery_worker": both}
    places["ray_worker"] = {"hosts": {"two": {}}}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        yaml.safe_dump({"all": {"hosts": {"one": one, "two": two}, "children": places}})
    )
    played = play("site.yml", "-i", str(inventory), "--check")
    assert played.code != 0
    for words in (
        "one and two would each run ray, and all hosts would ask one alone",
        "no host consumes queue 'data'",
        "two cannot reach redis and ray of one at 127.0.0.1",
        "one and two are one machine (this machine)",
        "the containers would have different users",
        "one cannot reach the Ray node of two at 127.0.0.1",
        "two would run both Ray's head and a node of it",
        "ray_labels has 'disk': 1",
    ):
        assert played.output.count(words) == 1, played.output
    assert "Traceback" not in played.output
    assert not (tmp_path / "celray").exists()


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["redis", "ray_head"])
def test_site_says_which_service_is_placed_nowhere(missing: str, tmp_path: Path) -> None:
    """Without its host, the first sentence was Ansible's about an undefined variable."""
    groups = {"redis", "ray_head", "celery_worker", "celery_beat"} - {missing}
    children: dict[str, Any] = {group: {"hosts": {"one": {}}} for group in sorted(groups)}
    one = {"celray_home": str(tmp_path / "celray"), "ansible_connection": "local"}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"one": one}, "children": children}}))
    played = play("site.yml", "-i", str(inventory), "--check")
    name = missing.removesuffix("_head")
    played.require_failure(f"no host runs {name}, which ", f"the inventory's group {missing}")
    assert "undefined" not in played.output
