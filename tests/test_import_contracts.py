"""Which part of the worker package may import which; the contracts are in its pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "tasks_pkg"
LINT = Path(sys.executable).with_name("lint-imports")


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-cache", "--config", "pyproject.toml"],
        cwd=package,
        env={**os.environ, "PYTHONPATH": "src", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold() -> None:
    done = lint(PACKAGE)

    assert done.returncode == 0, done.stdout
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("ray_jobs/protocol.py", "import tasks.settings", "Nothing imports upwards"),
        ("settings.py", "import tasks.broker.envelope", "Nothing imports upwards"),
        ("client/jobs.py", "import tasks.worker.fencing", "A client starts without"),
        ("broker/envelope.py", "import redbeat", "A client starts without"),
        ("ray_jobs/csv/dialect.py", "from ..tables import hive", "Within the jobs"),
        ("ray_jobs/inputs/paths.py", "import polars", "the standard library alone"),
        ("new_room/__init__.py", '"""A room without a place."""', "Nothing imports upwards"),
    ],
)
def test_an_import_that_a_contract_forbids_is_found(
    tmp_path: Path, module: str, line: str, broken: str
) -> None:
    shutil.copytree(PACKAGE / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE / "pyproject.toml", tmp_path)
    file = tmp_path / "src/tasks" / module
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as stream:
        stream.write(f"\n{line}\n")

    done = lint(tmp_path)

    assert done.returncode != 0
    assert any(broken in row for row in done.stdout.splitlines() if row.endswith("BROKEN"))
