"""The task package that the load needs on the workers, and its inventory (docs/extend.md)."""

import json
import shutil
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "chaos"
version = "0.1.0"
dependencies = ["celery>=5.7"]

[project.entry-points."celray.tasks"]
chaos_tasks = "chaos_tasks"
chaos_ray = "chaos_ray"

[tool.hatch.build.targets.wheel]
include = ["chaos_tasks.py", "chaos_ray"]
"""

#: Beat sends a tick so often, in seconds.
TICK_SECONDS = 5.0


def write(folder: Path, more: str = "") -> None:
    """Write the package's source; ``more`` is code at the end of its module of tasks."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    tasks = (SUPPORT / "chaos_tasks.py").read_text()
    (folder / "chaos_tasks.py").write_text(tasks + more)
    shutil.copytree(
        SUPPORT / "chaos_ray", folder / "chaos_ray", ignore=shutil.ignore_patterns("__pycache__")
    )


def inventory(folder: Path, package: Path, lease: int) -> None:
    """Write the inventory: the package, two workers on one queue, all times scaled down."""
    variables = {
        "celery_workers": [
            {
                "name": "default",
                "queues": ["default", "celery", "ml", "data"],
                "concurrency": 3,
                "memory": "2g",
                "replicas": 2,
            }
        ],
        "celery_beat_schedule": [],
        "celery_packages": [
            {
                "name": "chaos",
                "source": "path",
                "location": str(package),
                "queues": "default",
                "schedule": [
                    {
                        "name": "chaos-tick",
                        "task": "chaos.tick",
                        "every_seconds": TICK_SECONDS,
                        "missed": "skip",
                    }
                ],
            }
        ],
        "celray_task_settings": {
            "visibility_timeout_seconds": lease,
            "soft_shutdown_seconds": 5,
        },
        "ray_memory_mb": 3072,
    }
    place = folder / "group_vars" / "all"
    place.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.yml").write_text("all: {}\n")
    (place / "chaos.yml").write_text(json.dumps(variables, indent=1) + "\n")  # JSON is YAML
