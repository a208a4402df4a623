"""The steps in which an image is made, without the network and without an engine."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import load, run_module

MODULE = "roles/images/library/celray_image.py"
celray_image: Any = load(MODULE)

TARGETS = """http://one.example/debian bookworm main
http://one.example/debian bookworm contrib
http://one.example/debian bookworm-updates main
http://one.example/debian bookworm-backports main
http://one.example/debian-security bookworm-security main
http://one.example/debian bookworm main
"""


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What apt answers; a test may change it."""
    answer = [TARGETS]

    def call(*_: str) -> str:
        if not answer:
            raise celray_image.StepError("no apt-get here")
        return answer[0]

    monkeypatch.setattr(celray_image, "call", call)
    return answer


@pytest.mark.usefixtures("apt")
def test_the_build_hosts_own_mirrors_serve_the_wanted_suite() -> None:
    assert celray_image.debian_sources("trixie") == [
        "deb http://one.example/debian trixie main",
        "deb http://one.example/debian trixie-updates main",
        "deb http://one.example/debian-security trixie-security main",
    ]


def test_a_host_without_debians_mirrors_leaves_the_choice_to_mmdebstrap(apt: list[str]) -> None:
    apt.clear()
    assert celray_image.debian_sources("trixie") == []


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The engine's socket; what it answers is set by the test, what it was asked is kept."""
    answers: list[bytes] = []

    class Engine(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            answers.append(self.rfile.readline())
            self.wfile.write(answers[0])

    path = str(tmp_path / "engine.sock")
    monkeypatch.setattr(celray_image, "ENGINE_SOCKET", path)
    with socketserver.ThreadingUnixStreamServer(path, Engine) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield answers
        server.shutdown()
        thread.join()


def test_a_registry_that_has_the_image_is_reachable(registry: list[bytes]) -> None:
    registry.append(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    assert celray_image.probe("python:3.11") == {"reachable": True, "why": ""}
    assert b"/distribution/python%3A3.11/json" in registry[1]


@pytest.mark.parametrize(
    ("body", "why"),
    [(b'{"message": "no route to host"}', "no route to host"), (b"gone\n", "gone"), (b"[]", "[]")],
)
def test_a_registry_that_refuses_is_quoted(registry: list[bytes], body: bytes, why: str) -> None:
    registry.append(b"HTTP/1.1 500 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert celray_image.probe("python:3.11") == {"reachable": False, "why": why}


def test_an_engine_that_hangs_up_or_is_silent_or_absent_is_no_crash(
    registry: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.append(b"nonsense\r\n\r\n")
    assert celray_image.probe("python:3.11")["reachable"] is False
    monkeypatch.setattr(celray_image, "ENGINE_SOCKET", "/nowhere/engine.sock")
    answer = celray_image.probe("python:3.11")
    assert answer["reachable"] is False
    assert "No such file" in answer["why"]


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The pip calls, which download nothing."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(celray_image, "pip_command", lambda _: ["pip"])
    monkeypatch.setattr(celray_image, "call", lambda *argv: calls.append(argv))
    return calls


def test_wheels_are_fetched_once_per_lock_with_hashes_and_for_the_images_python(
    downloads: list[tuple[str, ...]], tmp_path: Path
) -> None:
    params = {"cache": str(tmp_path), "name": "worker", "python": "3.11", "lock": "a==1 --hash=x\n"}
    assert celray_image.wheels(params) == {"changed": True}
    assert celray_image.wheels(params) == {"changed": False}
    (words,) = downloads
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(words)
    assert "--python-version=3.11" in words
    assert (tmp_path / "worker.lock").read_text() == params["lock"]

    # An older lock's wheels must not get into the image.
    old = tmp_path / "wheels-worker/a-1.whl"
    old.touch()
    assert celray_image.wheels({**params, "lock": "a==2 --hash=y\n"}) == {"changed": True}
    assert not old.exists()


def test_a_download_that_failed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, downloads: list[tuple[str, ...]], tmp_path: Path
) -> None:
    params = {"cache": str(tmp_path), "name": "ray", "python": "3.11", "lock": "a==1\n"}

    def refuse(*_: str) -> str:
        raise celray_image.StepError("no index")

    with monkeypatch.context() as broken:
        broken.setattr(celray_image, "call", refuse)
        with pytest.raises(celray_image.StepError, match="no index"):
            celray_image.wheels(params)
    assert celray_image.wheels(params) == {"changed": True}
    assert len(downloads) == 1


def test_a_tree_is_linked_and_where_links_fail_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "from/deep").mkdir(parents=True)
    wheel = tmp_path / "from/deep/a.whl"
    wheel.write_text("wheel")
    celray_image.link_tree(str(tmp_path / "from"), str(tmp_path / "linked"))
    assert (tmp_path / "linked/deep/a.whl").samefile(wheel)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(celray_image.os, "link", refuse)
    celray_image.link_tree(str(tmp_path / "from"), str(tmp_path / "copied"))
    assert (tmp_path / "copied/deep/a.whl").read_text() == "wheel"
    assert not (tmp_path / "copied/deep/a.whl").samefile(wheel)


def test_a_failing_step_ends_with_the_programs_own_words() -> None:
    with pytest.raises(celray_image.StepError, match=r"exit 3:\nwhat went wrong"):
        celray_image.call("sh", "-c", "echo what went wrong >&2; exit 3")


def test_check_mode_makes_nothing(tmp_path: Path) -> None:
    args = {
        "do": "build",
        "docker": "/nowhere/docker",
        "image": "x:1",
        "cache": str(tmp_path / "c"),
    }
    assert run_module(MODULE, args, check=True)["changed"] is True
    assert not (tmp_path / "c").exists()


def test_two_deployments_from_one_machine_make_each_image_once(tmp_path: Path) -> None:
    """To different hosts, so that no host's lock keeps them apart."""
    client = tmp_path / "docker"
    client.write_text(
        "#!/bin/sh\n"
        f"cd {tmp_path}\n"
        "case $1 in\n"
        "images) test ! -e made || echo celray/worker:1 sha256:1;;\n"
        "build) echo build >> log; sleep 0.5; touch made;;\n"
        "esac\n"
    )
    client.chmod(0o755)
    args = {
        "do": "build",
        "docker": str(client),
        "image": "celray/worker:1",
        "cache": str(tmp_path / "cache"),
        "context": {"Dockerfile": "FROM x"},
    }
    code = f"from parts import run_module; print(run_module({MODULE!r}, {args!r})['changed'])"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(Path(parts.__file__).parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert sorted(one.communicate(timeout=60)[0].strip() for one in both) == ["False", "True"]
    assert (tmp_path / "log").read_text() == "build\n"


NAMES = st.text(
    st.characters(categories=["L", "N", "S"], include_characters=" ()[]{}&'$#-_."),
    min_size=1,
    max_size=12,
).filter(lambda name: name.strip(". ") == name)
UMASKS = st.sampled_from([0o000, 0o002, 0o022, 0o027, 0o077, 0o177, 0o777]) | st.integers(0, 0o777)


@pytest.mark.slow
@given(umask=UMASKS, names=st.lists(NAMES, min_size=1, max_size=3), home=NAMES)
@settings(max_examples=30)
def test_an_image_can_be_read_by_its_user_under_every_umask_and_path(
    umask: int, names: list[str], home: str
) -> None:
    """What reaches the engine, by a client that keeps the modes of the context it is given."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        client = root / "docker"
        client.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            "if sys.argv[1] == 'build':\n"
            "    modes = {os.path.join(p, n): os.stat(os.path.join(p, n)).st_mode & 0o777\n"
            "             for p, ds, fs in os.walk(sys.argv[-1]) for n in ['.', *fs]}\n"
            f"    json.dump(modes, open({str(root / 'modes')!r}, 'w'))\n"
        )
        client.chmod(0o755)
        cache = root / home
        cache.mkdir()
        inside = "/".join(names)
        params = {
            "docker": str(client),
            "do": "build",
            "image": "celray/worker:1",
            "cache": str(cache),
            "context": {"Dockerfile": "FROM x", f"tasks/{inside}/a.py": "1"},
            "binaries": {f"packages/{inside}/b": "AAAA"},
        }
        before = os.umask(umask)
        try:
            result = run_module(MODULE, params)
        finally:
            os.umask(before)
        assert result["changed"], result
        modes = json.loads((root / "modes").read_text())
        assert sum(path.endswith(("a.py", "/b")) for path in modes) == 2
        for path, mode in modes.items():
            assert mode == (0o755 if path.endswith("/.") else 0o644), (path, oct(mode))
