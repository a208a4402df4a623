"""The names of variables that an inventory sets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .problem import Problem, nearest

TASK_SETTINGS = "celray_task_settings (your inventory)"


def known_variables(roles: Path) -> set[str]:
    """Every variable that a role has a default for, and the results that roles register."""
    # Names of groups, and what a task is given by the task that includes it.
    known = {"celery_worker", "celery_beat", "images_plan_source"}
    for file in roles.glob("*/tasks/*.yml"):
        known |= set(re.findall(r"^ +register: (\w+)", file.read_text(), flags=re.MULTILINE))
    for files in ("*/defaults/main.yml", "*/defaults/main/*.yml", "*/service.yml"):
        known |= variables_in(roles.glob(files))
    return known | derived_variables(roles)


def derived_variables(roles: Path) -> set[str]:
    """Return the variables that a role derives: they win over an inventory's."""
    return variables_in(roles.glob("*/vars/main.yml"))


def variables_in(files: Iterable[Path]) -> set[str]:
    """Return the variables that files of variables set."""
    found = (re.findall(r"^([a-z_]+):", file.read_text(), flags=re.MULTILINE) for file in files)
    return {name for names in found for name in names}


def prefixes_of(roles: Path) -> tuple[str, ...]:
    """How our variables begin: with their role's name, or with the operator's word for a worker."""
    return ("celery_", *(f"{role.name}_" for role in sorted(roles.iterdir()) if role.is_dir()))


def check_variables(
    names: Iterable[str], known: set[str], prefixes: tuple[str, ...]
) -> list[Problem]:
    """A variable with one of our prefixes that no role knows is a typo."""
    return [
        Problem(
            f"variable {name} does not exist{nearest(name, known)}",
            "your inventory or -e",
            "correct the name or remove it",
        )
        for name in sorted(names)
        if name.startswith(prefixes) and name not in known
    ]


def check_derived(given: Iterable[str], derived: set[str]) -> list[Problem]:
    """A variable that a role derives is set, which has no effect, or half of one.

    Parameters:
        given: the variables that the inventory and the command line set.
    """
    return [
        Problem(
            f"variable {name} is computed from others and cannot be set",
            "your inventory or -e",
            "remove it and set the variables that it is computed from (roles/celray/vars/main.yml)",
        )
        for name in sorted(set(given) & derived)
    ]


def read_fields(path: Path) -> set[str]:
    """Return the fields of the package's class Settings without importing it.

    Raises:
        ValueError: the file has no such class.
    """
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == "Settings":
            return {
                line.target.id
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            }
    raise ValueError(f"{path} has no class Settings")


def check_task_settings(given: Any, fields: Iterable[str]) -> list[Problem]:
    """Return the settings of the tasks that no worker reads: they would be ignored there."""
    if not isinstance(given, Mapping):
        what = f"the tasks' settings are {given!r}, not a mapping"
        return [Problem(what, TASK_SETTINGS, "write {name: value}")]
    return [
        Problem(
            f"the tasks have no setting {name!r}{nearest(name, fields)}",
            TASK_SETTINGS,
            "use a field's name of tasks_pkg/src/tasks/settings.py",
        )
        for name in given
        if name not in fields
    ]
