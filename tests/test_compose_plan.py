"""What a deploy would do to a project, and how it says so."""

from __future__ import annotations

from typing import Any

from parts import load

MODULE = "roles/compose_project/library/celray_compose.py"


def wanted(digest: str = "new", **parts: str) -> dict[str, Any]:
    return {"container": "example", "image": "i:1", "digest": digest, "parts": parts}


def there(digest: str = "new", state: str = "running") -> dict[str, Any]:
    return {"id": "0", "digest": digest, "state": state}


def plan(services: Any, present: Any, stored: Any = None) -> dict[str, Any]:
    actions: dict[str, Any] = load(MODULE).plan(services, present, stored or {})
    return actions


def test_what_is_right_and_running_is_left_alone() -> None:
    assert plan({"a": wanted()}, {"a": there()}) == {}


def test_a_missing_service_is_created() -> None:
    assert plan({"a": wanted()}, {}) == {"a": ("create", "not there")}


def test_a_differing_digest_recreates_and_names_what_changed() -> None:
    services = {"a": wanted(image="2", command="1")}
    stored = {"a": {"image": "1", "command": "1", "tmpfs": "1"}}
    assert plan(services, {"a": there("old")}, stored) == {
        "a": ("recreate", "image, tmpfs changed")
    }


def test_a_stopped_container_is_started_and_a_stopped_wrong_one_replaced() -> None:
    assert plan({"a": wanted()}, {"a": there(state="exited")}) == {"a": ("start", "exited")}
    assert plan({"a": wanted()}, {"a": there("old", "exited")})["a"][0] == "recreate"


def test_what_no_service_names_any_more_is_removed() -> None:
    actions = plan({"a": wanted()}, {"a": there(), "b": there()})
    assert actions == {"b": ("remove", "no longer defined")}


def test_a_host_without_a_memory_of_parts_still_gets_a_reason() -> None:
    assert load(MODULE).reason(None, {"image": "1"}) == "definition differs"
    assert load(MODULE).reason({"image": "1"}, {"image": "1"}) == "label differs"


def test_a_person_reads_container_names_and_nothing_when_there_is_nothing() -> None:
    describe = load(MODULE).describe
    assert describe("celray-x", {"a": wanted()}, {}) == []
    project, line = describe("celray-x", {"a": wanted()}, {"a": ("create", "not there")})
    assert project == "celray-x"
    assert line.split() == ["+", "example", "create", "not", "there"]
