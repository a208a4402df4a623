"""A registry is named as an image's name begins."""

from __future__ import annotations

from typing import Any

import pytest
from celray.preflight.images import check_registry


@pytest.mark.parametrize(
    "registry",
    [
        "",
        "registry.example",
        "registry.example:5000",
        "registry.example:5000/celray",
        "registry:5000/team_a/celray-images",
        "localhost/celray",
        "192.0.2.7:5000/celray",
        "[2001:db8::7]:5000/celray",
    ],
)
def test_the_name_of_a_registry_is_taken(registry: str) -> None:
    assert check_registry(registry) == []


@pytest.mark.parametrize(
    "registry",
    [
        "https://registry.example:5000/celray",
        "registry.example:5000/celray/",
        "registry.example:5000/Celray",
        "registry.example:port/celray",
        "registry.example/celray:1",
        "celray",
        "team/celray",
        " registry.example",
        5000,
        None,
        True,
        ["registry.example"],
    ],
)
def test_anything_else_is_one_problem_that_quotes_it(registry: Any) -> None:
    (problem,) = check_registry(registry)
    assert f"images_registry is {registry!r}" in problem.what
    assert "registry.example:5000/celray" in problem.fix
