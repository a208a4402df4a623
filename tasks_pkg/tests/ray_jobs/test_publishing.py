"""Files get their final names whole: whoever else comes to them, and whenever a job is killed."""

import json
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import request_in

from tasks.ray_jobs import artefacts, cluster
from tasks.ray_jobs.csv import plan as csv_plan
from tasks.ray_jobs.files import tree_digest, write_json
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.large_csv import job as large_csv_job
from tasks.ray_jobs.large_csv import output as large_csv_output
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, InputProblemError
from tasks.schemas.data import transformations_from


class KilledError(BaseException):
    """A process that ends here and now."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    monkeypatch.setattr(cluster, "cpus", lambda: 1)
    for name in ("datasets", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "datasets" / "in.csv").write_text("a\n1\n2\n3\n")
    return tmp_path


def process(root: Path, name: str, **transformations: object) -> dict[str, Any]:
    parameters = transformations_from(transformations).request("in.csv", "out.parquet").as_json()
    request = request_in(root, name, parameters)
    return large_csv_job.main(request, Reporter(root / "models" / ".runs" / name))


def at(
    number: int, what: Callable[[], None], monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    """Do something before the module writes its manifest for the given time, and then no more."""
    calls = 0

    def write(path: Path, value: object) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            what()
        write_json(path, value)

    monkeypatch.setattr(module, "write_json", write)


def beside(function: Callable[[], object]) -> Callable[[], None]:
    """Return what begins the function in a thread, and goes on when that has ended or must wait."""

    def begin() -> None:
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(timeout=1.5)
        begun.append(thread)

    return begin


begun: list[threading.Thread] = []


def joined() -> None:
    for thread in begun:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert begun
    begun.clear()


@pytest.mark.parametrize("moment", [1, 2])
def test_a_run_that_was_killed_while_it_published_is_done_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    def killed() -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        at(moment, killed, patched, large_csv_output)
        with pytest.raises(KilledError):
            process(root, "first")
    assert (root / "datasets" / "out.parquet").exists() == (moment == 2)
    again = process(root, "second")
    assert (again["reused"], again["rows_written"]) == (False, 3)
    assert process(root, "third")["reused"]


def test_a_result_that_cannot_be_written_down_leaves_nothing(root: Path) -> None:
    folder = root / "models" / "report"
    with pytest.raises(TypeError, match="not JSON serializable"):
        artefacts.publish(
            request_in(root, "first", {}),
            folder,
            {"result": {"of": date(2026, 1, 31)}},
            lambda path: write_json(path / "file.json", 1),
        )
    assert list(folder.parent.glob("*report*")) == []


def test_of_two_runs_to_one_output_the_manifest_is_of_the_last(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = beside(lambda: process(root, "second", filter={"a": 2}))
    at(2, other, monkeypatch, large_csv_output)
    assert process(root, "first")["rows_written"] == 3
    joined()
    manifest = root / "datasets" / "out.parquet.manifest.json"
    kept = artefacts.finished(manifest)
    assert kept is not None
    assert kept["rows_written"] == pl.read_parquet(root / "datasets" / "out.parquet").height == 1


def test_a_file_that_somebody_put_there_meanwhile_is_not_overwritten(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = root / "datasets" / "out.parquet"
    monkeypatch.setattr(csv_plan, "require_unchanged", lambda *_: output.write_text("precious"))
    with pytest.raises(InputProblemError, match="celray did not write it"):
        process(root, "first")
    assert output.read_text() == "precious"
    names = sorted(path.name for path in output.parent.iterdir())
    assert names == ["in.csv", "out.parquet"]
    assert process(root, "second", overwrite=True)["rows_written"] == 3


def test_of_two_identical_runs_the_first_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though their bytes differ, as those of two models trained on several workers do."""
    folder = root / "models" / "a-model"

    def publish(name: str) -> dict[str, Any]:
        request = request_in(root, name, {})
        manifest = {**artefacts.identity(request, "t"), "inputs": [], "result": {"by": name}}
        return artefacts.publish(
            request, folder, manifest, lambda path: write_json(path / "model", name)
        )

    found: list[dict[str, Any]] = []
    at(1, beside(lambda: found.append(publish("second"))), monkeypatch, artefacts)
    assert publish("first") == {"by": "first"}
    joined()
    assert found == [{"by": "first"}]
    assert artefacts.finished(folder / artefacts.MANIFEST) == {"by": "first"}
    assert json.loads((folder / "model").read_text()) == "first"


def test_the_code_version_of_a_job_counts_files_in_folders_too(tmp_path: Path) -> None:
    """A job whose code changed must not return what the old code had made as ``reused``."""
    (tmp_path / "room").mkdir()
    (tmp_path / "top.py").write_text("a = 1\n")
    (tmp_path / "room" / "deep.py").write_text("b = 1\n")
    seen = {tree_digest(tmp_path)}

    (tmp_path / "room" / "deep.py").write_text("b = 2\n")
    seen.add(tree_digest(tmp_path))
    (tmp_path / "room" / "deep.py").rename(tmp_path / "deep.py")
    seen.add(tree_digest(tmp_path))
    (tmp_path / "deep.pyc").write_bytes(b"compiled")  # no code of ours
    seen.add(tree_digest(tmp_path))

    assert len(seen) == 3
