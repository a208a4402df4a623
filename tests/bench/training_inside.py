"""Runs in the Ray environment: one way to train on one table; prints JSON with seconds and memory.

``python training_inside.py generate|xgboost|celray FILE ROWS``. All ways read the same Parquet
file, hold the same share out, and grow as many trees on two CPUs. Importing is no part of the
seconds; that of Ray's workers is, since each training starts its own.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

COLUMNS = 20
ROUNDS = 100
CPUS = 2
#: Seconds between two looks at the memory, and looks between two at which processes there are.
LOOK = 0.05
LOOKS = 20
#: Rows of the training that goes first, so that Ray itself is there.
FEW = 1000


def generate(file: Path, rows: int) -> None:
    """Write numbers of which three decide."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    drawn = np.random.default_rng(1)
    for name, height in ((file, rows), (few(file), FEW)):
        x = drawn.normal(size=(height, COLUMNS))
        y = x[:, 0] + x[:, 1] * x[:, 2] + drawn.normal(size=height)
        frame = pl.DataFrame(x, [f"c{i}" for i in range(COLUMNS)])
        frame.with_columns(target=pl.Series(y)).write_parquet(name)


def few(file: Path) -> Path:
    """Name the small file beside a large one."""
    return file.with_name(f"few-{file.name}")


def taken(pids: list[int]) -> float:
    """Return the memory in MB that processes take together, what they map from files left out.

    By the kernel's counters: to have it count the pages of a Ray's twenty processes twenty times a
    second takes half a CPU of the two that are measured. What they share counts as the most that
    one of them has of it.
    """
    own, shared = 0, 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:  # it has gone
            continue
        kilobytes = {
            name: int(value.split()[0])
            for name, _, value in (line.partition(":") for line in text.splitlines())
            if name in {"RssAnon", "RssShmem"}
        }
        own += kilobytes.get("RssAnon", 0)
        shared = max(shared, kilobytes.get("RssShmem", 0))
    return (own + shared) / 1e3


def below(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    try:
        found = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except OSError:
        return []
    return [each for child in found for each in (child, *below(child))]


class Peak:
    """The most memory that this process and those below it take together, less Ray's own."""

    def __enter__(self) -> Self:
        """Begin to look."""
        self.most, self.ended = 0.0, threading.Event()
        self.rays = taken(below(os.getpid()))
        self.looking = threading.Thread(target=self.look)
        self.looking.start()
        return self

    def look(self) -> None:
        """Look until it has ended."""
        looks = 0
        while not self.ended.wait(LOOK):
            if looks % LOOKS == 0:
                family = [os.getpid(), *below(os.getpid())]
            looks += 1
            now = taken(family)
            self.most = max(self.most, now - self.rays)

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.ended.set()
        self.looking.join()


def xgboost(file: Path) -> float:
    """XGBoost alone, as its documentation has it; gives r2."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415
    import xgboost as alone  # noqa: PLC0415

    table = pl.read_parquet(file)
    y = table["target"].to_numpy().astype(np.float32)
    x = table.drop("target").cast(pl.Float32).to_numpy()
    learnt = len(y) * 4 // 5
    settings = {"max_depth": 6, "tree_method": "hist", "nthread": CPUS}
    model = alone.train(settings, alone.DMatrix(x[:learnt], y[:learnt]), ROUNDS)
    wrong = y[learnt:] - model.predict(alone.DMatrix(x[learnt:]))
    return float(1 - (wrong**2).mean() / y[learnt:].var())


def celray(file: Path) -> float:
    """The job's own code, on a Ray of its own or without, as the environment says."""
    from ray_jobs.job import Reporter  # noqa: PLC0415
    from ray_jobs.protocol import JobRequest  # noqa: PLC0415
    from ray_jobs.training import job as training_job  # noqa: PLC0415

    root = str(file.parent)
    parameters: dict[str, Any] = {
        "dataset_path": file.name,
        "target": "target",
        "task": "regression",
        "seed": 42,
        "test_fraction": 0.2,
        "metric": None,
        "exclude_columns": [],
        "name": None,
        "n_estimators": ROUNDS,
        "num_partitions": CPUS,
        "max_depth": 6,
        "learning_rate": 0.3,
        "min_child_weight": 1.0,
        "subsample": 1.0,
        "colsample_bytree": 1.0,
        "reg_alpha": 0.0,
        "reg_lambda": 1.0,
    }
    name = f"bench-{os.getpid()}"
    request = JobRequest(name, f"{root}/runs", root, f"{root}/models-{name}", "bench", parameters)
    Path(request.models_dir).mkdir(exist_ok=True)
    return float(training_job.main(request, Reporter(file.parent / "runs" / name))["avg_score"])


def main(way: str, file: Path, rows: int) -> None:
    """Go one way and say what it took."""
    if way == "generate":
        generate(file, rows)
        sys.stdout.write("{}\n")
        return
    go = {"xgboost": xgboost, "celray": celray}[way]
    started = time.perf_counter()
    go(few(file))
    startup = time.perf_counter() - started
    with Peak() as peak:
        started = time.perf_counter()
        score = go(file)
        seconds = time.perf_counter() - started
    found = {"seconds": seconds, "startup": startup, "megabytes": peak.most, "score": score}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
