#!/usr/bin/python
"""One step of making an image on this host: list, probe, bootstrap, wheels, build, tidy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_image
short_description: Make container images without a registry and without a network in the build
options:
  do:
    description: The step.
    choices: [list, probe, absent, bootstrap, wheels, build, push, pull, tidy]
    required: true
  docker: {description: The engine's client, type: str, required: true}
  image: {description: "probe, build: the image's tag", type: str}
  images: {description: "bootstrap: tag to packages; absent, push, pull, tidy: tags", type: raw}
  registry: {description: "absent, push, pull: the registry and its folder", type: str}
  suite: {description: "bootstrap: the distribution's release", type: str}
  options:
    description: "bootstrap: further mmdebstrap options"
    type: list
    elements: str
    default: []
  cache: {description: "wheels, bootstrap: directory for the results", type: path}
  lock: {description: "wheels: the lock's text", type: str}
  name: {description: "wheels, build: the name of one of our images", type: str}
  python: {description: "wheels: the image's Python, as in 3.11", type: str}
  context: {description: "build: path to text of the files in the context", type: dict, default: {}}
  binaries:
    description: "build: path to content, in base64, of further files in the context"
    type: dict
    default: {}
  wheels: {description: "build: directory of wheels that goes into the context", type: path}
  wheels_archive: {description: "build: a tar file of such a directory", type: path}
  build_args: {description: "build: build arguments", type: dict, default: {}}
  pull: {description: "build: an image to pull first if it is missing", type: str, default: ""}
  network: {description: "build: the network of its steps", choices: [none, host], default: none}
  stored: {description: "tidy: versions whose images stay", type: list, elements: int, default: []}
  history: {description: "tidy: the directory of the versions (roles/history)", type: path}
author: celray
"""

EXAMPLES = r"""
- name: List the images
  celray_image: {do: list, docker: docker}
"""

RETURN = r"""
images: {description: "list: tag to id", returned: when listed, type: dict}
absent: {description: "absent: those that the registry lacks", returned: when asked, type: list}
"""

import base64
import contextlib
import fcntl
import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from ansible.module_utils import celray_client  # type: ignore[attr-defined]  # our own
from ansible.module_utils.basic import AnsibleModule

PROBE_SECONDS = 20
ENGINE_SOCKET = "/var/run/docker.sock"
# Wheel tags that run on the image's C library (Debian 12: 2.36), newest first.
GLIBC = (36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)


StepError, call = celray_client.StepError, celray_client.call
list_images = celray_client.list_images


@contextlib.contextmanager
def alone(cache: str) -> Iterator[None]:
    """Wait until no other deployment from this host is writing to this cache."""
    handle = os.open(os.path.join(cache, ".lock"), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over the engine's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(ENGINE_SOCKET)


def ask(image: str) -> tuple[int, str]:
    """Ask an image's registry through the engine; return the HTTP status, 0 if none, and why."""
    connection = UnixConnection("localhost", timeout=PROBE_SECONDS)
    path = f"/v1.30/distribution/{quote(image, safe='')}/json"
    try:
        connection.request("GET", path, headers=login(image.partition("/")[0]))
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except TimeoutError:
        return 0, f"no answer within {PROBE_SECONDS} s"
    except (OSError, http.client.HTTPException) as error:
        return 0, f"the engine gave no answer ({error})"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        body = str(json.loads(body)["message"])
    return answer.status, body.strip()


def probe(image: str) -> dict[str, Any]:
    """Ask the registry for an image's digest through the engine. Pulls nothing."""
    status, why = ask(image)
    reachable = status == http.HTTPStatus.OK
    return {"reachable": reachable, "why": "" if reachable else why}


# --- a registry of the operator's -----------------------------------------------------------------


def login(registry: str) -> dict[str, str]:
    """Return the header with what `docker login` has stored for a registry; none: no header."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        with open(os.path.expanduser("~/.docker/config.json")) as handle:
            stored = json.load(handle)["auths"][registry]["auth"]
        user, _, password = base64.b64decode(stored).decode().partition(":")
        said = {"username": user, "password": password, "serveraddress": registry}
        return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(said).encode()).decode()}
    return {}


def reference(registry: str, tag: str) -> str:
    """Return an image's name in the operator's registry."""
    return f"{registry}/{tag.removeprefix('celray/')}"


def absent(params: dict[str, Any]) -> dict[str, Any]:
    """Return the images that the operator's registry lacks.

    Raises:
        StepError: it does not answer, or refuses.
    """
    registry, lacking = params["registry"], []
    for tag in params["images"]:
        status, why = ask(reference(registry, tag))
        if status == http.HTTPStatus.NOT_FOUND:
            lacking.append(tag)
        elif status != http.HTTPStatus.OK:
            raise StepError(
                f"images_registry: {registry} does not answer {platform.node()}: {why}; correct "
                "it, `docker login` there, or remove images_registry: images are then sent over SSH"
            )
    return {"changed": False, "absent": lacking}


def push(params: dict[str, Any]) -> dict[str, Any]:
    docker = params["docker"]
    for tag in params["images"]:
        there = reference(params["registry"], tag)
        call(docker, "tag", tag, there)
        try:
            call(docker, "push", "--quiet", there)
        finally:
            call(docker, "rmi", there)
    return {"changed": bool(params["images"])}


def pull(params: dict[str, Any]) -> dict[str, Any]:
    docker = params["docker"]
    lacking = sorted(set(params["images"]) - set(list_images(docker)))
    for tag in lacking:
        there = reference(params["registry"], tag)
        call(docker, "pull", "--quiet", there)
        call(docker, "tag", there, tag)
        # The tag that celray removes when nothing uses it any more is the only one.
        call(docker, "rmi", there)
    return {"changed": bool(lacking), "pulled": lacking}


# --- bootstrap from the distribution --------------------------------------------------------------


def debian_sources(suite: str) -> list[str]:
    """Return the build host's Debian mirrors for the suite; none: mmdebstrap's default."""
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    try:
        rows = call(
            "apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"
        )
    except (StepError, OSError):
        return []
    lines = set()
    for row in rows.splitlines():
        uri, release, component = row.split()
        kind = next((kind for kind in ("-security", "-updates") if release.endswith(kind)), "")
        if "security" in uri:
            kind = "-security"
        if component == "main" and not release.endswith(("-backports", "-proposed-updates")):
            lines.add(f"deb {uri} {suite}{kind} {component}")
    return sorted(lines)


def bootstrap(params: dict[str, Any], tag: str, packages: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=params["cache"]) as work:
        tar = os.path.join(work, "root.tar")
        call(
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            f"--include={','.join(packages)}",
            *params["options"],
            params["suite"],
            tar,
            *debian_sources(params["suite"]),
        )
        call(params["docker"], "import", "--change", "ENV LANG=C.UTF-8", tar, tag)


def bootstrap_all(params: dict[str, Any]) -> dict[str, Any]:
    if not shutil.which("mmdebstrap"):
        raise StepError("mmdebstrap is missing on the build host: apt-get install -y mmdebstrap")
    there = list_images(params["docker"])
    missing = {tag: packages for tag, packages in params["images"].items() if tag not in there}
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(bootstrap, params, tag, packages) for tag, packages in missing.items()]
        for job in jobs:
            job.result()
    return {"changed": bool(missing), "made": sorted(missing)}


# --- wheels ---------------------------------------------------------------------------------------


def pip_command(cache: str) -> list[str]:
    """Return a working pip: this interpreter's, or that of an environment made for it."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    tool = os.path.join(cache, "pip")
    if not os.path.exists(f"{tool}/bin/pip"):
        try:
            call(sys.executable, "-m", "venv", tool)
        except StepError as error:
            raise StepError(
                f"the build host has no pip: apt-get install -y python3-venv ({error})"
            ) from error
    return [f"{tool}/bin/pip"]


def read(path: str) -> str:
    """Return a file's text; an empty text if it is missing."""
    try:
        with open(path) as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def wheels(params: dict[str, Any]) -> dict[str, Any]:
    """Download exactly what the lock names, with this host's own index, proxy and CA settings."""
    cache, lock, name = (params[key] for key in ("cache", "lock", "name"))
    os.makedirs(cache, exist_ok=True)
    folder = os.path.join(cache, f"wheels-{name}")
    stamp = os.path.join(folder, ".lock")
    if read(stamp) == lock:
        return {"changed": False}
    shutil.rmtree(folder, ignore_errors=True)  # an older lock's wheels; pip's cache has the rest
    os.makedirs(folder)
    requirements = os.path.join(cache, f"{name}.lock")
    with open(requirements, "w") as handle:
        handle.write(lock)
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
    platforms += [f"--platform=manylinux2014_{machine}", f"--platform=manylinux1_{machine}"]
    call(
        *pip_command(cache),
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        f"--python-version={params['python']}",
        "--implementation=cp",
        *platforms,
        "--dest",
        folder,
        "-r",
        requirements,
    )
    with open(stamp, "w") as handle:
        handle.write(lock)
    return {"changed": True}


# --- build ----------------------------------------------------------------------------------------


def link_tree(source: str, target: str) -> None:
    """Copy a directory by hard links where the file system allows."""
    try:
        shutil.copytree(source, target, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def open_modes(folder: str, *, leave: str) -> None:
    """Make a build context readable by the images' user, whatever its umask or clone.

    Parameters:
        leave: a folder of it that only the build reads; its files are links to a cache.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != leave]
        os.chmod(place, 0o755)  # noqa: S103 - what the image's user has to enter
        for name in files:
            os.chmod(os.path.join(place, name), 0o644)


def build(params: dict[str, Any]) -> dict[str, Any]:
    if params["image"] in list_images(params["docker"]):
        return {"changed": False}
    if params["pull"] and params["pull"] not in list_images(params["docker"]):
        call(params["docker"], "pull", params["pull"])
    with tempfile.TemporaryDirectory(dir=params["cache"]) as context:
        for name, text in params["context"].items():
            path = os.path.join(context, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as handle:
                handle.write(text)
        for name, text in params["binaries"].items():
            path = os.path.join(context, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as binary:
                binary.write(base64.b64decode(text))
        open_modes(context, leave="wheelhouse")
        if params["wheels"]:
            link_tree(params["wheels"], os.path.join(context, "wheelhouse"))
        if params["wheels_archive"]:
            os.makedirs(os.path.join(context, "wheelhouse"))
            call("tar", "-xf", params["wheels_archive"], "-C", os.path.join(context, "wheelhouse"))
        args = [
            word
            for key, value in params["build_args"].items()
            for word in ("--build-arg", f"{key}={value}")
        ]
        # --force-rm: the legacy builder would leave the container of a failed step.
        options = ("--force-rm", "--network", params["network"], "-t", params["image"])
        call(params["docker"], "build", *options, *args, context)
    # The legacy builder keeps the stages of a build as images without a name.
    call(params["docker"], "image", "prune", "--force", "--filter", "label=celray.stage=build")
    return {"changed": True}


def images_of(history: str, versions: list[int]) -> set[str]:
    """Return the images of stored versions (roles/history)."""
    found: set[str] = set()
    for number in versions:
        # A version without this host has no file here.
        with contextlib.suppress(FileNotFoundError):
            with open(os.path.join(history, "versions", f"{number}.json")) as handle:
                projects = json.load(handle)["projects"]
            found |= {image for project in projects.values() for image in project["images"]}
    return found


def tidy(params: dict[str, Any]) -> dict[str, Any]:
    """Remove celray's images that are unwanted, and used by no container and no version."""
    ours = [tag for tag in list_images(params["docker"]) if tag.startswith("celray/")]
    used = call(params["docker"], "ps", "-a", "--format", "{{.Image}}").split()
    removed = []
    for tag in sorted(
        set(ours)
        - set(params["images"])
        - set(used)
        - images_of(params["history"], params["stored"])
    ):
        done = subprocess.run([params["docker"], "rmi", tag], capture_output=True, check=False)
        removed += [tag] if done.returncode == 0 else []
    return {"changed": bool(removed), "removed": removed}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "do": {
                "choices": [
                    "list",
                    "probe",
                    "absent",
                    "bootstrap",
                    "wheels",
                    "build",
                    "push",
                    "pull",
                    "tidy",
                ],
                "required": True,
            },
            "docker": {"type": "str", "required": True},
            "image": {"type": "str"},
            "images": {"type": "raw"},
            "suite": {"type": "str"},
            "options": {"type": "list", "elements": "str", "default": []},
            "cache": {"type": "path"},
            "lock": {"type": "str"},
            "name": {"type": "str"},
            "python": {"type": "str"},
            "context": {"type": "dict", "default": {}},
            "binaries": {"type": "dict", "default": {}},
            "wheels": {"type": "path"},
            "wheels_archive": {"type": "path"},
            "build_args": {"type": "dict", "default": {}},
            "pull": {"type": "str", "default": ""},
            "network": {"choices": ["none", "host"], "default": "none"},
            "registry": {"type": "str"},
            "stored": {"type": "list", "elements": "int", "default": []},
            "history": {"type": "path"},
        },
        supports_check_mode=True,
    )
    steps = {
        "list": lambda params: {"changed": False, "images": list_images(params["docker"])},
        "probe": lambda params: {"changed": False, **probe(params["image"])},
        "absent": absent,
        "bootstrap": bootstrap_all,
        "wheels": wheels,
        "build": build,
        "push": push,
        "pull": pull,
        "tidy": tidy,
    }
    # Other users must read the results: images, and a cache without secrets.
    os.umask(0o022)
    do = module.params["do"]
    if module.check_mode and do not in ("list", "probe", "absent"):
        module.exit_json(changed=True)
    cache = module.params["cache"]
    if cache:
        os.makedirs(cache, exist_ok=True)
    try:
        with alone(cache) if cache else contextlib.nullcontext():
            result = steps[do](module.params)
        module.exit_json(**result)
    except StepError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
