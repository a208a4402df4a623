"""What only all hosts together can get wrong: each mistake is one problem, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from celray.preflight.fleet import (
    check_consumers,
    check_group_names,
    check_machines,
    check_reach,
    check_seen,
    check_single,
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


def test_a_host_that_was_not_looked_at_stops_the_others() -> None:
    assert check_seen(["a", "b"], ["a", "b"]) == []
    (problem,) = check_seen(["a", "b", "c"], ["b"])
    assert problem.what.startswith("a and c could not be looked at")
    assert "take it out of the inventory" in problem.fix


@pytest.mark.slow
def test_site_names_each_of_them_once(tmp_path: Path) -> None:
    """Two hosts that are this machine: each finds its own mistakes, the first those of all."""
    home = {"celray_home": str(tmp_path / "celray"), "ansible_connection": "local"}
    one = {**home, "celray_worker_names": ["ml"]}
    last = "{{ celery_workers | map(attribute='name') | select('eq', 'default') | list }}"
    two = {**home, "celray_worker_names": last}
    both: dict[str, Any] = {"hosts": {"one": {}, "two": {}}}
    places = {"redis": {"hosts": {"one": {}}}, "ray_head": both, "celery_worker": both}
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
    ):
        assert played.output.count(words) == 1, played.output
    assert "Traceback" not in played.output
    assert not (tmp_path / "celray").exists()
