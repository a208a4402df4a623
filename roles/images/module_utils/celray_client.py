"""What the modules that make and ship images share: the engine's client, and errors of a step."""

from __future__ import annotations

import subprocess
from typing import Any


class StepError(Exception):
    """A step that failed; the message is for the operator."""


def call(*argv: str, **options: Any) -> str:
    """Run a program; if it fails, its last lines are the error."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        words = "\n".join((done.stderr + done.stdout).strip().splitlines()[-15:])
        raise StepError(f"{' '.join(argv[:3])} … exit {done.returncode}:\n{words}")
    return str(done.stdout)


def list_images(docker: str) -> dict[str, str]:
    """Return tag -> id of every image that has a tag."""
    rows = call(
        docker, "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"
    ).splitlines()
    return dict(row.split(" ", 1) for row in rows)
