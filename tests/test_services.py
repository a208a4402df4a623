"""A service says of itself what others must know of it, in roles/*/service.yml and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from parts import REPO, load

services: Any = load("roles/celray/filter_plugins/celray_services.py")
FILES = sorted((REPO / "roles").glob("*/service.yml"))
NEEDED = {"name", "role", "group", "order", "containers", "images"}
OPTIONAL = {
    *("wanted", "elsewhere", "single", "needs", "shared", "reached", "ports", "port_range"),
    *("folders", "secrets", "containers_here"),
    *("credentials", "credentials_submitter", "summary", "verify"),
}


def said(file: Path) -> dict[str, Any]:
    """What one service says of itself."""
    content = yaml.safe_load(file.read_text())
    found: dict[str, Any] = content[f"celray_service_{file.parent.name}"]
    return found


def placed(inventory: str) -> set[str]:
    """The groups of an inventory."""
    found = yaml.safe_load((REPO / "inventory" / inventory / "hosts.yml").read_text())
    return set(found["all"]["children"])


def test_there_are_the_services_that_inventories_place() -> None:
    groups = {said(file)["group"] for file in FILES}
    assert placed("cluster") == groups
    # One host is Ray's head; it cannot be another node too.
    assert placed("single") == groups - {"ray_worker"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_a_service_says_what_is_known_and_no_more(file: Path) -> None:
    service = said(file)
    assert service.keys() >= NEEDED
    assert service.keys() <= NEEDED | OPTIONAL
    assert service["role"] == file.parent.name
    assert (file.parent / "tasks/main.yml").is_file()


def test_services_start_in_an_order_of_their_own() -> None:
    orders = [said(file)["order"] for file in FILES]
    assert len(set(orders)) == len(orders)


def service(name: str, order: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "group": name, "order": order, **more}


def test_a_host_runs_what_its_groups_say_and_what_is_wanted() -> None:
    known = [service("b", 2), service("a", 1), service("ray", 3, wanted=False), service("c", 4)]
    assert [one["name"] for one in services.celray_here(known, ["ray", "b", "a"])] == ["a", "b"]


def test_a_service_that_one_host_runs_for_all_is_named_with_its_group() -> None:
    known = [
        service("redis", 0, single=True),
        service("flower", 1),
        service("ray", 2, single=True, wanted=False),
    ]
    assert services.celray_single(known) == [{"name": "redis", "group": "redis"}]


def test_a_service_that_no_host_has_is_not_spoken_of() -> None:
    """An inventory without Flower; a Ray cluster that others run."""
    known = [service("flower", 2), service("ray", 1, elsewhere=True), service("redis", 0)]
    placed = services.celray_placed(known, {"redis": ["one"], "flower": []})
    assert [one["name"] for one in placed] == ["redis", "ray"]


def test_what_services_share_is_listed_once() -> None:
    known = [service("a", 1, images=["x", "y"]), service("b", 2), service("c", 3, images=["y"])]
    assert services.celray_all(known, "images") == ["x", "y"]
    assert services.celray_merged(known, "secrets") == {}


catalogue: Any = load("roles/celray/filter_plugins/celray_catalogue.py")
WORKERS = [{"name": "ml"}, {"name": "data", "replicas": 2}]


def looked_at(name: str, *running: str, **more: Any) -> dict[str, Any]:
    boxes = [{"name": box, "project": "celray", "state": "running"} for box in running]
    facts = {"hostname": f"h-{name}", "containers": boxes}
    return {"inventory_hostname": name, "host_facts": facts, **more}


def test_a_host_has_the_containers_of_its_own_workers() -> None:
    assert catalogue.celray_worker_containers(WORKERS, ["data"]) == {
        "worker-data": "celery-worker-data",
        "worker-data-2": "celery-worker-data-2",
    }
    known = [
        {"containers": {"a": "a", "b": "b"}, "containers_here": {"b": "b"}},
        {"containers": {"c": "c"}},
    ]
    assert services.celray_own_containers(known) == ["b", "c"]


def test_the_nodes_that_should_answer_follow_from_the_inventory() -> None:
    """With replicas, and with one worker on two hosts."""
    hosts = [looked_at("one"), looked_at("two", celray_worker_names=["data"])]
    assert catalogue.celray_expected_nodes(hosts, WORKERS) == [
        *("ml@h-one", "data@h-one", "data-2@h-one"),
        *("data@h-two", "data-2@h-two"),
    ]


def test_all_workers_are_asked_where_one_of_them_runs() -> None:
    silent = {"inventory_hostname": "dead", "host_facts": {"unreachable": True}}
    hosts = [silent, looked_at("one"), looked_at("two", "celery-worker-data", "celery-worker-ml")]
    assert catalogue.celray_looked_at([*hosts, {"inventory_hostname": "new"}]) == ["one", "two"]
    asked = catalogue.celray_asked(hosts[1:], WORKERS)
    assert asked == {"host": "two", "container": "celery-worker-data"}
    assert catalogue.celray_asked(hosts[1:2], WORKERS) == {}


def test_what_a_service_needs_is_a_service() -> None:
    names = {said(file)["name"] for file in FILES}
    for file in FILES:
        assert set(said(file).get("needs", [])) <= names - {said(file)["name"]}
    (node,) = [said(file) for file in FILES if file.parent.name == "ray_worker"]
    assert set(node["needs"]) == {"redis", "ray"}, "a Ray node without a head waits for ever"


def test_hosts_that_share_files_are_named_once_in_the_order_of_their_services() -> None:
    known = [
        service("workers", 3, shared=["x"]),
        service("ray", 2, shared=["x", "y"]),
        service("idle", 1, shared=["x"], wanted=False),
        service("redis", 0),
    ]
    groups = {"redis": ["d"], "ray": ["b"], "workers": ["a", "b"], "idle": ["e"]}
    assert services.celray_sharing(known, groups) == ["b", "a"]
    assert services.celray_sharing(known, {"redis": ["d"]}) == []


def test_a_host_without_which_no_other_is_deployed_is_named_with_what_it_runs() -> None:
    known = [
        service("redis", 0, single=True),
        service("ray", 1, single=True),
        service("workers", 2),
    ]
    groups = {"redis": ["a"], "ray": ["a"], "workers": ["b"]}
    assert services.celray_needed(known, groups) == {"a": "redis and ray"}
    assert services.celray_needed(known, {"redis": ["a"], "ray": ["b"]}) == {
        "a": "redis",
        "b": "ray",
    }


def test_who_must_reach_a_port_is_told_once_and_never_its_own_host() -> None:
    known = [
        service("workers", 3),
        service("redis", 0, reached={"p": ["workers", "beat", "clients"], "q": ["beat"]}),
        service("beat", 2),
        service("ray", 1, reached={"r": ["workers"]}, wanted=False),
    ]
    groups = {"redis": ["a"], "workers": ["a", "b"], "beat": ["b"], "ray": ["c"]}
    assert services.celray_reached(known, groups, {"p": 6380, "q": 1, "r": 2}) == [
        " 6380 of a (redis): b, clients",
        "    1 of a (redis): b",
    ]
    alone = {name: ["a"] for name in groups}
    (line,) = services.celray_reached(known, alone, {"p": 6380, "q": 1, "r": 2})
    assert line == " 6380 of a (redis): clients"


def test_who_reaches_a_port_is_a_service_or_somebody_outside() -> None:
    names = {said(file)["name"] for file in FILES} | {"clients", "operators"}
    for file in FILES:
        service = said(file)
        for port, who in service.get("reached", {}).items():
            assert port in {*service["ports"], "celray_ports_ray_workers"}
            assert set(who) <= names
