"""``process_new_data``: every delivered content is processed once, whatever happens on the way."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import request_beside, write_compressed

from tasks.ray_jobs import cluster
from tasks.ray_jobs.files import sha256
from tasks.ray_jobs.inbox import job as inbox_job
from tasks.ray_jobs.inbox.claims import Inbox
from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.large_csv import job as large_csv_job
from tasks.ray_jobs.protocol import (
    ENGINE_VARIABLE,
    REQUEST_VARIABLE,
    InfrastructureError,
    JobRequest,
    decode,
)

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "datasets" / "new").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    return tmp_path / "datasets"


@pytest.fixture
def new(root: Path) -> Path:
    return root / "new"


def request(root: Path, name: str, settle: float = 0.0) -> JobRequest:
    return request_beside(root, name, {"settle_seconds": settle, "stale_seconds": 60.0})


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    monkeypatch.setattr(cluster, "cpus", lambda: 1)

    def call(name: str = "one", settle: float = 0.0) -> dict[str, Any]:
        return inbox_job.main(request(root, name, settle), Reporter(root.parent / "runs"))

    return call


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {file["file"]: file["status"] for file in result["files"]}


def delivered(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_what_is_delivered_becomes_parquet(run: Run, new: Path) -> None:
    (new / "a.csv").write_text("x,y\n1,u\n2,\n")
    (new / "b.csv.gz").write_bytes(gzip.compress(b"x\n3\n4\n5\n"))
    pl.DataFrame({"z": [1.5, None]}).write_parquet(new / "c.parquet")
    result = run()
    assert statuses(result) == {"a.csv": "done", "b.csv.gz": "done", "c.parquet": "done"}
    assert (result["status"], result["done"], result["failed"]) == ("success", 3, 0)
    assert delivered(new) == []
    assert delivered(new / "done") == ["a.csv", "b.csv.gz", "c.parquet"]
    frames = [pl.read_parquet(file["output"]) for file in result["files"]]
    assert [frame.rows() for frame in frames] == [
        [(1, "u"), (2, None)], [(3,), (4,), (5,)], [(1.5,), (None,)],
    ]  # fmt: skip
    manifest = json.loads(Path(result["files"][0]["output"] + ".manifest.json").read_text())
    assert manifest["result"]["columns"]["y"]["missing"] == 1
    assert json.loads(Path(result["manifest_path"]).read_text())["result"]["done"] == 3
    assert not list((new / ".claims").iterdir())
    assert run("two")["files"] == []


@pytest.mark.parametrize("name", ["a.tsv", "a.TSV.gz", "a.tsv.zst"])
def test_tabs_are_what_the_name_promises_also_in_an_archive(run: Run, new: Path, name: str) -> None:
    write_compressed(new / name, "city\tamount\nRome, old\t3\nOslo\t4\n")
    (file,) = run()["files"]
    assert pl.read_parquet(file["output"]).rows() == [("Rome, old", 3), ("Oslo", 4)]


def test_a_content_delivered_twice_is_processed_once(run: Run, root: Path, new: Path) -> None:
    (new / "a.csv").write_text("x\n1\n")
    (new / "b.csv").write_text("x\n1\n")
    assert statuses(run()) == {"a.csv": "done", "b.csv": "duplicate"}
    (new / "a.csv").write_text("x\n1\n")
    again = run("two")
    assert statuses(again) == {"a.csv": "duplicate"}
    assert again["files"][0]["of"] == "a.csv"
    assert Path(again["files"][0]["output"]).is_file()
    assert delivered(new / "done") == ["a-1.csv", "a.csv", "b.csv"]
    assert len(list((root / "processed").glob("*.parquet"))) == 1


def test_a_content_whose_output_is_gone_is_processed_again(run: Run, new: Path) -> None:
    (new / "a.csv").write_text("x\n1\n")
    output = Path(run()["files"][0]["output"])
    output.unlink()
    (new / "a.csv").write_text("x\n1\n")
    assert statuses(run("two")) == {"a.csv": "done"}
    assert pl.read_parquet(output).rows() == [(1,)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"x,y\n", "has a header and no rows"),
        ("a.csv", b"x,y\n1\n", "row 1: 1 field, not 2"),
        ("a.csv", b"x,x\n1,2\n", "occurs 2 times"),
        ("a.csv", b"x\n\xff\n", "not UTF-8"),
        ("a.csv.gz", b"no archive", "cannot be decompressed"),
        ("a.parquet", b"no parquet", "cannot be read as Parquet"),
        ("a.xlsx", b"PK", "does not end in .csv, .tsv or .txt"),
    ],
)
def test_a_bad_file_goes_aside_with_its_reason(
    run: Run, new: Path, name: str, content: bytes, words: str
) -> None:
    (new / name).write_bytes(content)
    (new / "good.csv").write_text("x\n1\n")
    result = run()
    assert statuses(result) == {name: "failed", "good.csv": "done"}
    assert delivered(new / "failed") == [name, f"{name}.reason.json"]
    told = json.loads((new / "failed" / f"{name}.reason.json").read_text())
    assert words in told["reason"]
    assert len(list(new.parent.glob("processed/*.parquet"))) == 1
    # Delivered again, it is tried again: what was wrong may have been our mistake.
    (new / name).write_bytes(content)
    assert statuses(run("two")) == {name: "failed"}


def test_a_bad_file_of_the_longest_name_goes_aside_too(run: Run, new: Path) -> None:
    names = ["x" * 246 + ".csv", "x" * 247 + ".csv", "é" * 125 + ".csv", "z" * 251 + ".csv"]
    for turn in ("one", "two"):
        for name in names:
            (new / name).write_text(f"a,b\n{names.index(name)}\n")
        (new / "zz.csv").write_text(f"a,b\n{turn},2\n")
        assert statuses(run(turn)) == {**dict.fromkeys(names, "failed"), "zz.csv": "done"}
    there = delivered(new / "failed")
    reasons = [name for name in there if name.endswith(".reason.json")]
    assert len(reasons) == len(there) - len(reasons) == 2 * len(names)
    told = [json.loads((new / "failed" / name).read_text())["file"] for name in reasons]
    assert sorted(told) == sorted(names * 2)


def test_what_is_still_being_written_is_left_alone(run: Run, new: Path) -> None:
    (new / "fresh.csv").write_text("x\n1\n")
    (new / "grows.csv").write_text("x\n1\n")
    os.utime(new / "grows.csv", (1, 1))
    for name in (".hidden.csv", "a.csv.part", "b.csv.tmp", "c.csv~"):
        (new / name).write_text("x\n1\n")
    (new / "folder").mkdir()
    (new / "link.csv").symlink_to("/etc/passwd")
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.05):
            with (new / "grows.csv").open("a") as stream:
                stream.write("2\n")
            os.utime(new / "grows.csv", (1, 1))  # as tools do that keep a file's time

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        result = run(settle=30.0)
    finally:
        stop.set()
        writer.join()
    assert (result["files"], result["waiting"]) == ([], ["fresh.csv", "grows.csv"])
    old = time.time() - 60
    os.utime(new / "fresh.csv", (old, old))
    assert statuses(run("two", settle=30.0)) == {"fresh.csv": "done", "grows.csv": "done"}
    assert (new / "link.csv").is_symlink()


def test_two_runs_never_take_the_same_file(new: Path) -> None:
    for i in range(200):
        (new / f"{i}.csv").write_text(f"x\n{i}\n")
    found: list[list[str]] = []
    barrier = threading.Barrier(4)

    def take(name: str) -> None:
        box = Inbox(new, name, 0.0, 60.0)
        with box.opened():
            barrier.wait()
            taken, _ = box.take(500)
            found.append([path.name for path in taken])
            barrier.wait()

    threads = [threading.Thread(target=take, args=(f"run{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [name for taken in found for name in taken]
    assert len(names) == len(set(names)) == 200
    assert len(delivered(new)) == 200  # given back: nobody processed them


def test_a_content_that_another_run_has_in_hand_waits(run: Run, new: Path) -> None:
    other = Inbox(new, "other", 0.0, 60.0)
    with other.opened():
        (new / "a.csv").write_text("x\n1\n")
        (path,), _ = other.take(9)
        assert other.begin(sha256(path), path) is None
        (new / "same.csv").write_text("x\n1\n")
        result = run()
        assert (result["files"], result["waiting"]) == ([], ["same.csv"])
    assert delivered(new) == ["a.csv", "same.csv"]


def test_what_fails_for_no_fault_of_the_file_is_delivered_still(
    run: Run, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (new / "a.csv").write_text("x\n1\n")
    (new / "b.csv").write_text("x\n2\n")

    def away(*_: object) -> None:
        raise InfrastructureError("no_cpus", "The Ray cluster offers no CPU.")

    with monkeypatch.context() as patch:
        patch.setattr(large_csv_job, "main", away)
        with pytest.raises(InfrastructureError):
            run()
    assert delivered(new) == ["a.csv", "b.csv"]
    assert statuses(run("two")) == {"a.csv": "done", "b.csv": "done"}


@pytest.mark.parametrize("where", ["begin", "conclude", "move", "write_json", "_process"])
def test_a_run_that_is_killed_anywhere_is_taken_over(
    run: Run, root: Path, new: Path, where: str
) -> None:
    (new / "a.csv").write_text("x\n1\n")
    place = {"begin": "Inbox.", "conclude": "Inbox."}.get(where, "")
    module = {"_process": "inbox", "write_json": "inbox"}.get(where, "claims")
    program = (
        "import os, sys\n"
        "from ray_jobs import job, cluster\n"
        "from ray_jobs.inbox import claims, job as inbox\n"
        "cluster.cpus = lambda: 1\n"
        f"real = {module}.{place}{where}\n"
        "def dies(*a, **k):\n    real(*a, **k)\n    os._exit(9)\n"
        f"{module}.{place}{where} = dies\n"
        "job.run(inbox.main, 0.0)\n"
    )
    environment = {
        "PYTHONPATH": str(Path(inbox_job.__file__).parents[2]),
        ENGINE_VARIABLE: "plain",
        REQUEST_VARIABLE: request(root, "killed").encode(),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert not any(record["type"] == "result" for record in decode(done.stdout))
    early = run("early")  # the dead run's claim is not stale yet
    assert early["done"] == 0
    if (new / ".claims" / "killed").is_dir():
        os.utime(new / ".claims" / "killed", (1, 1))
    late = run("late")
    outputs = list((root / "processed").glob("*.parquet"))
    assert len(outputs) == 1
    assert pl.read_parquet(outputs[0]).rows() == [(1,)]
    assert delivered(new) == []
    assert delivered(new / "done") == ["a.csv"]
    ledger = [json.loads(path.read_text()) for path in (new / ".ledger").glob("*.json")]
    assert [entry["state"] for entry in ledger] == ["done"]
    assert late["failed"] == 0
    assert not list((new / ".claims").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to be two users")
def test_files_of_other_users_are_moved_too() -> None:
    """As on a deployment: delivered by a person, taken by the service's own user."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from ray_jobs.inbox.claims import Inbox, move\n"
        "box = Inbox(Path(sys.argv[1]), 'one', 0.0, 60.0)\n"
        "os.setgid(10001), os.setuid(10001)\n"
        "with box.opened():\n"
        "    taken, _ = box.take(9)\n"
        "    move(taken[0], box.done)\n"
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        new = Path(folder, "new")
        deeper = new / ".claims" / "dead" / ".from-older"
        deeper.mkdir(parents=True)
        for path in (new, new / ".claims", deeper.parent, deeper):
            os.chown(path, 10001, 10001)
        for path in (new / "a.csv", new / "b.csv", deeper.parent / "c.csv", deeper / "d.csv"):
            path.write_text("x\n1\n")
        os.utime(deeper.parent, (1, 1))
        environment = {"PYTHONPATH": str(Path(inbox_job.__file__).parents[2])}
        subprocess.run([sys.executable, "-c", program, str(new)], env=environment, check=True)
        assert delivered(new / "done") == ["a.csv"]
        assert delivered(new) == ["b.csv", "c.csv", "d.csv"]
        assert not list((new / ".claims").iterdir())


def test_a_file_that_cannot_be_read_keeps_no_other(
    run: Run, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (new / "a.csv").write_text("x\n1\n")
    (new / "b.csv").write_text("x\n2\n")

    def unreadable(path: Path) -> str:
        if path.name == "a.csv":
            raise PermissionError(13, "Permission denied", str(path))
        return sha256(path)

    monkeypatch.setattr(inbox_job, "sha256", unreadable)  # root reads everything
    result = run()
    assert statuses(result) == {"a.csv": "failed", "b.csv": "done"}
    assert "cannot be read by user" in result["warnings"][0]
    assert delivered(new / "failed") == ["a.csv", "a.csv.reason.json"]
