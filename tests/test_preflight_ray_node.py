"""The settings of a Ray node are refused before its container would fail at them."""

from __future__ import annotations

from typing import Any

import pytest
from celray.preflight.ray_node import check

GPUS = {
    "driver": "NVRM version: 535",
    "gpus": 2,
    "toolkit": "/usr/bin/nvidia-container-runtime-hook",
}
HOST = {"hostname": "gpu1", "nvidia": GPUS}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ray_cpus": 0, "ray_gpus": "2", "ray_memory_mb": 4096, "ray_object_store_mb": 1024},
        {"ray_resources": {"host_w1": 1, "accelerator_type:A100": 2}},
        {"ray_labels": {"disk": "fast", "example.com/rack": "r-1", "empty": ""}},
    ],
)
def test_what_ray_takes_is_taken(given: dict[str, Any]) -> None:
    assert check(given, HOST) == []


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("ray_cpus", -1, "whole number from 0 on"),
        ("ray_cpus", 1.5, "whole number"),
        ("ray_cpus", True, "whole number"),
        ("ray_gpus", "two", "whole number from 0 on"),
        ("ray_memory_mb", 100, "from 512 on"),
        ("ray_object_store_mb", 10, "from 75 on"),
        ("ray_resources", ["a"], "write {name: value}"),
        ("ray_resources", {"CPU": 4}, "set ray_cpus for that"),
        ("ray_resources", {"disk": 0.5}, "whole number above 0"),
        ("ray_resources", {"disk": 0}, "whole number above 0"),
        ("ray_resources", {"node:a": 1}, "Ray's own"),
        ("ray_resources", {"two words": 1}, "letters, digits"),
        ("ray_labels", "disk=fast", "write {name: value}"),
        ("ray_labels", {"disk": 1}, "in quotes where it is a number"),
        ("ray_labels", {"disk": "fast,slow"}, "use a text"),
        ("ray_labels", {"ray.io/x": "y"}, "another prefix"),
        ("ray_labels", {"-disk": "fast"}, "use a key"),
        ("ray_labels", {7: "fast"}, "use a key"),
    ],
)
def test_what_ray_would_refuse_is_named_with_a_way_out(name: str, value: Any, fix: str) -> None:
    (problem,) = check({name: value}, HOST)
    shown = next(iter(value.items())) if isinstance(value, dict) else (value,)
    assert all(repr(part) in problem.what for part in shown)
    assert problem.source == f"{name} (your inventory)"
    assert fix in problem.fix


def test_an_object_store_of_all_the_memory_is_refused() -> None:
    (problem,) = check({"ray_memory_mb": 2048, "ray_object_store_mb": "2048"}, HOST)
    assert "leaves nothing of the 2048 MB" in problem.what


@pytest.mark.parametrize(
    ("lacks", "what", "fix"),
    [
        ({"driver": ""}, "gpu1 has no driver of NVIDIA's", "nvidia-driver"),
        ({"gpus": 1}, "gpu1 has 1 GPUs, and Ray is to offer 2", "at most 1"),
        ({"toolkit": ""}, "nvidia-container-runtime-hook", "nvidia-container-toolkit"),
    ],
)
def test_a_host_that_cannot_give_gpus_says_what_is_missing(
    lacks: dict[str, Any], what: str, fix: str
) -> None:
    host = {**HOST, "nvidia": {**GPUS, **lacks}}
    (problem,) = check({"ray_gpus": 2}, host)
    assert what in problem.what
    assert fix in problem.fix
    assert problem.source == "ray_gpus of gpu1"
    assert check({"ray_gpus": 0}, host) == []
