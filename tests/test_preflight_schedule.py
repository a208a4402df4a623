"""Preflight's verdict on a schedule is Beat's: one file has the rules, and neither adds to them.

`tasks_pkg/tests/beat/test_schedules.py` holds Beat's verdict and its times against the same
generator.
"""

from __future__ import annotations

from typing import Any

import pytest
from celray.preflight.schedule import check_schedule
from hypothesis import given
from hypothesis import strategies as st
from parts import load

rules: Any = load("tasks_pkg/src/tasks/schedules.py")
generated: Any = load("tasks_pkg/tests/support/celray_cron.py")
PING = "tasks.ping"


def judged(*entries: Any, brought: tuple[Any, ...] = ()) -> list[str]:
    found = check_schedule(list(entries), {PING: "default"}, {"default"}, brought)
    assert all(problem.source and problem.fix for problem in found)
    return [str(problem) for problem in found]


@given(generated.expressions(wrong=True))
def test_preflight_refuses_exactly_what_beat_would_not_run(text: str) -> None:
    entry = {"name": "nightly", "task": PING, "cron": text}
    wrong = [what for what, _ in rules.problems(entry)]
    found = judged(entry)
    assert len(found) == len(wrong)
    for what, said in zip(wrong, found, strict=True):
        assert what in said
        assert "schedule nightly" in said
        assert "celery_beat_schedule" in said


@pytest.mark.parametrize("text", generated.REPORTED_WRONG)
def test_what_ended_beat_is_one_named_problem(text: str) -> None:
    (said,) = judged({"name": "nightly", "task": PING, "cron": text})
    assert f"schedule nightly: cron {text!r}" in said


@pytest.mark.parametrize("text", generated.REPORTED_RIGHT)
def test_what_people_write_passes(text: str) -> None:
    assert judged({"name": "nightly", "task": PING, "cron": text}) == []


@given(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5))
def test_an_interval_is_judged_by_the_same_rules(every: Any) -> None:
    entry = {"name": "often", "task": PING, "every_seconds": every}
    assert len(judged(entry)) == len(rules.problems(entry))


def test_two_entries_of_one_name_are_named_wherever_they_come_from() -> None:
    entry = {"name": "nightly", "task": PING, "cron": "@daily"}
    (said,) = judged(entry, brought=(entry,))
    assert "schedule nightly is listed more than once" in said
