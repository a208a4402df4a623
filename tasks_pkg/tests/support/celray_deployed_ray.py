"""A Ray's environment as compose/_ray.j2 has it, with the keys that a deployment makes."""

import re
import subprocess
import sys
from pathlib import Path

from celray_testing import PACKAGE

TEMPLATE = PACKAGE.parent / "compose" / "_ray.j2"
PROGRAMS = PACKAGE.parent / "roles" / "ray" / "files"


def environment(folder: Path, secret: str = "") -> dict[str, str]:
    """Return the template's variables about Ray's behaviour.

    Args:
        folder: what a deployment mounts as /ray.
        secret: the cluster's, as where there are hosts in ray_worker; without one, a head alone.
    """
    make_cluster_key(folder, secret) if secret else make_key(folder)
    body = TEMPLATE.read_text().split("{% macro environment() %}")[1].split("endmacro")[0]
    of_cluster, of_one = body.split("{% if celray_ray_workers %}")[1].split("{% else %}")
    of_one = of_one.split("{% endif %}")[0]
    body = body.replace(of_one if secret else of_cluster, "")
    found = (re.fullmatch(r' +(RAY_\w+): "?([^"{]+?)"?', line) for line in body.splitlines())
    values = {match[1]: match[2].replace("/ray/", f"{folder}/") for match in found if match}
    assert "RAY_USE_TLS" in values, values
    del values["RAY_AUTH_TOKEN_PATH"]
    return values


def make_key(folder: Path) -> None:
    """Make the key and the certificate of a head that is alone."""
    _run("ray_tls.py", folder / "tls")


def make_cluster_key(folder: Path, secret: str) -> None:
    """Make the key and the certificate of a node of a cluster that has this secret."""
    (folder / "secret").write_text(secret)
    _run("ray_cluster_tls.py", folder / "cluster-tls", folder / "secret")


def _run(program: str, *arguments: Path) -> None:
    subprocess.run([sys.executable, str(PROGRAMS / program), *map(str, arguments)], check=True)
