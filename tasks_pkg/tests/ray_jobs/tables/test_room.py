"""A table that has no room in memory is refused by name, before it is read or while it is."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from celray_csv import summary, table
from celray_jobs import TABLES, Place, Task, place_in

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import recoding as csv_recoding
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.protocol import InputProblemError, JobRequest
from tasks.ray_jobs.search import job as search_job
from tasks.ray_jobs.tables import memory as table_memory
from tasks.ray_jobs.tables import reading
from tasks.ray_jobs.training import job as training_job
from tasks.schemas.models import model_config_from
from tasks.schemas.search import search_from

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
    """Return a function that sets a container's memory limit; 1 MB is used, besides page cache."""
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
    monkeypatch.setattr(table_memory, "CGROUP", root)

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
        table_memory.require(source)
    assert caught.value.kind == "dataset_too_large"
    assert "ray_memory_mb" in str(caught.value)
    limit(int(1_000_000 + 1.5 * NEEDED))
    table_memory.require(source)
    assert reading.read(source).estimated_size() == pytest.approx(ROWS * 5 * 8, rel=0.1)


def test_training_and_search_look_before_they_read(
    source: Source, limit: Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(2_000_000)
    monkeypatch.setattr(reading, "read", None)
    (tmp_path / "models").mkdir()
    config, tried = search_from([{"max_depth": 2}], {})
    for main, parameters in (
        (training_job.main, model_config_from({}).training(source.files[0].name).as_json()),
        (search_job.main, config.search(source.files[0].name, tried).as_json()),
    ):
        runs, models = str(tmp_path / "runs"), str(tmp_path / "models")
        request = JobRequest("x", runs, str(tmp_path), models, "test", parameters)
        with pytest.raises(InputProblemError, match=r"as a table and as the model's numbers"):
            main(request, Reporter(tmp_path / "run"))


def test_without_a_limit_it_is_what_the_host_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_memory, "CGROUP", tmp_path / "none")
    free = table_memory.available()
    assert free is not None
    assert 1e6 < free < 1e15


# -- compressed files, whose size on disk says little ----------------------------------------------


def cut(suffix: str, content: bytes) -> bytes:
    """Return a compressed file whose end lacks, so that an error tells who has read so far."""
    if suffix.endswith(".gz"):
        return gzip.compress(content)[:-9]
    return bytes(pa.compress(content, codec="zstd", asbytes=True))[:-9]


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst"])
@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_what_unpacks_to_more_than_memory_is_refused_as_soon_as_it_shows(
    limit: Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
) -> None:
    """Where all of it was read, the error would be that it is cut off."""
    row = b"1.5,2.5,3.5,4.5,5\n" if kind == "numbers" else b"a text that fits no word,,,,x\n"
    path = tmp_path / f"small{suffix}"
    path.write_bytes(cut(suffix, b"a,b,c,d,target\n" + row * 400_000))
    source = Source((path,), "csv")
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 18)
    limit(5_000_000)
    table_memory.require(source)  # it takes 50 KB on disk
    with pytest.raises(InputProblemError, match="is larger than memory: the part read") as caught:
        reading.read(source)
    assert caught.value.kind == "dataset_too_large"
    assert str(path) in str(caught.value)
    limit(1_000_000_000)
    with pytest.raises(InputProblemError, match="cannot be decompressed"):
        reading.read(source)


def test_a_compressed_file_counts_at_least_as_if_it_were_not(limit: Limit, tmp_path: Path) -> None:
    numbers = pl.DataFrame({n: pl.Series(range(50_000)).shuffle(ord(n)) for n in "abcd"})
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(numbers.write_csv().encode()))
    limit(1_200_000)
    with pytest.raises(InputProblemError, match=r"a\.csv\.gz take about"):
        table_memory.require(Source((tmp_path / "a.csv.gz",), "csv"))


def test_memory_that_others_take_meanwhile_counts(limit: Limit, tmp_path: Path) -> None:
    limit(101_000_000)
    growth = table_memory.Growth()
    piece = pl.DataFrame({"a": pl.int_range(1_000_000, eager=True)})
    growth.take(tmp_path / "a.csv", piece)
    limit(1_050_000)
    with pytest.raises(InputProblemError, match="is larger than memory"):
        growth.take(tmp_path / "a.csv", piece)


def test_short_text_counts_with_what_stands_beside_its_characters(
    limit: Limit, tmp_path: Path
) -> None:
    """Polars holds 16 bytes for each, also where it is one letter or missing."""
    rows = 1_000_000
    limit(1_000_000 + 2 * 16 * rows)
    growth = table_memory.Growth()
    growth.take(tmp_path / "a.csv", pl.select(pl.repeat("x", rows // 2)))
    assert 16 * rows // 2 <= growth.taken[0] <= 17 * rows // 2
    with pytest.raises(InputProblemError, match="is larger than memory"):
        growth.take(tmp_path / "a.csv", pl.select(pl.repeat("x", rows // 2)))


def test_a_pass_that_shows_types_alone_takes_no_memory(
    limit: Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had to be read again does not count twice."""
    rows = "".join(f"{i},{i / 2}\n" for i in range(50_000)) + "x,1\n"
    (tmp_path / "a.csv").write_text("a,b\n" + rows)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 16)
    source = Source((tmp_path / "a.csv",), "csv")
    growth = table_memory.Growth()
    assert reading.read(source, growth=growth)["a"].dtype == pl.String
    limit(int(1_000_000 + 1.2 * growth.taken[1]))
    assert reading.read(source).height == 50_001


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("room") / "place") as made:
        yield made


@pytest.mark.parametrize("task", [*TABLES, Task.CSV, Task.AGGREGATE, Task.INBOX])
def test_a_small_file_that_unpacks_to_much_ends_no_task_without_a_word(
    place: Place, limit: Limit, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Those that hold a table refuse it; the others have a piece of it in memory at a time."""
    rows = b"1,2,2024-01-01,x\n2,3,2024-01-02,y\n" * 100_000
    (place.datasets / "bomb.csv.gz").write_bytes(gzip.compress(b"a,b,day,target\n" + rows))
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 18)
    limit(5_000_000)
    if task in TABLES:
        try:
            result = place.call(task, "bomb.csv.gz")
        except InvalidArgumentsError as error:
            said = str(error)
        else:
            said = result["models"][0]["reason"]
        assert "bomb.csv.gz is larger than memory" in said
        assert ("as the model's numbers" in said) == (task != Task.PREDICT)
    else:
        assert place.call(task, "bomb.csv.gz")["status"] == "success"


@pytest.mark.parametrize("said", [{"comment": "#"}, {"quote": "'"}])
def test_a_line_without_an_end_is_refused_also_where_text_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    monkeypatch.setattr(csv_recoding, "FIELD_LIMIT_BYTES", 3 << 20)
    line = b"x" * (8 << 20)
    path = tmp_path / "line.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000 + line))
    for reader in (table, summary):
        with pytest.raises(InputProblemError, match=r"line\.csv\.gz: a line that begins 'xxx") as e:
            reader(path, **said)
        assert e.value.kind == "record_too_long"
