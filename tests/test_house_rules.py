"""Rules of the house that a reader relies on and a linter does not know."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from parts import REPO, ROLES, variables

#: The operator's own words, fixed by the interface; no role's prefix.
OPERATORS_WORDS = {
    "celery_workers",
    "celery_beat_schedule",
    "celery_packages",
    "ray_address",
    "ray_auth_mode",
    "ray_runtime_env",
}


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


def tracked(*patterns: str) -> list[Path]:
    """Files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [REPO / name for name in listed if (REPO / name).is_file()]


def options(role: Path) -> dict[str, Any]:
    specs = load(role / "meta/argument_specs.yml").get("argument_specs", {})
    return {name: spec for entry in specs.values() for name, spec in entry["options"].items()}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_argument_specs_are_in_step_with_its_defaults(role: Path) -> None:
    optional = {name for name, spec in options(role).items() if not spec.get("required")}
    assert optional == set(variables(role.name, "defaults"))
    required = options(role).keys() - optional
    assert not required & variables(role.name, "defaults").keys()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_options_are_described_in_sentences(role: Path) -> None:
    for name, spec in options(role).items():
        text = spec["description"]
        assert re.fullmatch(r"[A-Z].{15,}\.", text, re.DOTALL), f"{name}: {text}"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_says_what_it_is(role: Path) -> None:
    meta = load(role / "meta/main.yml")
    assert len(meta["galaxy_info"]["description"]) > 10
    # roles/celray holds what the others share and does nothing itself.
    assert (role / "tasks/main.yml").exists() or role.name == "celray"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_variables_carry_its_name(role: Path) -> None:
    names = {*variables(role.name, "defaults"), *variables(role.name, "vars")}
    own = OPERATORS_WORDS if role.name == "celray" else set()
    assert {name for name in names if not name.startswith(f"{role.name}_")} == own


def test_a_default_stands_in_one_place() -> None:
    seen: dict[str, str] = {}
    for role in ROLES:
        for name in variables(role.name, "defaults"):
            assert name not in seen, f"{name} in {role.name} and {seen[name]}"
            seen[name] = role.name


@pytest.mark.parametrize(
    ("patterns", "limit"),
    [
        (("roles/*/tasks/*.yml", "playbooks/*.yml", "site.yml"), 80),
        (("compose/*", "roles/*/templates/*"), 120),
    ],
    ids=["tasks", "templates"],
)
def test_files_stay_short_enough_to_read(patterns: tuple[str, ...], limit: int) -> None:
    lines = {str(path.relative_to(REPO)): text_lines(path) for path in tracked(*patterns)}
    assert lines
    assert not {name: count for name, count in lines.items() if count >= limit}


def text_lines(path: Path) -> int:
    return path.read_text().count("\n")


def test_compose_has_one_caller() -> None:
    """Nothing but the compose module runs compose."""
    words = re.compile(r"docker[- ]compose['\", ]+(-p|-f|up|down|stop|start|rm|restart)\b")
    callers = [
        path
        for path in tracked("roles", "playbooks", "Makefile", ".ci", "site.yml")
        if words.search(path.read_text(errors="replace"))
    ]
    assert callers == []


@cache
def registry_hosts() -> set[str]:
    """The package registries that this machine is set up to use, from the tools' own settings."""
    places = [*Path("/etc/apt").glob("sources.list*/*"), Path("/etc/apt/sources.list")]
    places += [Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".npmrc"]
    text = "\n".join(path.read_text(errors="replace") for path in places if path.is_file())
    pip = "from pip._internal.models.index import PyPI as p; print(p.url, p.file_storage_domain)"
    done = subprocess.run([sys.executable, "-c", pip], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "without pip's settings this test could not fail"
    text += "\n" + done.stdout.replace(" ", " https://")
    hosts = set(re.findall(r"https?://(?:[^/@\s]*@)?([^/:\s\"']+)", text))
    return {host for host in hosts if "." in host and not re.fullmatch(r"[\d.]+", host)}


def test_no_file_names_a_package_registry() -> None:
    """A clone must work wherever its operator's own package settings point."""
    named = {
        f"{path.relative_to(REPO)}: {host}"
        for path in tracked()
        for host in registry_hosts()
        if host in path.read_text(errors="replace")
    }
    assert len(registry_hosts()) >= 2
    assert named == set()


def test_no_file_names_a_path_of_this_machine() -> None:
    here = f"{REPO.parent}/"
    if len(REPO.parent.parts) < 2 or here in ("/root/", "/home/", "/srv/", "/opt/", "/tmp/"):  # noqa: S108
        pytest.skip(f"{here} is a name that any machine has")
    named = [path for path in tracked() if here in path.read_text(errors="replace")]
    assert named == []
