"""A table that has no room in memory is refused by name, before it is read."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tasks.ray_jobs import reading, room, search, train
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.protocol import InputProblemError, JobRequest
from tasks.ray_jobs.sources import Source
from tasks.schemas_ml import model_config_from, search_from

ROWS = 50_000
#: What the table takes, as five numbers a row and as the model's.
NEEDED = ROWS * 5 * 12


@pytest.fixture(params=[".csv", ".parquet"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    kind: str = request.param
    file = tmp_path / f"large{kind}"
    columns = {name: pl.int_range(ROWS, eager=True) * 1.5 for name in "abcd"}
    frame = pl.DataFrame({**columns, "target": pl.int_range(ROWS, eager=True)})
    frame.write_csv(file) if kind == ".csv" else frame.write_parquet(file)
    return Source((file,), kind.removeprefix("."))


Limit = Callable[[int], None]


@pytest.fixture(params=["v2", "v1"])
def limit(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Say what a container's limit is, of which 1 MB is taken, and the rest of it by page cache."""
    files = {
        "v2": ("memory.max", "memory.stat", "anon 900000\nfile 123456789\nshmem 100000\n"),
        "v1": (
            "memory/memory.limit_in_bytes",
            "memory/memory.stat",
            "total_cache 123456789\ntotal_rss 1000000\n",
        ),
    }
    most, stat, used = files[request.param]
    root = tmp_path / "cgroup"
    (root / most).parent.mkdir(parents=True)
    (root / stat).write_text(used)
    monkeypatch.setattr(room, "CGROUP", root)

    def say(number: int) -> None:
        (root / most).write_text(f"{number}\n")

    return say


def test_a_table_is_refused_where_it_does_not_fit_and_read_where_it_does(
    source: Source, limit: Limit
) -> None:
    limit(int(1_000_000 + 0.5 * NEEDED))
    with pytest.raises(
        InputProblemError, match=r"take about 0\.0 GB of memory as a table"
    ) as caught:
        room.require(source)
    assert caught.value.kind == "dataset_too_large"
    assert "ray_memory_mb" in str(caught.value)
    limit(int(1_000_000 + 1.5 * NEEDED))
    room.require(source)
    assert reading.read(source).estimated_size() == pytest.approx(ROWS * 5 * 8, rel=0.1)


def test_training_and_search_look_before_they_read(
    source: Source, limit: Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(2_000_000)
    monkeypatch.setattr(reading, "read", None)
    (tmp_path / "models").mkdir()
    config, tried = search_from([{"max_depth": 2}], {})
    for main, parameters in (
        (train.main, model_config_from({}).parameters(source.files[0].name)),
        (search.main, {**config.parameters(source.files[0].name), **tried}),
    ):
        runs, models = str(tmp_path / "runs"), str(tmp_path / "models")
        request = JobRequest("x", runs, str(tmp_path), models, "test", parameters)
        with pytest.raises(InputProblemError, match=r"as a table and as the model's numbers"):
            main(request, Reporter(tmp_path / "run"))


def test_without_a_limit_it_is_what_the_host_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CGROUP", tmp_path / "none")
    free = room.available()
    assert free is not None
    assert 1e6 < free < 1e15
