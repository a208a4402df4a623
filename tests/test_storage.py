"""Hosts that share files prove it (roles/storage), with engines that say what they are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml
from parts import Played, play, service_files

#: Its words and its exit status are files; without these it succeeds in silence.
ENGINE = """#!/bin/sh
echo "$*" >>{folder}/did
cat {folder}/says 2>/dev/null
exit $(cat {folder}/fails 2>/dev/null || echo 0)
"""


def prove(folder: Path, **words: tuple[str, str]) -> Played:
    """Let three hosts prove that they share files.

    Parameters:
        words: what an engine says and its exit status, by host; the others are well.
    """
    hosts = {}
    for host in ("a", "b", "c"):
        home = folder / host
        home.mkdir()
        engine = home / "docker"
        engine.write_text(ENGINE.format(folder=home))
        engine.chmod(0o755)
        for name, content in zip(("says", "fails"), words.get(host, ()), strict=False):
            (home / name).write_text(content)
        hosts[host] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "celray_home": str(home),
            "celray_uid": os.getuid(),
            "celray_gid": os.getgid(),
            "images_needed": ["worker"],
            "images_found": {"images": {"worker": "celray/worker:1"}},
            "host_facts": {"engine": {"path": str(engine), "access": "direct"}},
        }
    children = {"celery_worker": {"hosts": dict.fromkeys(hosts)}}
    (folder / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"hosts": hosts, "children": children}})
    )
    go_on = {"name": "Go on", "debug": {"msg": "{{ inventory_hostname }} goes on"}}
    book = {"hosts": "all", "gather_facts": False, "roles": ["storage"], "tasks": [go_on]}
    (folder / "play.yml").write_text(yaml.safe_dump([book]))
    services = [word for file in service_files() for word in ("-e", file)]
    return play(str(folder / "play.yml"), "-i", str(folder / "hosts.yml"), *services)


def going_on(played: Played) -> list[str]:
    return sorted(row.split()[0] for row in played.output.splitlines() if "goes on" in row)


def test_one_writes_all_others_read_and_nothing_is_left(tmp_path: Path) -> None:
    played = prove(tmp_path)
    assert played.code == 0, played.output
    assert going_on(played) == ["a", "b", "c"]
    wrote, removed = (tmp_path / "a/did").read_text().splitlines()
    assert "echo $0" in wrote
    assert "rm -f" in removed
    (read,) = (tmp_path / "b/did").read_text().splitlines()
    assert f'source={tmp_path}/b/datasets",target=/shared/celray_datasets_dir' in read
    assert read.split()[-1] == wrote.split()[-1], "the same word"


def test_a_host_that_does_not_see_it_is_named_with_the_folder(tmp_path: Path) -> None:
    played = prove(tmp_path, c=("celray_models_dir\n", "0"))
    played.require_failure(f"c does not see in {tmp_path}/c/models what a has written there")
    assert going_on(played) == ["a", "b"]


@pytest.mark.slow
def test_a_first_host_that_fails_keeps_no_other_from_going_on(tmp_path: Path) -> None:
    """The next one had written nothing, and all others asked for its word."""
    played = prove(tmp_path, a=("no space left on device\n", "1"))
    played.require_failure("no space left on device")
    assert going_on(played) == ["b", "c"]
