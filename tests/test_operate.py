"""What make was given reaches the programs behind an operation as it was given (.ci/operate)."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from new_machine import clean_clone
from parts import load

operate: Any = load(".ci/operate")
#: A folder that people have, and everything that a shell or make could take for its own.
PLACE = '[brackets] {braces} prójekty 研究 it\'s $1 #1 & co, "x"'
#: In place of ansible-playbook: what it was given, and an answer.
RECORDER = """#!{python}
import json, os, pathlib, sys
names = ("HOST", "SSH_USER", "ENV", "CELRAY_RAW", "CELRAY_SHORT")
said = {{"words": sys.argv[1:], **{{name: os.environ.get(name) for name in names}}}}
pathlib.Path({record!r}).write_text(json.dumps(said))
print(os.environ.get("ANSWER", "true"))
"""


def clean(**environment: str) -> dict[str, str]:
    """This process's environment without what make passes on."""
    kept = {k: v for k, v in os.environ.items() if k not in operate.VARIABLES}
    return {**kept, **environment}


@dataclass(frozen=True)
class Clone:
    """A clone whose ansible-playbook only writes down what it was given."""

    path: Path
    record: Path

    def make(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run make in it, as a script does: without a terminal."""
        return subprocess.run(
            ["make", "-C", str(self.path), *words],
            env=clean(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def told(self, *words: str, **environment: str) -> dict[str, Any]:
        """Return what ansible-playbook was given by an operation that works."""
        self.record.unlink(missing_ok=True)
        done = self.make(*words, **environment)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(self.record.read_text())
        return told


def put_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    base = tmp_path_factory.mktemp("operate")
    path, record = base / PLACE / "celray", base / "record"
    clean_clone(path)
    (path / "inventory/büro (2)").mkdir()
    shutil.copy(path / "inventory/single/hosts.yml", path / "inventory/büro (2)/hosts.yml")
    recorder = RECORDER.format(python=sys.executable, record=str(record))
    put_program(path / ".venv/bin/ansible-playbook", recorder)
    (path / ".venv/bin/python").symlink_to(sys.executable)
    for name in (".venv", ".venv-client"):
        (path / name / "bin").mkdir(parents=True, exist_ok=True)
        (path / name / "stamp").write_text(f"{path}\n")
    (path / ".venv-client/bin/celray").touch()
    return Clone(path, record)


def extra(words: list[str]) -> dict[str, Any]:
    """Return the last extra variables of a command line."""
    assert words[-2] == "-e"
    found: dict[str, Any] = json.loads(words[-1])
    return found


SINGLE = ["-i", "inventory/single"]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("deploy", [*SINGLE, "site.yml"]),
        ("update", [*SINGLE, "site.yml", "-e", {"celery_worker_rolling": True}]),
        ("check", [*SINGLE, "site.yml", "--check", "--diff"]),
        ("diff", [*SINGLE, "site.yml", "--check"]),
        ("diff TO=7", [*SINGLE, "playbooks/rollback.yml", "-e", {"to": "7"}, "--check"]),
        ("rollback TO=7", [*SINGLE, "playbooks/rollback.yml", "-e", {"to": "7"}]),
        ("rollback", [*SINGLE, "playbooks/rollback.yml", "-e", {"to": ""}]),
        (
            "scale WORKER=data REPLICAS=2",
            [
                *SINGLE,
                "playbooks/scale.yml",
                "-e",
                {"worker": "data", "concurrency": "", "replicas": "2"},
            ],
        ),
        ("status HOST=fd00::5", [*SINGLE, "playbooks/status.yml"]),
        (
            "verify HOST=10.0.0.84 SSH_USER=me",
            [*SINGLE, "-u", "me", "playbooks/verify.yml"],
        ),
        ("logs", [*SINGLE, "playbooks/logs.yml", "-e", {"what": "", "lines": "200"}]),
        (
            "logs WHAT=redis TAIL=3 FOLLOW=1",
            [
                *SINGLE,
                "playbooks/attach.yml",
                "-e",
                {"do": "follow", "what": "redis", "lines": "3"},
            ],
        ),
        ("shell WHAT=ray", [*SINGLE, "playbooks/attach.yml", "-e", {"do": "shell", "what": "ray"}]),
        (
            "shell RUN=python WHAT=beat",
            [*SINGLE, "playbooks/attach.yml", "-e", {"do": "python", "what": "beat"}],
        ),
        ("history TAIL=5", [*SINGLE, "playbooks/history.yml", "-e", {"lines": "5"}]),
        ("credentials", [*SINGLE, "playbooks/credentials.yml"]),
        (
            "credentials FOR=submitter",
            [*SINGLE, "playbooks/credentials.yml", "-e", {"credentials_for": "submitter"}],
        ),
        ("restart WHAT=beat", [*SINGLE, "playbooks/restart.yml", "-e", {"what": "beat"}]),
        (
            "logs WHAT=redis LIMIT=broker",
            [
                *SINGLE,
                "playbooks/logs.yml",
                "-e",
                {"what": "redis", "limit": "broker", "lines": "200"},
            ],
        ),
        (
            "shell WHAT=worker-data LIMIT=worker-2",
            [
                *SINGLE,
                "playbooks/attach.yml",
                "-e",
                {"do": "shell", "what": "worker-data", "limit": "worker-2"},
            ],
        ),
        ("queues", [*SINGLE, "playbooks/queues.yml"]),
        ("queues PURGE=data", [*SINGLE, "playbooks/queues.yml", "-e", {"queue": "data"}]),
        (
            "queues PURGE=data CONFIRM=yes",
            [*SINGLE, "playbooks/purge.yml", "-e", {"queue": "data"}],
        ),
        ("inspect", [*SINGLE, "playbooks/inspect.yml"]),
        ("drain", [*SINGLE, "playbooks/drain.yml", "-e", {"wait": "600", "force": "no"}]),
        (
            "drain LIMIT=a,b WAIT=9 FORCE=yes",
            [
                *SINGLE,
                "playbooks/drain.yml",
                "-e",
                {"limit": "a,b", "wait": "9", "force": "yes"},
            ],
        ),
        (
            "undrain ENV=cluster LIMIT=a",
            ["-i", "inventory/cluster", "playbooks/undrain.yml", "-e", {"limit": "a"}],
        ),
        ("stop", [*SINGLE, "playbooks/stop.yml"]),
        ("stop LIMIT=a", [*SINGLE, "playbooks/stop.yml", "-e", {"limit": "a"}]),
        ("start LIMIT=a", [*SINGLE, "playbooks/start.yml", "-e", {"limit": "a"}]),
        ("unlock LOCK=3f2a1c", [*SINGLE, "playbooks/unlock.yml", "-e", {"lock": "3f2a1c"}]),
        (
            "destroy CONFIRM=yes",
            [*SINGLE, "playbooks/destroy.yml", "-e", {"confirm": "yes", "purge": "no"}],
        ),
        (
            "destroy CONFIRM=yes PURGE=yes",
            [*SINGLE, "playbooks/destroy.yml", "-e", {"confirm": "yes", "purge": "yes"}],
        ),
    ],
    ids=str,
)
def test_an_operation_becomes_a_playbook_with_what_it_was_given(
    clone: Clone, words: str, command: list[Any]
) -> None:
    told = clone.told(*words.split())["words"]
    assert [json.loads(word) if word.startswith("{") else word for word in told] == command


def test_where_is_told_to_the_inventory_and_to_hooks(clone: Clone) -> None:
    told = clone.told("deploy", "HOST=10.0.0.84", "SSH_USER=me")
    assert [told[name] for name in ("HOST", "SSH_USER", "ENV")] == ["10.0.0.84", "me", "single"]
    told = clone.told("deploy", HOST="gpu-7.example", ENV="cluster")
    assert [told[name] for name in ("HOST", "SSH_USER", "ENV")] == ["gpu-7.example", "", "cluster"]
    # A script's unset variable, exported: nothing was said.
    assert clone.told("deploy", HOST="")["HOST"] == ""


@pytest.mark.parametrize("words", ["logs", "history", "credentials", "logs FOLLOW=1", "shell"])
def test_output_that_is_an_answer_has_nothing_else_in_it(clone: Clone, words: str) -> None:
    assert clone.told(*words.split())["CELRAY_RAW"] == "1"


def test_other_operations_show_what_they_do(clone: Clone) -> None:
    assert clone.told("deploy")["CELRAY_RAW"] is None
    assert clone.told("diff")["CELRAY_SHORT"] == "1"


def test_an_inventory_may_have_any_name(clone: Clone) -> None:
    for told in (clone.told("deploy", "ENV=büro (2)"), clone.told("deploy", ENV="büro (2)")):
        assert told["words"] == ["-i", "inventory/büro (2)", "site.yml"]
        assert told["ENV"] == "büro (2)"


def test_args_are_split_as_a_shell_would(clone: Clone) -> None:
    home = str(Path.home())
    args = """-K -e 'x="a b"' -i ~/lab --diff"""
    wanted = ["-K", "-e", 'x="a b"', "-i", f"{home}/lab", "--diff"]
    for told in (clone.told("deploy", f"ARGS={args}"), clone.told("deploy", ARGS=args)):
        assert told["words"] == [*SINGLE, *wanted, "site.yml"]


def test_the_client_is_told_where_it_lies(clone: Clone, tmp_path: Path) -> None:
    answer = "CELERY_BROKER_URL=redis://:secret@10.0.0.84:6380/0"
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "ANSWER": answer}
    done = clone.make("client", **home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "celray/credentials").read_text() == f"{answer}\n"
    assert json.loads(clone.record.read_text())["words"] == [*SINGLE, "playbooks/credentials.yml"]


def test_a_clone_where_ansible_would_not_find_it_is_refused(clone: Clone) -> None:
    """Ansible puts $HOME's value into every path; its own words are forty lines."""
    moved = clone.path.with_name("at $HOME")
    clone.path.rename(moved)
    try:
        (moved / ".venv/stamp").write_text(f"{moved}\n")
        done = Clone(moved, clone.record).make("deploy")
    finally:
        moved.rename(clone.path)
        (clone.path / ".venv/stamp").write_text(f"{clone.path}\n")
    assert done.returncode == 2
    assert f"celray: this clone lies in {moved}, and Ansible" in done.stderr


def test_an_operations_failure_is_makes(clone: Clone) -> None:
    playbook = clone.path / ".venv/bin/ansible-playbook"
    kept = playbook.read_text()
    put_program(playbook, "#!/bin/sh\necho broken >&2\nexit 4\n")
    try:
        done = clone.make("status")
    finally:
        put_program(playbook, kept)
    assert done.returncode == 2
    assert "broken" in done.stderr
    assert "Error 4" in done.stderr


def answered(clone: Clone, answer: str, *words: str) -> tuple[int, str]:
    """Run make at a terminal and answer its question; its exit status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("make", ["make", "-C", str(clone.path), *words], clean())  # noqa: S606 no shell
    shown = b""
    while select.select([terminal], [], [], 60)[0]:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # its end, on Linux
            break
        if shown.rstrip().endswith(b"[yes/no]"):
            os.write(terminal, answer.encode())
            answer = ""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    return status, shown.decode()


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ("", "Remove celray from this machine? [yes/no]"),
        ("HOST=10.0.0.84", "Remove celray from 10.0.0.84? [yes/no]"),
        (
            "ENV=cluster PURGE=yes",
            "Remove celray from inventory/cluster, AND ALL ITS DATA? [yes/no]",
        ),
    ],
)
def test_destroy_asks_who_sits_at_a_terminal(clone: Clone, words: str, question: str) -> None:
    clone.record.unlink(missing_ok=True)
    status, shown = answered(clone, "yes\n", "destroy", *words.split())
    assert status == 0
    assert question in shown
    purge = "yes" if "PURGE" in words else "no"
    assert extra(json.loads(clone.record.read_text())["words"]) == {
        "confirm": "yes",
        "purge": purge,
    }


@pytest.mark.parametrize("answer", ["no\n", "\n", "y\n", "\x04"], ids=repr)
def test_any_other_answer_removes_nothing(clone: Clone, answer: str) -> None:
    clone.record.unlink(missing_ok=True)
    status, shown = answered(clone, answer, "destroy", "PURGE=yes")
    assert status == 2
    assert "celray: nothing was removed; to go on: make destroy CONFIRM=yes" in shown
    assert not clone.record.exists()


def test_destroy_without_a_terminal_wants_the_word(clone: Clone) -> None:
    clone.record.unlink(missing_ok=True)
    done = clone.make("destroy")
    assert done.returncode == 2
    assert "nothing was removed; to go on: make destroy CONFIRM=yes" in done.stderr
    assert not clone.record.exists()


@pytest.mark.slow
def test_a_real_playbook_is_played(clone: Clone) -> None:
    """Ansible itself takes what .ci/operate makes; it only lists the hosts."""
    real = clone.path / ".venv/bin/ansible-playbook"
    kept = real.read_text()
    real.unlink()
    real.symlink_to(Path(sys.executable).with_name("ansible-playbook"))
    try:
        where = ("ENV=büro (2)", "HOST=192.0.2.7", "SSH_USER=me")
        done = clone.make("logs", "WHAT=redis", "ARGS=--list-hosts", *where)
        assert done.returncode == 0, done.stderr
        assert "      server" in done.stdout.splitlines()
    finally:
        real.unlink()
        put_program(real, kept)


def test_a_machine_without_a_new_python_is_told_so(clone: Clone, tmp_path: Path) -> None:
    """The check of what was given needs Python; its absence must not hide the way out."""
    programs = "make bash sh env git awk sed cat mktemp rm flock head grep printf apt-get"
    for name in programs.split():
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    old = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.7.3\nexit 1\n'
    for text in ("", old):
        if text:
            put_program(tmp_path / "python3", text)
        done = subprocess.run(
            ["make", "-C", str(clone.path), "new-tasks", "NAME=x"],
            env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "celray: Python 3.11 or newer is needed" in done.stderr
        assert "No such file" not in done.stderr.partition("celray:")[0]
