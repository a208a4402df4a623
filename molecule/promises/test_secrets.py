"""Given and generated secrets are in their files and nowhere else.

This file's name sorts after most others on purpose: it searches every log of the run, which is at
-vvv with --diff from the first deploy on.
"""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest
from deployment import REPO, Deployment

#: A program for root on the host, which prints where it found each secret. The secrets come by
#: standard input, so that the search does not find itself.
SEARCH = r"""
import glob, json, os, subprocess

needles = {name: value.encode() for name, value in NEEDLES.items()}
found = []

def search(where, content):
    found.extend([name, where] for name, value in needles.items() if value in content)

for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    if path.split("/")[2] != str(os.getpid()):
        try:
            search(path + " of " + open(os.path.dirname(path) + "/comm").read().strip(),
                   open(path, "rb").read())
        except OSError:
            pass

def docker(*argv):
    done = subprocess.run(["docker", *argv], capture_output=True, check=True)
    return done.stdout + done.stderr

for box in docker("ps", "-aq").decode().split():
    search("docker inspect", docker("inspect", box))
    search("docker logs " + box, docker("logs", box))
for image in set(docker("images", "-q").decode().split()):
    search("docker history", docker("history", "--no-trunc", image) + docker("inspect", image))
for top in ("/var/log", "/tmp", "/home"):
    for folder, _, names in os.walk(top):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path) and os.path.getsize(path) < 2**26:
                mode = os.stat(path).st_mode & 0o777
                for name, value in needles.items():
                    if value in open(path, "rb").read():
                        found.append([name, "file", path, oct(mode)])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def needles(deployment: Deployment) -> dict[str, str]:
    """Return every secret, and its unkeyed hashes, from which it could be guessed offline."""
    secrets = deployment.secrets
    hashed = {f"sha256 of {n}": hashlib.sha256(v.encode()).hexdigest() for n, v in secrets.items()}
    return {**secrets, **hashed}


def test_planted_secrets_are_the_deployed_ones(deployment: Deployment) -> None:
    stored = json.loads(deployment.ssh("sudo", "cat", f"{deployment.home}/secrets/secrets.json"))
    planted = {name: value for name, value in deployment.canaries.items() if name in stored}
    assert planted.keys() >= {"redis_password", "flower_password", "ray_auth_token"}
    assert {name: stored[name] for name in planted} == planted


def test_no_log_of_the_operators_has_a_secret(
    deployment: Deployment, needles: dict[str, str]
) -> None:
    for path in deployment.state.glob("*.log"):
        log = path.read_text()
        assert "TASK [" in log, f"{path.name} holds no run, so this test would prove nothing"
        seen = [secret for secret, value in needles.items() if value in log]
        assert not seen, f"{path.name} shows {', '.join(seen)}"


def test_first_deploy_was_logged_as_loudly_as_can_be(deployment: Deployment) -> None:
    log = (deployment.state / "ansible.log").read_text()
    assert "ESTABLISH SSH CONNECTION" in log, "without -vvv the search above proves little"


def test_secrets_are_on_the_host_only_in_files_that_nobody_else_reads(
    deployment: Deployment, needles: dict[str, str]
) -> None:
    found = deployment.python(f"NEEDLES = {needles!r}\n{SEARCH}")
    elsewhere = [where for where in found if where[1] != "file"]
    assert not elsewhere, elsewhere
    below = (f"{deployment.home}/secrets/", f"{deployment.home}/projects/")
    misplaced = [where for where in found if not where[2].startswith(below)]
    assert not misplaced, misplaced
    readable = [where for where in found if where[3] not in ("0o400", "0o600")]
    assert not readable, readable
    assert any(where[0] == "redis_password" for where in found), "found nothing: searched nothing"


def test_no_committed_file_has_a_secret(deployment: Deployment) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = REPO / name
        content = path.read_bytes() if path.is_file() else b""
        seen = [secret for secret, value in deployment.secrets.items() if value.encode() in content]
        assert not seen, f"{name} holds {seen}"
