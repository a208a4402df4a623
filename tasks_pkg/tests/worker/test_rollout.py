"""What a rolling update asks of real workers."""

import json
import subprocess

import celray_programs
from celery import Celery
from celray_testing import StartWorker, wait_for


def ops(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return celray_programs.run("tasks.ops", *arguments, env=env)


def test_what_runs_is_named_with_its_worker(
    env: dict[str, str], start_worker: StartWorker, client: Celery
) -> None:
    assert "no worker works on anything" in ops(env, "running").stdout
    start_worker(app="extra_tasks")
    sent = client.send_task("extra.nap", args=[1, 90], queue="default")
    found = wait_for(lambda: json.loads(ops(env, "running", "--json").stdout))
    assert [(one["task"], one["id"]) for one in found] == [("extra.nap", sent.id)]
    assert found[0]["worker"].startswith("default@")
    assert 0 <= found[0]["seconds"] < 90
    assert "extra.nap" in ops(env, "running").stdout


def test_a_worker_answers_its_canary_on_every_queue(
    env: dict[str, str], start_worker: StartWorker
) -> None:
    start_worker()
    done = ops({**env, "CELRAY_WORKER_NAME": "default"}, "canary", "--seconds", "20")
    assert done.returncode == 0, done.stderr
    assert [line.split()[4] for line in done.stdout.splitlines()] == ["default", "celery"]


def test_a_canary_that_others_answer_or_nobody_fails_and_says_so(
    env: dict[str, str], start_worker: StartWorker
) -> None:
    mine = {**env, "CELRAY_WORKER_NAME": "default", "CELRAY_NODE_NAME": "default-stand-in"}
    done = ops(mine, "canary", "--seconds", "1")
    assert done.returncode == 1
    assert "answered no ping of queue 'default' within 1 s (nobody did)" in done.stderr
    start_worker()
    done = ops(mine, "canary", "--seconds", "2")
    assert done.returncode == 1
    assert "(answers came from default@" in done.stderr
