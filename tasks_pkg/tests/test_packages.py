"""Task packages of others: declared and installed are the same, or nothing starts."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import celray_programs
import pytest
from celery import Celery
from celray_testing import PACKAGE, StartWorker

from tasks.credentials import ConfigurationError
from tasks.settings import Settings

#: A task for those who run it here.
NOISY = """
import subprocess
from celery import shared_task

@shared_task(name="word_count.one", bind=True)
def one(self, text: str) -> dict:
    print("here I am")
    subprocess.run(["echo", "and a program of mine"])
    return {"mean": float("nan"), "extremes": [float("inf"), -float("inf")]}
"""
Install = Callable[..., None]
Configure = Callable[..., Settings]

TASK = """
from celery import shared_task

@shared_task(name="{task}")
def one(text: str) -> int:
    return len(text)
"""
#: The checks of `make verify` that concern packages.
CHECKS = """
from tasks.app import app
from tasks.worker.info import ask_workers
from tasks.settings import get_settings
from tasks.operations.verify import Request, Verification

checks = Verification(app, get_settings(), Request())
checks._load()
checks.workers = ask_workers(app, 3)
print(checks._registered())
name = "word_count.one"
print(checks._task(name, {name: checks._send(name, checks.samples[name].kwargs)}))
"""
WORDS = [{"name": "word-count", "queues": {"word_count.one": "default"}}]


@pytest.fixture
def install(env: dict[str, str], tmp_path: Path) -> Install:
    """Lay a package beside ours as an installer does: a module, and metadata with entry points."""
    site = tmp_path / "site"

    def one(name: str, task: str = "", code: str | None = None, more: str = "") -> None:
        module = name.replace("-", "_")
        (site / module).mkdir(parents=True)
        (site / module / "__init__.py").touch()
        text = TASK.format(task=task or f"{module}.one") if code is None else code
        (site / module / "tasks.py").write_text(text + more)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[celray.tasks]\n{module} = {module}.tasks\n")

    env["PYTHONPATH"] += f":{site}"
    return one


def python(env: dict[str, str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(env: dict[str, str], packages: object, *command: str) -> str:
    """The one line with which a process of ours ends."""
    words = ("-A", "tasks", *(command or ("worker",)))
    told = {**env, "CELRAY_PACKAGES": json.dumps(packages)}
    done = celray_programs.run("celery", *words, env=told)
    assert done.returncode == 78, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "celery_packages" in done.stderr
    return done.stderr


def test_a_declared_package_is_called_where_it_was_routed(
    install: Install, start_worker: StartWorker, client: Celery
) -> None:
    install("word-count")
    start_worker(CELRAY_PACKAGES=json.dumps(WORDS))
    result = client.send_task("word_count.one", args=["four"], queue="default")
    assert result.get(timeout=60) == 4


@pytest.mark.slow
def test_a_task_that_is_named_beside_a_pattern_is_told_and_sent_to_its_own_queue(
    env: dict[str, str], install: Install, start_worker: StartWorker
) -> None:
    install("word-count", more=TASK.format(task="word_count.two").replace("one", "two"))
    queues = {"word_count.one": "data", "word_count.*": "default"}
    start_worker(CELRAY_PACKAGES=json.dumps([{"name": "word-count", "queues": queues}]))
    urls = {"CELERY_BROKER_URL": env["CELRAY_BROKER_URL"]}
    urls["CELERY_RESULT_BACKEND"] = env["CELRAY_RESULT_BACKEND_URL"]
    here_or_not = (env["PYTHONPATH"], str(PACKAGE / "src"))
    for path in here_or_not:
        for task, queue in (("one", "data"), ("two", "default")):
            words = ("submit", task, "text=four", "--json")
            bare = {"PATH": env["PATH"], "HOME": env["HOME"], "PYTHONPATH": path, **urls}
            done = celray_programs.run("tasks.cli", *words, env=bare)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["queue"] == queue


def test_one_queue_stands_for_all_tasks_of_a_package(configure: Configure) -> None:
    settings = configure(packages=[{"name": "Word.Count", "queues": "data"}])
    assert settings.packages[0].name == "word-count"
    assert settings.routes["word_count.*"] == "data"
    assert settings.knows("word_count.anything")
    assert not settings.knows("word_counting.anything")


def run_here(env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """What `celray run` says of a package's task."""
    bare = {name: env[name] for name in ("PATH", "HOME", "PYTHONPATH")}
    return celray_programs.run("tasks.cli", "run", "word_count.one", "--no-ray", *words, env=bare)


def test_the_answer_of_a_task_that_is_run_here_is_one_json_document(
    env: dict[str, str], install: Install
) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    install("word-count", code=NOISY)
    for words in ((), ("--json",)):
        done = run_here(env, "text=a", *words)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout, parse_constant=refuse)
        assert found == {"mean": "nan", "extremes": ["inf", "-inf"]}
        assert "here I am" in done.stderr
        assert "and a program of mine" in done.stderr


@pytest.mark.slow
def test_a_task_may_have_a_parameter_that_local_has_too(
    env: dict[str, str], install: Install
) -> None:
    install("word-count", code=TASK.format(task="word_count.one").replace("text", "on_progress"))
    done = run_here(env, "on_progress=four")
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    asked = "from tasks.local import Local; Local().run('one', on_progress=print)"
    refused = python({name: env[name] for name in ("PATH", "HOME", "PYTHONPATH")}, asked)
    assert "local.call('one', {'on_progress': ...})" in refused.stderr


@pytest.mark.parametrize("command", [("worker",), ("beat",), ("flower", "--port=0")])
def test_worker_beat_and_flower_refuse_what_is_installed_and_not_declared(
    env: dict[str, str], install: Install, command: tuple[str, ...]
) -> None:
    install("word-count")
    line = refusal(env, [], *command)
    assert "word-count is installed, with tasks in word_count.tasks" in line
    assert "declared packages (none)" in line


def test_what_is_declared_and_not_installed_is_refused(env: dict[str, str]) -> None:
    line = refusal(env, WORDS)
    assert "package word-count is declared" in line
    assert "group 'celray.tasks'" in line


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            "word_count.two",
            [r"only registered \['word_count.two'\], only declared \['word_count.one'\]"],
        ),
        ("tasks.mine", [r"begin with 'tasks\.' or 'celery\.'"]),
        # Of ours: where both stand is said.
        (
            "tasks.simple_tasks.ping",
            [
                r"'tasks\.simple_tasks\.ping'",
                r"Existing:.*tasks\.simple_tasks\.ping",
                r"New:.*word_count\.tasks\.one",
            ],
        ),
    ],
)
def test_a_task_of_another_name_than_is_declared_is_refused(
    env: dict[str, str], install: Install, task: str, said: list[str]
) -> None:
    install("word-count", task)
    line = refusal(env, WORDS)
    for pattern in said:
        assert re.search(pattern, line)


def test_a_name_that_two_packages_take_names_both_sides(
    env: dict[str, str], install: Install
) -> None:
    install("first")
    install("second", "first.one")
    packages = [
        {"name": "first", "queues": "default"},
        {"name": "second", "queues": {"second.one": "default"}},
    ]
    line = refusal(env, packages)
    assert "package second" in line
    assert "Existing: first.tasks.one" in line
    assert "New: second.tasks.one" in line


def test_a_package_that_cannot_be_imported_is_one_line(
    env: dict[str, str], install: Install
) -> None:
    install("word-count", code="import no_such_library\n")
    line = refusal(env, WORDS)
    assert "package word-count: its module word_count.tasks cannot be imported" in line
    assert "ModuleNotFoundError: No module named 'no_such_library'" in line


def test_a_package_may_call_our_tasks_without_taking_them(
    install: Install, start_worker: StartWorker, client: Celery
) -> None:
    install("word-count", more="\nfrom tasks.simple_tasks import ping  # noqa: F401\n")
    start_worker(CELRAY_PACKAGES=json.dumps(WORDS))
    assert client.send_task("word_count.one", args=["a"], queue="default").get(timeout=60) == 1


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ([{"name": "a", "queue": "ml"}], "queue: Extra inputs"),
        ([{"name": "a", "queues": {}}], "0.queues"),
        ([{"name": "a", "queues": "gpu"}], "task a.* is routed to queue 'gpu', which no worker"),
        ([{"name": "a", "queues": {"tasks.b": "ml"}}], "begin with 'tasks.'"),
        ([{"name": "a", "queues": {"*": "ml"}}], "'*'"),
        ([{"name": "a", "queues": "ml"}, {"name": "A", "queues": "ml"}], "named more than once"),
        (
            [{"name": "a", "queues": {"x": "ml"}}, {"name": "b", "queues": {"x": "ml"}}],
            "'x' is declared by a and by b",
        ),
    ],
)
def test_a_mistake_in_the_declaration_is_named(
    configure: Configure, packages: list[object], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(packages=packages)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_schedule_may_name_a_packages_task(configure: Configure) -> None:
    entry = {"name": "count", "task": "word_count.one", "every_seconds": 60}
    schedule = configure(packages=WORDS, beat_schedule=[entry]).schedule
    assert schedule.entries[0].task in WORDS[0]["queues"]


@pytest.mark.slow
def test_a_scheduled_task_that_no_package_registers_is_told_apart(
    env: dict[str, str], install: Install
) -> None:
    install("word-count")
    both = [
        {"name": "count", "task": "word_count.two", "every_seconds": 60},
        {"name": "ping", "task": "tasks.simple_tasks.ping", "every_seconds": 60},
    ]
    env["CELRAY_BEAT_SCHEDULE"] = json.dumps(both)
    env["CELRAY_PACKAGES"] = json.dumps([{"name": "word-count", "queues": "default"}])
    code = (
        "from tasks.app import app; from tasks import plugins;"
        "from tasks.settings import get_settings\n"
        "app.loader.import_default_modules()\n"
        "print(plugins.unregistered(app, get_settings()))"
    )
    done = python(env, code)
    assert done.returncode == 0, done.stderr
    assert "task 'word_count.two', which no package registers" in done.stdout
    assert "'ping'" not in done.stdout


@pytest.mark.slow
def test_verify_sends_a_packages_safe_sample(
    env: dict[str, str], install: Install, start_worker: StartWorker
) -> None:
    sample = 'Sample({"text": "abc"}, frozenset({"counted"}))'
    code = (
        "from celery import shared_task\nfrom tasks.samples import Sample\n"
        f"SAMPLES = {{'word_count.one': {sample}}}\n"
        "@shared_task(name='word_count.one')\n"
        "def one(text):\n    return {'status': 'counted', 'n': len(text)}\n"
    )
    install("word-count", code=code)
    env["CELRAY_PACKAGES"] = json.dumps(WORDS)
    start_worker(CELRAY_PACKAGES=env["CELRAY_PACKAGES"])
    done = python(env, CHECKS)
    assert done.returncode == 0, done.stderr
    registered, called = done.stdout.splitlines()
    assert registered.endswith("as declared: celray, word-count")
    assert called == "status 'counted'"
