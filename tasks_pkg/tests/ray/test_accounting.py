"""Rows read = used + filtered + rejected, in every task's result, with reasons and first places."""

from collections.abc import Iterator
from typing import Any

import pytest
from celray_jobs import AGGREGATE, HEADER, PREDICT, RETRAIN, ROWS, TABLES, Place, place_in

from tasks.ray_jobs.accounting import account


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("rows") / "place") as made:
        yield made


def of(result: dict[str, Any], task: str) -> dict[str, Any]:
    return result["models"][0] if task == RETRAIN else result


@pytest.mark.parametrize("task", [*TABLES, AGGREGATE])
def test_every_row_is_accounted_for(place: Place, task: str) -> None:
    odd = ["100,1,2024-01-01,", '101,2,2024-01-02,"x "', "102,3,2024-01-03,NA"]
    rows = [*ROWS[:10], *odd, *ROWS[10:], *ROWS[:5]]
    name = f"rows_{task}.csv"
    (place.datasets / name).write_text(HEADER + "\n".join(rows) + "\n")
    found = of(place.call(task, name), task)
    assert found["rows_read"] == len(rows)
    assert (
        found["rows_read"] == found["rows_used"] + found["rows_filtered"] + found["rows_rejected"]
    )
    learns = task not in {PREDICT, AGGREGATE}
    lacking = [one for one in found["left_out"] if one["reason"] == "it has no target"]
    assert lacking == ([{"reason": "it has no target", "rows": 2, "first": 11}] if learns else [])
    assert found["rows_filtered"] == sum(one["rows"] for one in found["left_out"])
    if task == RETRAIN:
        (apart,) = [one for one in found["left_out"] if "held out" in one["reason"]]
        assert apart["rows"] > 0
        assert 1 <= apart["first"] <= len(rows)
    elif learns:
        assert found["rows_used"] == len(rows) - 2


def test_a_row_that_nobody_can_account_for_ends_the_job() -> None:
    with pytest.raises(RuntimeError, match="400 rows were read, 30 used and 0 left out"):
        account(400, 30, {})
