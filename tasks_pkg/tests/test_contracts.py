"""Wrong arguments are refused in one line that says what is right."""

from typing import Annotated

import pytest
from annotated_types import Gt

from tasks.contracts import InvalidArgumentsError, validated


@validated
def example(path: str, count: Annotated[int, Gt(0)] = 1, *, deep: bool = False) -> str:
    return f"{path} {count} {deep}"


def test_right_arguments_pass() -> None:
    assert example("a", 2, deep=True) == "a 2 True"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "missing a required argument: 'path'; it accepts: path, count, deep"),
        ({"path": "a", "cuont": 1}, "unexpected keyword argument 'cuont'"),
        ({"path": 1}, "path: Input should be a valid string, got 1"),
        ({"path": "a", "count": "2"}, "count: Input should be a valid integer, got '2'"),
        ({"path": "a", "count": 0}, "count: Input should be greater than 0, got 0"),
        ({"path": None, "deep": "yes"}, "; deep: Input should be a valid boolean"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        example(**arguments)  # type: ignore[arg-type]  # the point of the test
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@validated
def united(grid: dict[str, list[int]] | str, *, parts: list[int | None] | None = None) -> None:
    """A function that takes one of several types."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"grid": 3}, "grid: Input should be a valid dictionary or a valid string, got 3"),
        ({"grid": {"a": [1, "x"]}}, "grid.a.1: Input should be a valid integer, got 'x'"),
        ({"grid": "", "parts": [1, "x"]}, "parts.1: Input should be a valid integer, got 'x'"),
        ({"grid": "", "parts": {"0": 1}}, "parts: Input should be a valid list, got {'0': 1}"),
    ],
)
def test_of_a_union_one_thing_is_said(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        united(**arguments)  # type: ignore[arg-type]  # the point of the test
    assert str(caught.value) == f"united: {words}"


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        example("a", "x" * 10_000)  # type: ignore[arg-type]  # the point of the test
    assert len(str(caught.value)) < 300
