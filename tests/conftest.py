"""How the tests run; what they share lies in support/."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No deadline, for examples or for making them: a shared machine can take a second for anything.
settings.register_profile(
    "celray",
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("celray")

# make runs these tests, and they run make, which must not take itself for a part of the other.
for variable in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(variable, None)

_LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what `-m "not engine"` leaves out."""
    for item in items:
        if item.get_closest_marker("engine"):
            item.config.stash[_LEFT_OUT] = item.config.stash.get(_LEFT_OUT, 0) + 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say it, and how to run them."""
    if config.option.markexpr and (count := config.stash.get(_LEFT_OUT, 0)):
        terminalreporter.write_line(
            f"{count} tests that need a container engine were not run; "
            "make test runs them, or: .venv-dev/bin/pytest -m engine tests"
        )
