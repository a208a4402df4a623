"""Third-party task packages (`celery_packages`): their identity, by content, and their wheels.

Wheels are made and collected here, on the control node, with the operator's own pip settings. A
pure-Python package that lies here as source or wheel becomes part of the layer of code, a few
kilobytes; everything else that packages need is installed in one layer below it.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from celray import REPO

SOURCES = ("path", "wheel", "git", "index")
#: Files of a source tree that are not part of its content.
LITTER = re.compile(r"^(\.git|\.venv.*|venv|build|dist|__pycache__|\.[a-z]+_cache|.*\.egg-info)$")
# What a wheel may be tagged with to run on the image's C library (Debian 12: 2.36), newest first.
GLIBC = (36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)


class PackageError(Exception):
    """A package that cannot be used; the message names it and the reason."""


@dataclass(frozen=True)
class Plan:
    """The packages' additions to the images.

    Parameters:
        code: package name to the digest of what it adds to the layer of code.
        worker: what has to be installed below that; empty where the locks have everything.
        ray: the same for the Ray image.
    """

    code: dict[str, str]
    worker: list[str]
    ray: list[str]


def tree(folder: Path) -> Iterator[Path]:
    """The files of a package's source tree that somebody wrote, in order."""
    for path in sorted(folder.iterdir()):
        if LITTER.match(path.name) or path.suffix == ".pyc":
            continue
        if path.is_dir():
            yield from tree(path)
        elif path.is_file():
            yield path


def location(package: Mapping[str, Any], base: Path) -> Path:
    """Return the location of a package's source; a relative one is in the inventory's directory."""
    return (base / Path(str(package["location"])).expanduser()).resolve()


def content(package: Mapping[str, Any], base: Path) -> str:
    """Return a digest of a package's identity: its files, or its origin and version."""
    total = hashlib.sha256(f"{package['source']} {package['name']}".encode())
    if package["source"] == "path":
        folder = location(package, base)
        for path in tree(folder):
            total.update(f"\0{path.relative_to(folder)}\0".encode() + path.read_bytes())
    elif package["source"] == "wheel":
        total.update(location(package, base).read_bytes())
    else:
        total.update(f"{package.get('location', '')}\0{package['version']}".encode())
    return total.hexdigest()[:12]


def locked(name: str) -> dict[str, str]:
    """Return project name -> version, from one of celray's locks."""
    text = (REPO / f"tasks_pkg/requirements/{name}.lock").read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE)
    return {str(canonicalize_name(project)): version for project, version in found}


def open_requirements(texts: Iterable[str], lock: Mapping[str, str], python: str) -> list[str]:
    """Those requirements that the lock does not already fulfil. `tasks` is ours, and always there.

    Raises:
        PackageError: one is no requirement, or asks for another version than is locked.
    """
    missing = []
    for text in texts:
        try:
            wanted = Requirement(str(text))
        except InvalidRequirement as error:
            raise PackageError(
                f"{text!r} is no requirement: {str(error).splitlines()[0]}"
            ) from None
        about = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
        name = str(canonicalize_name(wanted.name))
        if name == "tasks" or (wanted.marker and not wanted.marker.evaluate(about)):
            continue
        if name not in lock or wanted.extras:
            missing.append(str(wanted))
        elif not wanted.specifier.contains(lock[name], prereleases=True):
            raise PackageError(
                f"{wanted} asks for another version than celray has, {name} {lock[name]}"
            )
    return missing


def metadata(wheel: Path) -> tuple[bool, list[str]]:
    """Return whether a wheel is pure Python, and its requirements."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist() if _info(name)}
        pure = Parser().parsestr(archive.read(names["WHEEL"]).decode())["Root-Is-Purelib"]
        about = Parser().parsestr(archive.read(names["METADATA"]).decode())
    return pure.strip().lower() == "true", list(about.get_all("Requires-Dist") or [])


def _info(name: str) -> bool:
    return name.count("/") == 1 and name.split("/", maxsplit=1)[0].endswith(".dist-info")


def in_code(package: Mapping[str, Any], base: Path) -> bool:
    """Return whether a package becomes part of the code layer."""
    if package["source"] == "wheel":
        return metadata(location(package, base))[0]
    return bool(package["source"] == "path")


def dependencies(package: Mapping[str, Any], base: Path) -> list[str]:
    """Return a package's requirements, as far as they are known without a build."""
    if package["source"] == "wheel":
        return metadata(location(package, base))[1]
    if package["source"] != "path":
        return []
    project = project_of(location(package, base))
    return list(project.get("dependencies", []))


def project_of(folder: Path) -> dict[str, Any]:
    """Return the [project] table of a source tree's pyproject.toml; empty if there is none."""
    try:
        table = tomllib.loads((folder / "pyproject.toml").read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    return dict(table.get("project", {}))


def plan(packages: list[dict[str, Any]], base: Path, python: str) -> Plan:
    """Return the packages' additions to the images, without building anything.

    Raises:
        PackageError: a requirement does not fit.
    """
    code: dict[str, str] = {}
    below: list[str] = []
    on_ray: list[str] = []
    for package in packages:
        name = str(canonicalize_name(package["name"]))
        if in_code(package, base):
            code[name] = content(package, base)
            if "dependencies" in project_of(location(package, base)).get("dynamic", []):
                below.append(f"{name} ({content(package, base)})")
        else:
            below.append(f"{name} ({content(package, base)})")
        wanted = [*dependencies(package, base), *package.get("requirements", [])]
        below += open_requirements(wanted, locked("worker"), python)
        on_ray += open_requirements(package.get("ray_requirements", []), locked("ray"), python)
    return Plan(code, sorted(set(below)), sorted(set(on_ray)))


# --- wheels, on the control node ------------------------------------------------------------------


def pip(*words: str) -> None:
    """Run pip with the operator's settings; if it fails, its last lines are the error."""
    argv = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stderr + done.stdout).strip().splitlines()[-12:])
        raise PackageError(f"pip {words[0]} … exit {done.returncode}:\n{said}")


def wheel_of(package: Mapping[str, Any], base: Path, cache: Path) -> Path:
    """Return a package's own wheel, built once for its content."""
    folder = cache / f"package-{content(package, base)}"
    if not any(folder.glob("*.whl")):
        with tempfile.TemporaryDirectory(dir=cache) as work:
            made = Path(work, "wheel")
            made.mkdir()
            if package["source"] == "wheel":
                shutil.copy(location(package, base), made)
            else:
                pip("wheel", "--no-deps", "--wheel-dir", str(made), _wanted(package, base, work))
            _check_name(next(made.glob("*.whl")), package)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return next(folder.glob("*.whl"))


def _check_name(wheel: Path, package: Mapping[str, Any]) -> None:
    made = str(canonicalize_name(wheel.name.split("-")[0]))
    if made != canonicalize_name(package["name"]):
        raise PackageError(
            f"package {package['name']}: its source ({package['source']} {package['location']}) is "
            f"the project {made}; give that name"
        )


def _wanted(package: Mapping[str, Any], base: Path, work: str) -> str:
    """Return pip's argument for a wheel; a source tree is copied: builds leave files in it."""
    if package["source"] == "git":
        # Without "NAME @": older pips accept no file:// repository behind it.
        return f"git+{package['location']}@{package['version']}"
    if package["source"] == "index":
        return f"{package['name']}=={package['version']}"
    folder, copy = location(package, base), Path(work, "source")
    for path in tree(folder):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return str(copy)


def unpacked(wheel: Path, name: str) -> dict[str, str]:
    """A pure wheel's files, path to content in base64: what installing it would lay down."""
    if not metadata(wheel)[0]:
        raise PackageError(
            f"package {name} builds a wheel for one platform; build that for the images' Python "
            "and give it as source: wheel"
        )
    with zipfile.ZipFile(wheel) as archive:
        return {
            item: base64.b64encode(archive.read(item)).decode()
            for item in archive.namelist()
            if not item.endswith("/") and ".data/" not in item
        }


def wheelhouse(cache: Path, lock: str, own: list[Path], wanted: list[str], python: str) -> Path:
    """A directory with every wheel that a layer installs: `own`, and what the lock lacks."""
    key = "\n".join([*wanted, *(wheel.name + str(wheel.parent) for wheel in own), python])
    folder = cache / f"wheels-{lock}-packages-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
    with tempfile.TemporaryDirectory(dir=cache) as work:
        made, constraints = Path(work, "wheels"), Path(work, "constraints.txt")
        made.mkdir()
        pins = locked(lock)
        constraints.write_text("".join(f"{name}=={pin}\n" for name, pin in pins.items()))
        if wanted:
            options = [f"--python-version={python}", "--implementation=cp", *platforms]
            options += [f"--platform=manylinux2014_{machine}", "--only-binary=:all:"]
            pip("download", *options, "-c", str(constraints), "--dest", str(made), *wanted)
        for path in made.iterdir():
            if str(canonicalize_name(path.name.split("-")[0])) in pins:
                path.unlink()
        for wheel in own:
            shutil.copy(wheel, made)
        made.rename(folder)
    return folder


def collect(packages: list[dict[str, Any]], base: Path, cache: Path, python: str) -> dict[str, Any]:
    """Make and collect all wheels: files of the layer of code, wheelhouses of the layers below."""
    cache.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    own: list[Path] = []
    wanted: list[str] = []
    on_ray: list[str] = []
    with (cache / ".packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several hosts are deployed in parallel
        for package in packages:
            wheel = wheel_of(package, base, cache)
            if in_code(package, base):
                files |= unpacked(wheel, package["name"])
            else:
                own.append(wheel)
            asked = [*metadata(wheel)[1], *package.get("requirements", [])]
            wanted += open_requirements(asked, locked("worker"), python)
            on_ray += open_requirements(package.get("ray_requirements", []), locked("ray"), python)
        houses = {
            "worker_extra": wheelhouse(cache, "worker", own, sorted(set(wanted)), python),
            "ray": wheelhouse(cache, "ray", [], sorted(set(on_ray)), python),
        }
    return {"files": files, "wheelhouses": {name: str(path) for name, path in houses.items()}}
