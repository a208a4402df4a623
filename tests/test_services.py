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
    *("wanted", "elsewhere", "single", "ports", "port_range", "folders", "secrets"),
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
