"""What a process loads: a client no worker's code, and a worker no library of the jobs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tasks

SOURCE = Path(tasks.__file__).parent
#: Imports the modules that are named, and prints all that is loaded then.
LOADED = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded(*modules: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(modules)],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["tasks.client", "tasks.cli", "tasks.local"])
def test_a_client_loads_no_code_of_workers_results_or_beat(module: str) -> None:
    found = loaded(module)

    rooms = ("worker", "results", "beat", "operations", "maintenance", "app")
    ours = {name for name in found if name.startswith(tuple(f"tasks.{room}" for room in rooms))}
    assert not ours
    assert not {"redbeat", "ray", "polars", "celery.worker", "celery.beat"} & found


def worker_modules() -> list[str]:
    """All modules but the jobs' and those that act when they are imported."""
    files = [file.relative_to(SOURCE.parent) for file in SOURCE.rglob("*.py")]
    names = {
        str(file.with_suffix("")).replace("/", ".").removesuffix(".__init__") for file in files
    }
    acting = {"tasks.app", "tasks.monitor", "tasks.client.shell", "tasks.ops"}
    return sorted(
        name
        for name in names - acting
        if "__main__" not in name and not name.startswith("tasks.ray_jobs")
    )


@pytest.mark.slow
def test_what_workers_load_of_the_jobs_is_the_standard_library_alone() -> None:
    """A worker has no polars, and what both sides must agree on exists once."""
    shared = {name for name in loaded(*worker_modules()) if name.startswith("tasks.ray_jobs")}

    assert {"tasks.ray_jobs.protocol", "tasks.ray_jobs.csv.files"} <= shared
    for name in sorted(shared):
        path = SOURCE.parent / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            foreign = {one.partition(".")[0] for one in names} - sys.stdlib_module_names
            assert not foreign, f"{name} imports {', '.join(sorted(foreign))}"
