"""Compose projects on the real engine, converged by our module; names start with t-tests-."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import debian
import pytest
import yaml
from parts import load, run_module

ACTION = "roles/compose_project/action_plugins/celray_compose.py"
MODULE = "roles/compose_project/library/celray_compose.py"
PREFIX = f"t-tests-{os.getpid()}"
IMAGE = f"{PREFIX}:1"


def docker(*argv: str) -> str:
    """Run the engine's client and return its output."""
    return debian.run("docker", *argv)


def make_image(work: Path) -> None:
    """Make an image of one static program, without a registry."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.fail("no container engine answers here: .ci/engine installs and starts one")
    busybox = next(debian.unpacked("busybox-static").glob("**/bin/busybox"))
    with tarfile.open(work / "image.tar", "w") as tar:
        tar.add(busybox, "bin/busybox")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    docker("import", str(work / "image.tar"), IMAGE)


def service(name: str, script: str = "", **settings: Any) -> dict[str, Any]:
    """Return a service that runs until it is stopped."""
    script = script or "trap 'exit 0' TERM; while :; do busybox sleep 0.1; done"
    return {
        "container_name": f"{PREFIX}-{name}",
        "image": IMAGE,
        "network_mode": "none",
        "command": ["sh", "-c", script],
        "stop_grace_period": "2s",
        **settings,
    }


@dataclass
class Project:
    """One compose project and the files that it mounts."""

    folder: Path
    compose: str
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    secret_files: dict[str, str] = field(default_factory=dict)
    wait_seconds: int = 30
    may_restart: bool = False

    def prepare(self, services: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
        """Return what the action plugin passes to the module for these services."""
        prepared: tuple[str, dict[str, Any], list[str]] = load(ACTION).prepare(
            yaml.safe_dump({"services": services}),
            str(self.folder),
            self.files | self.secret_files,
            "key",
        )
        return prepared

    def converge(self, *, check: bool = False, canary: str = "") -> dict[str, Any]:
        """Run the module on the current services, with a canary behind stand-ins; its result."""
        text, services, folders = self.prepare(self.services)
        stand_in = None
        if canary:
            others = {
                name: {**service, "container_name": f"{service['container_name']}-stand-in"}
                for name, service in self.services.items()
            }
            text_of_others, prepared, _ = self.prepare(others)
            stand_in = {
                "text": text_of_others,
                "services": prepared,
                "canary": ["busybox", "sh", "-c", canary],
            }
        args = {
            "project": f"{PREFIX}-project",
            "folder": str(self.folder),
            "compose": [self.compose],
            "docker": "docker",
            "text": text,
            "services": services,
            "files": self.files,
            "secret_files": self.secret_files,
            "folders": folders,
            "uid": os.getuid(),
            "gid": os.getgid(),
            "wait_seconds": self.wait_seconds,
            "may_restart": self.may_restart,
            "stand_in": stand_in,
        }
        return run_module(MODULE, args, check=check)

    def mount(self, name: str) -> str:
        """Return the volume entry for a file of the project."""
        return f"{self.folder}/files/{name}:/etc/{name}:ro"

    def running(self) -> dict[str, tuple[str, str]]:
        """Return id and start time of every running container, by service."""
        label = f"label=com.docker.compose.project={PREFIX}-project"
        ids = docker("ps", "-q", "--no-trunc", "--filter", label).split()
        boxes = json.loads(docker("inspect", *ids)) if ids else []
        return {
            box["Name"].removeprefix(f"/{PREFIX}-"): (box["Id"], box["State"]["StartedAt"])
            for box in boxes
        }

    def remove(self) -> None:
        """Remove all containers of the project."""
        for project in (f"{PREFIX}-project", f"{PREFIX}-project-stand-in"):
            label = f"label=com.docker.compose.project={project}"
            if ids := docker("ps", "-aq", "--filter", label).split():
                docker("rm", "--force", *ids)
