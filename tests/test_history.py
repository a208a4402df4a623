"""A deployment's lock, record and versions, and the runs that use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from parts import REPO, Played, load, play, run_module

MODULE = "roles/history/library/celray_history.py"
history: Any = load(MODULE)
action: Any = load("roles/history/action_plugins/celray_history.py")
WHO = {"user": "ada", "host": "laptop", "commit": "0123456789ab", "dirty": True}


def step(folder: Path, do: str, **args: Any) -> dict[str, Any]:
    return run_module(MODULE, {"do": do, "folder": str(folder), **args})


def take(folder: Path, name: str = "aaa", **args: Any) -> dict[str, Any]:
    holder = {"name": name, "operation": "deploy", **WHO}
    return step(folder, "take", holder=holder, looked_at=time.time(), **args)


def finish(folder: Path, name: str = "aaa", **args: Any) -> dict[str, Any]:
    line = {"operation": "deploy", **WHO, "what": ["create beat (not there)"], "result": "ok"}
    return step(folder, "finish", name=name, line={**line, **args.pop("line", {})}, **args)


def project(folder: Path, name: str, image: str) -> None:
    path = folder / "projects" / name
    path.mkdir(parents=True, exist_ok=True)
    content = {
        "definition": f"image: {image}",
        "stand_in": "",
        "files": {},
        "secret_files": [],
        "images": [image],
    }
    (path / "deployed.json").write_text(json.dumps(content))


def deploy(folder: Path, image: str, **line: Any) -> int:
    """One whole deploy of one project; gives the version's number."""
    project(folder, "workers", image)
    number = int(take(folder)["number"])
    line = {"version": number, **line}
    ok = line.get("result", "ok") == "ok"
    projects = str(folder / "projects")
    finish(folder, line=line, store=number if ok else None, projects=projects)
    return number


# --- the lock -------------------------------------------------------------------------------------


def test_a_second_run_is_told_who_has_the_lock_and_changes_nothing(tmp_path: Path) -> None:
    assert take(tmp_path)["held"] is False
    second = take(tmp_path, "bbb")
    assert second["held"]
    assert {**WHO, "name": "aaa", "operation": "deploy"}.items() <= second["holder"].items()
    said = action.refusal(second["holder"])
    for word in ("ada", "laptop", "deploy", second["holder"]["since"], "make unlock LOCK=aaa"):
        assert word in said
    finish(tmp_path)
    assert take(tmp_path, "bbb")["held"] is False


def test_of_many_at_once_one_gets_the_lock(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import celray_history as h\n"
        "p = {'holder': {'name': sys.argv[3]}, 'stale': '', 'looked_at': None, 'models': None}\n"
        "print(h.take(h.History(sys.argv[2]), p)['held'])"
    )
    place = str((REPO / MODULE).parent)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, place, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    assert sorted(run.communicate()[0].strip() for run in runs) == ["False", *["True"] * 5]


def test_what_was_done_while_a_run_looked_refuses_it(tmp_path: Path) -> None:
    looked_at = time.time()
    deploy(tmp_path, "a:1")
    refused = step(tmp_path, "take", holder={"name": "bbb"}, looked_at=looked_at - 1)
    assert refused["failed"]
    assert "ada from laptop did a deploy while this run looked" in refused["msg"]
    assert take(tmp_path)["held"] is False, "and the lock is not kept"


def test_a_lock_is_stale_when_its_process_here_is_gone() -> None:
    mine = {"process": {"machine": action.machine(), "pid": os.getpid()}}
    mine["process"]["started"] = action.started(os.getpid())
    assert not action.is_stale(mine)
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone = {"process": {**mine["process"], "pid": ended.pid}}
    assert action.is_stale(gone)
    assert action.is_stale({"process": {**mine["process"], "started": "another boot"}})
    elsewhere = {"process": {**gone["process"], "machine": "another"}}
    assert not action.is_stale(elsewhere), "nobody here can know"
    unknowns: list[dict[str, Any]] = [
        {},
        {"process": None},
        {"process": {}},
        {"name": "unreadable"},
    ]
    for unknown in unknowns:
        assert not action.is_stale(unknown)


def test_a_stale_lock_is_taken_over_and_its_run_written_down(tmp_path: Path) -> None:
    take(tmp_path)
    assert take(tmp_path, "bbb", stale="not that one")["held"]
    assert take(tmp_path, "bbb", stale="aaa")["held"] is False
    (line,) = step(tmp_path, "read")["lines"]
    assert line["operation"] == "deploy"
    assert line["user"] == "ada"
    assert line["result"].startswith("failed: its process ended without a word")


def test_a_lock_is_broken_by_its_name_alone(tmp_path: Path) -> None:
    take(tmp_path)
    line = {"operation": "unlock", **WHO, "what": ["lock aaa"], "result": "ok"}
    assert step(tmp_path, "unlock", name="bbb", line=line)["broken"] is False
    assert step(tmp_path, "unlock", name="", line=line)["broken"] is False
    assert step(tmp_path, "unlock", name="aaa", line=line)["broken"]
    assert step(tmp_path, "read")["holder"] is None
    assert finish(tmp_path)["broken"], "the run that held it is told"
    lines = step(tmp_path, "read")["lines"]
    assert [one["operation"] for one in lines] == ["unlock", "deploy"]
    assert lines[-1]["note"] == "its lock was broken meanwhile"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "\x00"])
def test_a_lock_that_nobody_can_read_still_locks_and_can_be_broken(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "lock.json").write_text(content)
    told = take(tmp_path)
    assert told["held"]
    assert "make unlock LOCK=unreadable" in action.refusal(told["holder"])
    line = {"operation": "unlock", **WHO, "what": [], "result": "ok"}
    assert step(tmp_path, "unlock", name="unreadable", line=line)["broken"]


# --- the record -----------------------------------------------------------------------------------


def test_all_of_it_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    deploy(folder, "a:1")
    take(folder)
    paths = [path for path in folder.rglob("*") if "projects" not in path.parts]
    assert {path.name for path in paths} >= {"lock.json", "record.jsonl", "1.json"}
    for path in (folder, *paths):
        assert path.stat().st_mode & 0o077 == 0, path


@given(st.lists(st.sampled_from(["deploy", "half a line", "garbage", "list"]), max_size=6))
def test_a_record_that_was_cut_off_anywhere_is_read_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("record")
    for kind in kinds:
        if kind == "deploy":
            take(folder)
            finish(folder)
        else:
            text = {"half a line": '{"operation": "dep', "garbage": "\x00\n", "list": "[]\n"}[kind]
            with (folder / "record.jsonl").open("a") as record:
                record.write(text)
    take(folder)
    finish(folder)
    found = step(folder, "read")["lines"]
    assert [line["operation"] for line in found] == ["deploy"] * (kinds.count("deploy") + 1)
    assert action.table({"lines": found, "used": [], "holder": None}, 100, 3)


def test_the_record_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_BYTES", 2_000)
    for number in range(30):
        take(tmp_path)
        finish(tmp_path, line={"what": [str(number)]})
    assert (tmp_path / "record.jsonl").stat().st_size < 4_000
    assert step(tmp_path, "read")["lines"][-1]["what"] == ["29"]


# --- versions -------------------------------------------------------------------------------------


def test_a_rollback_goes_to_the_version_before_and_a_rollback_of_it_comes_back(
    tmp_path: Path,
) -> None:
    assert [deploy(tmp_path, f"a:{number}") for number in (1, 2, 3)] == [1, 2, 3]

    def back(to: str = "") -> int:
        found = step(tmp_path, "version", to=to, projects=str(tmp_path / "projects"))
        take(tmp_path)
        finish(tmp_path, line={"operation": "rollback", "version": found["number"]})
        return int(found["number"])

    assert back() == 2
    assert back() == 3
    assert back("1") == 1
    assert back() == 3
    assert step(tmp_path, "read")["used"] == [3, 1, 2]
    assert deploy(tmp_path, "a:4") == 4


def test_nothing_from_before_a_destroy_is_offered(tmp_path: Path) -> None:
    deploy(tmp_path, "a:1")
    deploy(tmp_path, "a:2")
    take(tmp_path)
    finish(tmp_path, line={"operation": "destroy", "version": None})
    assert step(tmp_path, "read")["used"] == []
    assert deploy(tmp_path, "a:3") == 3
    refused = step(tmp_path, "version", projects=str(tmp_path / "projects"))
    assert "no version before" in refused["msg"]


def test_after_a_failed_deploy_a_rollback_goes_to_what_ran_before_it(tmp_path: Path) -> None:
    deploy(tmp_path, "a:1")
    deploy(tmp_path, "a:2")
    deploy(tmp_path, "a:3", result="failed: x", version=None)
    assert step(tmp_path, "version", projects=str(tmp_path / "projects"))["number"] == 2


@pytest.mark.parametrize(("to", "words"), [("9", "TO=9"), ("x", "TO=x"), ("", "no version before")])
def test_an_unknown_version_is_refused_with_those_that_there_are(
    tmp_path: Path, to: str, words: str
) -> None:
    deploy(tmp_path, "a:1")
    refused = step(tmp_path, "version", to=to, projects=str(tmp_path / "projects"))
    assert refused["failed"]
    assert words in refused["msg"]
    assert "stored: 1" in refused["msg"]


def test_a_version_says_what_it_was_made_from_and_leaves_redis_at_its_image(tmp_path: Path) -> None:
    project(tmp_path, "redis", "redis:7")
    deploy(tmp_path, "a:1")
    project(tmp_path, "redis", "redis:8")
    deploy(tmp_path, "a:2")
    found = step(tmp_path, "version", projects=str(tmp_path / "projects"))
    assert found["number"] == 1
    assert found["projects"]["workers"]["definition"] == "image: a:1"
    assert found["projects"]["redis"]["definition"] == "image: redis:8"
    assert "Redis stays" in found["note"]
    assert found["images"] == ["a:1", "redis:8"]


def test_the_images_of_the_last_three_versions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: Any = load("roles/images/library/celray_image.py")
    for number in range(1, 6):
        deploy(tmp_path, f"celray/worker:{number}")
    there = {f"celray/worker:{number}": "id" for number in range(1, 7)}
    monkeypatch.setattr(images, "list_images", lambda _: there)
    monkeypatch.setattr(images, "call", lambda *_: "")
    used = step(tmp_path, "read")["used"][:2]
    done = images.tidy(
        {
            "docker": "true",
            "images": ["celray/worker:6"],
            "history": str(tmp_path),
            "stored": [*used, 99],
        }
    )
    assert done["removed"] == [f"celray/worker:{number}" for number in (1, 2, 3)]


# --- whole runs -----------------------------------------------------------------------------------

HOOK = "#!/bin/sh\nenv | grep ^CELRAY_ | sort > {out}/$(basename $0).txt\n{more}\n"


class _Place:
    """A deployment of nothing: inventory, hooks, and a playbook that takes, changes, finishes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.history = folder / "history"
        self.inventory = folder / "inventory"
        self.inventory.mkdir()
        (self.inventory / "hosts.yml").write_text(
            yaml.safe_dump({"redis": {"hosts": {"here": {"ansible_connection": "local"}}}})
        )
        self.variables = {
            "celray_history_dir": str(self.history),
            "celray_projects_dir": str(folder / "projects"),
            "celray_models_dir": str(folder / "models"),
            "host_facts": {"epoch": 9e9, "home": str(folder)},
        }

    def hook(self, name: str, more: str = "") -> None:
        path = self.inventory / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(HOOK.format(out=self.folder, more=more))
        path.chmod(0o755)

    def told(self, hook: str) -> dict[str, str]:
        text = (self.folder / f"{hook}.txt").read_text()
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def book(self, *tasks: dict[str, Any], where: str = "redis") -> Path:
        def role(do: str) -> dict[str, Any]:
            return {
                "name": do,
                "hosts": "redis",
                "gather_facts": False,
                "vars": self.variables,
                "roles": [{"role": "history", "vars": {"history_do": do}}],
            }

        work = {
            "name": "Work",
            "hosts": where,
            "gather_facts": False,
            "tasks": [{"name": "Work", **task} for task in tasks],
        }
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump([role("take"), work, role("finish")]))
        return path

    def run(self, *tasks: dict[str, Any], **environment: str) -> Played:
        book = str(self.book(*tasks))
        return play(book, "-i", str(self.inventory), **environment)

    def lines(self) -> list[dict[str, Any]]:
        if not self.history.exists():
            return []
        return list(step(self.history, "read")["lines"])

    @property
    def locked(self) -> bool:
        return (self.history / "lock.json").exists()


@pytest.fixture
def place(tmp_path: Path) -> _Place:
    return _Place(tmp_path)


CHANGE: dict[str, Any] = {"command": "true"}
NOTHING: dict[str, Any] = {"command": "true", "changed_when": False}
STOP: dict[str, Any] = {"fail": {"msg": "the disk is full\nmore"}}


@pytest.mark.slow
def test_a_run_that_changes_something_is_one_line_and_one_that_does_not_is_none(
    place: _Place,
) -> None:
    project(place.folder, "workers", "a:1")
    assert place.run(NOTHING).code == 0
    (first,) = place.lines()
    assert first["version"] == 1, "the first version is always kept"
    assert place.run(CHANGE).code == 0
    quiet = place.run(NOTHING)
    assert quiet.code == 0
    assert "changed=0" in quiet.output
    _, line = place.lines()
    assert line["what"] == ["Work"]
    assert line["result"] == "ok"
    assert line["operation"] == "deploy"
    assert line["commit"] == action.who()["commit"]
    assert isinstance(line["dirty"], bool)
    assert not place.locked


@pytest.mark.slow
def test_a_run_that_fails_is_recorded_and_gives_its_lock_back(place: _Place) -> None:
    place.hook("failed")
    failed = place.run(CHANGE, STOP)
    assert failed.code == 2
    assert "the deploy is recorded as failed" in failed.output
    (line,) = place.lines()
    assert line["result"] == "failed: here: Work: the disk is full"
    assert line["what"] == ["Work"]
    assert "version" not in line
    assert not place.locked
    told = place.told("failed")
    assert told["CELRAY_RESULT"] == line["result"]
    assert not [name for name in told if name.startswith("CELRAY_RUN")], "it may call make itself"


@pytest.mark.slow
@pytest.mark.parametrize("loop", [[], ["one", "two"]])
def test_the_reason_is_what_the_program_said(place: _Place, loop: list[str]) -> None:
    task = {"shell": "echo the cause >&2; exit 3", **({"loop": loop} if loop else {})}
    assert place.run(task).code == 2
    (line,) = place.lines()
    assert line["result"] == "failed: here: Work: non-zero return code: the cause"


@pytest.mark.slow
def test_an_interrupted_run_is_recorded_and_gives_its_lock_back(place: _Place) -> None:
    book = place.book(CHANGE, {"wait_for": {"timeout": 60}})
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(place.inventory)]
    run = subprocess.Popen(
        [*argv, str(book)],
        cwd=REPO,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "LC_ALL": "C.UTF-8",
             "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not place.locked:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert "is recorded as failed" in said
    assert [line["result"] for line in place.lines()] == ["failed: interrupted"]
    assert not place.locked


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_a_lock_that_the_next_one_takes_over(place: _Place) -> None:
    place.history.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = {"machine": action.machine(), "pid": gone.pid, "started": "long ago"}
    holder = {"name": "aaa", "operation": "update", **WHO, "process": left, "since": "then"}
    (place.history / "lock.json").write_text(json.dumps(holder))
    assert place.run(CHANGE).code == 0
    assert [line["operation"] for line in place.lines()] == ["update", "deploy"]


@pytest.mark.slow
def test_of_several_hosts_the_record_says_which_changed_and_which_failed(place: _Place) -> None:
    (place.inventory / "more").write_text("other ansible_connection=local\n")
    fails = {**STOP, "when": "inventory_hostname == 'other'"}
    book = str(place.book(CHANGE, fails, where="all"))
    assert play(book, "-i", str(place.inventory)).code == 2
    (line,) = place.lines()
    changed = sorted(what.partition(":")[0] for what in line["what"])
    assert len(changed) == 2
    assert "other" in changed
    assert all(what.endswith(": Work") for what in line["what"])
    assert line["result"] == "ok", "of the host that keeps the record"
    assert line["note"].startswith("not everywhere: other: Work: the disk is full")
    assert not place.locked


@pytest.mark.slow
def test_a_run_under_settings_of_somebody_elses_is_recorded_all_the_same(place: _Place) -> None:
    """The journal's plugin comes with the role, whatever ansible.cfg says."""
    empty = str(place.folder)
    settings = {"ANSIBLE_CALLBACK_PLUGINS": empty, "ANSIBLE_STDOUT_CALLBACK": "default"}
    assert place.run(CHANGE, STOP, **settings).code == 2
    (line,) = place.lines()
    assert line["what"] == ["Work"]
    assert line["result"].endswith("the disk is full")
    assert not place.locked


@pytest.mark.slow
def test_another_ones_lock_stops_a_run_before_it_changes_anything(place: _Place) -> None:
    place.history.mkdir()
    holder = {"name": "aaa", "operation": "update", **WHO, "since": "2026-11-29T10:00:00Z"}
    (place.history / "lock.json").write_text(json.dumps(holder))
    mark = place.folder / "mark"
    stopped = place.run({"file": {"path": str(mark), "state": "touch"}})
    assert stopped.code == 2
    for word in ("ada", "laptop", "update", "2026-11-29T10:00:00Z", "make unlock LOCK=aaa"):
        assert word in stopped.output
    assert not mark.exists()
    assert place.locked, "it is not ours to give back"
    assert place.lines() == []


@pytest.mark.slow
def test_the_hooks_are_told_the_records_fields(place: _Place) -> None:
    place.hook("before-deploy", "echo before says hello")
    place.hook("after-deploy")
    project(place.folder, "workers", "a:1")
    done = place.run(CHANGE)
    assert done.code == 0, done.output
    assert "before says hello" in done.output
    before, after = place.told("before-deploy"), place.told("after-deploy")
    (line,) = place.lines()
    for told in (before, after):
        assert told["CELRAY_OPERATION"] == "deploy"
        assert told["CELRAY_USER"] == line["user"]
        assert told["CELRAY_HOST"] == line["host"]
        assert told["CELRAY_COMMIT"] == line["commit"]
        assert told["CELRAY_DIRTY"] == ("yes" if line["dirty"] else "no")
    assert after["CELRAY_RESULT"] == "ok"
    assert after["CELRAY_WHAT"] == "Work"
    assert after["CELRAY_VERSION"] == "1"
    # It lies in a directory that Ansible reads as an inventory, and is no script of that.
    place.hook("failed")
    assert place.run(NOTHING).code == 0
    assert not (place.folder / "failed.txt").exists()


@pytest.mark.slow
def test_a_failing_before_deploy_stops_everything_before_it_changes(place: _Place) -> None:
    place.hook("before-deploy", "echo the change window is closed; exit 3")
    place.hook("failed")
    mark = place.folder / "mark"
    stopped = place.run({"file": {"path": str(mark), "state": "touch"}})
    assert stopped.code == 2
    assert "ended with 3" in stopped.output
    assert "the change window is closed" in stopped.output
    assert not mark.exists()
    assert not place.locked
    (line,) = place.lines()
    assert "before-deploy" in line["result"]
    assert line["what"] == []
    assert "before-deploy" in place.told("failed")["CELRAY_RESULT"]


@pytest.mark.slow
def test_a_failing_after_deploy_is_said_and_undoes_nothing(place: _Place) -> None:
    place.hook("after-deploy", "exit 4")
    done = place.run(CHANGE)
    assert done.code == 2
    assert "the deploy is done and recorded" in done.output
    assert [line["result"] for line in place.lines()] == ["ok"]
    assert not place.locked


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("before-deploy", 0o644, "is not executable: chmod +x"),
        ("before-deplyo", 0o755, "there is no such hook; there is before-deploy, after-deploy"),
    ],
)
def test_a_hook_that_would_not_run_is_named_before_anything_changes(
    place: _Place, name: str, mode: int, words: str
) -> None:
    place.hook(name)
    (place.inventory / "hooks" / name).chmod(mode)
    stopped = place.run(CHANGE)
    assert stopped.code == 2
    assert words in stopped.output
    assert place.lines() == []
    assert not place.locked
