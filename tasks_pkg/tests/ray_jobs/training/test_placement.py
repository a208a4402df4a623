"""A model is grown in as few processes as the free CPUs allow, and best in the job's own."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celray_testing import PACKAGE

from tasks.ray_jobs.training.placement import Place, arrange

HERE = Path(__file__).parent
SAMPLE = PACKAGE / "samples" / "winequality.csv"

#: All clusters of up to three nodes with up to four free CPUs each, and more than they have wanted.
CLUSTERS = [
    (dict(zip("abc", cpus, strict=False)), wanted)
    for nodes in (1, 2, 3)
    for cpus in itertools.product(range(5), repeat=nodes)
    for wanted in range(1, 4 * nodes + 2)
]


def test_it_is_here_where_all_that_is_wanted_is_here() -> None:
    for free, wanted in CLUSTERS:
        place = arrange(wanted, free, "a")
        assert (place == Place(1, wanted, here=True)) == (free["a"] >= wanted), (free, wanted)


def test_every_free_cpu_can_be_had_and_no_node_gives_more_than_it_has() -> None:
    for free, wanted in CLUSTERS:
        place = arrange(wanted, free, "a")
        assert (place is not None) == (sum(free.values()) >= wanted), (free, wanted)
        if place is not None:
            assert place.cpus == wanted
            assert sum(there // place.cpus_each for there in free.values()) >= place.processes


def test_no_fewer_processes_would_do() -> None:
    for free, wanted in CLUSTERS:
        place = arrange(wanted, free, "a")
        for fewer in range(1, 0 if place is None else place.processes):
            each, rest = divmod(wanted, fewer)
            fits = sum(there // each for there in free.values()) >= fewer
            assert rest or not fits, (free, wanted, place, fewer)


def test_a_node_that_is_not_known_yet_has_no_cpu() -> None:
    assert arrange(1, {}, "a") is None
    assert arrange(2, {"b": 2}, "a") == Place(1, 2, here=False)


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("two")
    shutil.copy(SAMPLE, folder)
    done = subprocess.run(
        [sys.executable, str(HERE / "two_nodes.py"), str(folder)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(PACKAGE / "src"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(400)
def test_a_training_takes_the_cpus_that_there_are(two_nodes: dict[str, Any]) -> None:
    here, both = two_nodes["here"], two_nodes["both"]
    # In the job's own process, which holds two of the four CPUs and starts nothing.
    assert (here["num_partitions"], here["free"], here["ray_train"]) == (2, [2], False)
    # On both nodes where more are wanted than one has.
    assert (both["num_partitions"], both["free"], both["ray_train"]) == (4, [], True)
    assert both["avg_score"] == pytest.approx(here["avg_score"], abs=0.03)
    assert not any("lowered" in each for each in [*here["warnings"], *both["warnings"]])


def test_what_others_hold_is_waited_for_and_then_done_without(two_nodes: dict[str, Any]) -> None:
    fewer, none = two_nodes["fewer"], two_nodes["none"]
    assert fewer["num_partitions"] == 1
    assert "num_partitions lowered from 2 to 1: no more CPUs became free" in fewer["warnings"]
    assert none["kind"] == "cluster_busy"
    assert "No CPU of the Ray cluster became free" in none["error"]
