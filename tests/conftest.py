"""Settings of the test runs; shared helpers are in support/."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No deadlines for hypothesis: on a shared machine any example may take a second.
settings.register_profile(
    "celray",
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("celray")

# make runs these tests, and they run make: the inner one must not count as part of the outer one.
for variable in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(variable, None)

_LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the tests that `-m "not engine"` leaves out."""
    for item in items:
        if item.get_closest_marker("engine"):
            item.config.stash[_LEFT_OUT] = item.config.stash.get(_LEFT_OUT, 0) + 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print their number, and how to run them."""
    if config.option.markexpr and (count := config.stash.get(_LEFT_OUT, 0)):
        terminalreporter.write_line(
            f"{count} tests that need a container engine were not run; "
            "make test runs them, or: .venv-dev/bin/pytest -m engine tests"
        )
