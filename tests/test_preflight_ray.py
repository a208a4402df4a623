"""A Ray cluster of others: it answers, takes the token and has our versions, or nothing changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from celray.preflight import ray
from parts import load, play, run_module

MODULE = "roles/preflight/library/celray_ray.py"
celray_ray: Any = load(MODULE)
OURS = {"ray": "2.60.0", "python": "3.11"}


class Dashboard(BaseHTTPRequestHandler):
    """Answers as Ray 2.60's does; the token is `right`."""

    answer: object = {"data": {"rayVersion": "2.49.0", "pythonVersion": "3.10.4"}}

    def do_GET(self) -> None:
        """Answer one question."""
        right = self.headers.get("Authorization") == "Bearer right"
        known = self.path == "/api/v0/cluster_metadata"
        self.send_response(200 if right and known else 404 if right else 401)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def dashboard() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def one(answer: dict[str, Any], mode: str = "token") -> str:
    """The one finding about an answer, as a line."""
    (finding,) = ray.check_answer("http://ray.example:8265", mode, answer, OURS, "host1")
    return f"{finding.what} | {finding.source} | {finding.fix}"


def test_the_versions_are_read_with_the_token(dashboard: str) -> None:
    wanted = {"status": 200, "error": "", "ray": "2.49.0", "python": "3.10.4"}
    assert celray_ray.ask(dashboard, "right") == wanted
    told = run_module(MODULE, {"address": dashboard, "token": "right"}, check=True)
    assert {name: told[name] for name in wanted} == wanted


@pytest.mark.slow
def test_a_host_asks_with_the_token_that_another_one_keeps(dashboard: str, tmp_path: Path) -> None:
    """Each host looked for it among its own secrets, and only the first Redis host has any."""
    secrets = tmp_path / "keeps" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "secrets.json").write_text('{"ray_auth_token": "right"}')
    hosts = {
        name: {"celray_home": str(tmp_path / name), "ansible_connection": "local"}
        for name in ("asks", "keeps")
    }
    children: dict[str, Any] = {
        "celery_worker": {"hosts": {"asks": {}}},
        "redis": {"hosts": {"keeps": {}}},
    }
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    played = play("site.yml", "-i", str(inventory), "-e", f"ray_address={dashboard}", "--check")
    played.require_failure(f"Ray at {dashboard} is 2.49.0 on Python 3.10.4")
    assert "does not accept the token" not in played.output


def test_another_version_is_named_with_ours(dashboard: str) -> None:
    line = one(celray_ray.ask(dashboard, "right"))
    assert "is 2.49.0 on Python 3.10.4" in line
    assert "Ray 2.60.0 on Python 3.11" in line
    assert "leave ray_address empty" in line


@pytest.mark.parametrize(
    ("versions", "fits"),
    [
        (("2.60.0", "3.11.2"), True),
        (("2.60.0", "3.12.2"), False),
        (("2.60.1", "3.11.2"), False),
    ],
)
def test_ray_must_be_the_same_and_python_the_same_minor(
    versions: tuple[str, str], fits: bool
) -> None:
    answer = {"status": 200, "error": "", "ray": versions[0], "python": versions[1]}
    assert (ray.check_answer("http://r", "token", answer, OURS, "host1") == []) is fits


def test_our_own_versions_are_those_of_lock_and_images() -> None:
    own = ray.ours()
    assert own["ray"].count(".") == 2
    assert own["python"] == "3.11"


def test_a_wrong_token_an_odd_answer_and_silence_are_told_apart(dashboard: str) -> None:
    assert "does not accept the token (HTTP 401)" in one(celray_ray.ask(dashboard, "wrong"))
    assert "ray_auth_mode: token" in one(celray_ray.ask(dashboard, ""), mode="disabled")
    assert "answers HTTP 404" in one(celray_ray.ask(dashboard + "/x", "right"))
    silent = one(celray_ray.ask("http://127.0.0.1:1", "right"))
    assert "does not answer host1" in silent
    assert "refused" in silent


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("10.0.0.90", "token", {}), "ray_address is '10.0.0.90'"),
        (("http://r:8265/", "token", {}), "without a path"),
        (("http://r:8265", "tokn", {}), "ray_auth_mode is 'tokn'"),
        (("", "token", {"pips": []}), "'pips' (did you mean pip?)"),
        (("", "token", {"pip": "polars"}), "ray_runtime_env.pip is 'polars'"),
        (("", "token", []), "not a mapping"),
    ],
)
def test_a_mistake_in_the_settings_is_named(given: tuple[Any, Any, Any], words: str) -> None:
    (finding,) = ray.check_settings(*given)
    assert words in str(finding)


@pytest.mark.slow
def test_site_stops_at_a_cluster_of_another_version(dashboard: str, tmp_path: Path) -> None:
    variables = {
        "ray_address": dashboard,
        "celray_secrets": {"ray_auth_token": "right"},
        "host_facts_port_variables": [],
    }
    file = tmp_path / "ray.json"
    file.write_text(json.dumps(variables))
    played = play("site.yml", "-e", f"@{file}", "--check")
    played.require_failure(
        f"Ray at {dashboard} is 2.49.0 on Python 3.10.4",
        "from: ray_address (your inventory)",
        "nothing has been changed",
    )
