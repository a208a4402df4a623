"""What operators ask and do of many workers at once: who is missing, queues, tasks, draining."""

import json
import socket
import subprocess
from pathlib import Path

import celray_programs
import pytest
from celery import Celery
from celray_testing import CATALOGUE, TRACES, RedisServer, StartWorker, full, wait_for
from redis import Redis

HERE = socket.gethostname()


def ops(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return celray_programs.run("tasks.ops", *arguments, env=env)


@pytest.fixture
def fleet(env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a catalogue with one worker, of which several hosts run one."""
    every = [{"name": "all", "queues": sorted({q for one in CATALOGUE for q in one["queues"]})}]
    env["CELRAY_WORKERS"] = json.dumps(every)
    return env


ALL = "celery,data,default,ml"


@pytest.mark.slow
def test_every_node_is_seen_and_a_missing_one_is_named(
    fleet: dict[str, str], start_worker: StartWorker
) -> None:
    """One answer was taken for each name of the catalogue: two hosts of one worker were one."""
    start_worker("all", ALL, NODE_HOST="one")
    start_worker("all", ALL, NODE_HOST="two")
    seen = {}
    for _ in range(3):
        document = json.loads(ops(fleet, "status", "--json").stdout)
        seen[tuple(document["workers"]["live"])] = document["workers"]["missing"]
    assert seen == {("all@one", "all@two"): []}

    wanted = ["all@one", "all@two", "all-2@two", "all@three"]
    told = ops({**fleet, "CELRAY_EXPECTED_NODES": json.dumps(wanted)}, "status").stdout
    silent = [line.split(": ")[1] for line in told.splitlines() if "does not answer" in line]
    assert silent == ["ray", "worker all-2@two", "worker all@three"]


# --- queues


@pytest.mark.slow
def test_queues_tell_what_waits_for_how_long_and_for_whom(
    env: dict[str, str], start_worker: StartWorker, app: Celery, redis: RedisServer
) -> None:
    start_worker()
    app.send_task("tasks.simple_tasks.ping", queue="ml", priority=9)
    app.send_task("tasks.simple_tasks.ping", queue="ml")
    with redis.client(0) as broker:
        broker.rpush("data", "no message")  # any client may write there
    found = json.loads(ops(env, "queues", "--json").stdout)
    assert {name: one["waiting"] for name, one in found.items()} == {
        "celery": 0,
        "data": 1,
        "default": 0,
        "ml": 2,
    }
    assert found["default"]["consumers"] == [f"default@{HERE}"]
    assert found["ml"]["consumers"] == []
    assert 0 < found["ml"]["oldest_seconds"] < 60
    assert found["data"]["oldest_seconds"] is None
    lines = ops(env, "queues").stdout.splitlines()
    assert lines[0].split() == ["QUEUE", "WAITING", "TAKEN", "OLDEST", "CONSUMERS"]
    assert lines[2].split() == ["data", "1", "0", "-", "NOBODY"]
    assert lines[3].split() == ["default", "0", "0", "-", f"default@{HERE}"]


def test_a_purge_shows_first_and_removes_what_waits_in_one_queue(
    env: dict[str, str], app: Celery, redis: RedisServer
) -> None:
    sent = [app.send_task("tasks.simple_tasks.ping", queue="ml") for _ in range(1200)]
    sent += [app.send_task("tasks.simple_tasks.send_notification", queue="ml", priority=9)]
    other = app.send_task("tasks.simple_tasks.ping", queue="data")
    with redis.client(0) as broker:
        told = ops(env, "purge", "ml").stdout
        assert told.splitlines()[0] == "queue ml: 1201 waiting messages would be lost"
        assert f"tasks.simple_tasks.ping  {sent[0].id}" in told.splitlines()[1]
        assert told.splitlines()[-1] == "  …"
        assert broker.llen("ml") == 1200

        told = ops(env, "purge", "ml", "--confirmed").stdout
        assert told.splitlines() == [
            "queue ml: 1201 waiting messages removed",
            "  tasks.simple_tasks.ping: 1200",
            "  tasks.simple_tasks.send_notification: 1",
        ]
        assert [broker.llen("ml"), broker.llen("ml\x06\x169"), broker.llen("data")] == [0, 0, 1]
    # Whoever waits for one of them gets an answer; no id is kept, and none of others is dropped.
    assert {one.state for one in (sent[0], sent[-1])} == {"REVOKED"}
    assert other.state == "PENDING"
    with redis.client(1) as results:
        assert not results.exists("celray-revoked", "celray-revoked-purged")
    assert ops(env, "purge", "ml", "--confirmed").stdout == "queue ml: nothing waits\n"


def test_a_purge_makes_room_in_a_full_redis(
    env: dict[str, str], app: Celery, redis: RedisServer
) -> None:
    for _ in range(50):
        app.send_task("tasks.simple_tasks.ping", queue="ml")
    with full(redis) as broker:
        done = ops(env, "purge", "ml", "--confirmed")
        assert "50 waiting messages removed" in done.stdout, done.stderr
        assert broker.llen("ml") == 0


def test_a_queue_that_is_not_there_is_not_purged(env: dict[str, str], redis: RedisServer) -> None:
    with redis.client(0) as broker:
        broker.rpush("_kombu.binding.ml", "not a queue of ours")
    done = ops(env, "purge", "mll", "--confirmed")
    assert done.returncode == 2
    assert done.stderr == (
        "celray: PURGE=mll: there is no queue 'mll'; there are: celery, data, default, ml\n"
    )


def test_a_silent_redis_is_one_line(env: dict[str, str]) -> None:
    done = ops({**env, "CELRAY_BROKER_URL": "redis://127.0.0.1:1/0"}, "queues")
    assert done.returncode == 1
    assert done.stderr.startswith("celray: Redis does not answer: ")
    assert len(done.stderr.splitlines()) == 1


# --- tasks at hand


@pytest.mark.slow
def test_tasks_that_run_that_wait_and_that_are_due_later_are_one_table(
    env: dict[str, str], start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker(app="extra_tasks")
    text = "x" * 500
    later = client.send_task("tasks.simple_tasks.ping", queue="default", countdown=3600)
    ran = client.send_task("extra.nap", args=[1, 90], queue="default")
    client.send_task("extra.length", kwargs={"text": text}, queue="default", countdown=3600)
    with redis.client(0) as broker:
        wait_for(lambda: broker.hlen("celray:held") == 3)
    found = json.loads(ops(env, "inspect", "--json").stdout)["tasks"]
    assert len(found) == 3
    states = {one["id"]: one["state"] for one in found}
    assert states[ran.id] == "running"
    assert states[later.id] == "scheduled"
    done = ops(env, "inspect")
    assert done.returncode == 1  # two workers of the catalogue do not run
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["STATE", "WORKER", "TASK", "ID"]
    assert lines[1].split()[:4] == ["running", f"default@{HERE}", "extra.nap", ran.id]
    assert lines[1].endswith("1, 90")
    assert max(map(len, lines)) < 300
    assert "ml does not answer" in lines
    summary = next(line for line in lines if line.startswith("default@")).split()
    assert summary[1:4] == ["1", "0", "2"]
    assert int(summary[4]) >= 12
    assert summary[5] == "consuming"


# --- draining


@pytest.fixture
def mine(env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a host with one worker; nobody waits for others to answer."""
    env["CELRAY_EXPECTED_NODES"] = json.dumps([f"default@{HERE}"])
    return env


def traces(redis: Redis) -> list[str]:
    return [str(one) for one in redis.lrange(TRACES, 0, -1)]


@pytest.mark.slow
def test_a_drained_host_finishes_takes_nothing_and_comes_back(
    mine: dict[str, str],
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
    tmp_path: Path,
) -> None:
    first = start_worker(app="extra_tasks")
    heartbeat = Path(mine["CELRAY_HEARTBEAT_FILE"])
    marker = Path(mine["CELRAY_OUTCOMES_DIR"], "drained")
    with redis.client(5) as told:
        sent = client.send_task("extra.until_told", args=[0], queue="default")
        client.send_task("tasks.simple_tasks.ping", queue="default", countdown=3600)
        wait_for(lambda: traces(told) == ["start 0"])
        with redis.client(0) as broker:
            wait_for(lambda: broker.hlen("celray:held") == 2)
        elsewhere = {"CELRAY_HEARTBEAT_FILE": str(tmp_path / "other"), "CELRAY_OUTCOMES_DIR": ""}
        start_worker("ml", "default,celery", NODE_HOST="elsewhere", **elsewhere)
        plan = ops(mine, "drain", "--check")
        assert plan.returncode == 0, plan.stderr
        assert f"default@{HERE} leaves " in plan.stdout
        assert not marker.exists()

        out = tmp_path / "drain.out"
        draining = celray_programs.Program("tasks.ops", ["drain", "--wait", "60"], mine, out)
        first.says("Canceling queue celery")
        assert draining.poll() is None, "a task still runs"
        told.set("go", 1)
        assert draining.wait(60) == 0, out.read_text()
    assert f"{HERE} is drained" in out.read_text()
    assert "1 tasks wait there for their ETA" in out.read_text()
    assert sent.get(timeout=10) == 0
    workers = json.loads(ops(mine, "status", "--json").stdout)["nodes"]
    assert workers[f"default@{HERE}"]["queues"] == []
    assert workers[f"default@{HERE}"]["drained"]
    # Others take what comes, and the container stays healthy.
    answer = client.send_task("tasks.simple_tasks.ping", queue="default").get(timeout=30)
    assert answer["worker"] == "ml@elsewhere"
    before = heartbeat.stat().st_mtime
    wait_for(lambda: heartbeat.stat().st_mtime > before)
    assert "was drained already" in ops(mine, "drain").stdout

    # It stays so when its container restarts.
    first.terminate()
    second = start_worker(app="extra_tasks")
    second.says("this host is drained")
    status = ops(mine, "status").stdout.splitlines()
    assert any(f"default@{HERE}" in line and "queues drained" in line for line in status)
    done = ops(mine, "undrain")
    assert done.returncode == 0, done.stderr
    assert f"{HERE} is no longer drained: default@{HERE} consume their queues" in done.stdout
    assert f"{HERE} was not drained" in ops(mine, "undrain").stdout
    assert not marker.exists()


@pytest.mark.slow
def test_what_does_not_end_in_time_is_named_and_the_host_works_again(
    mine: dict[str, str], start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker(app="extra_tasks")
    sent = client.send_task("extra.until_told", args=[1], queue="default")
    with redis.client(5) as told:
        wait_for(lambda: traces(told) == ["start 1"])
        done = ops(mine, "drain", "--wait", "1", "--force")
        assert done.returncode == 1
        assert f"{HERE} is not drained after 1 s, and consumes again" in done.stderr
        assert f"extra.until_told {sent.id} on default@{HERE} for " in done.stderr
        told.set("go", 1)
    assert client.send_task("tasks.simple_tasks.ping", queue="celery").get(timeout=30)


@pytest.mark.slow
def test_a_queue_is_not_left_without_a_consumer_unless_somebody_insists(
    mine: dict[str, str], start_worker: StartWorker
) -> None:
    start_worker("default", "default,celery")
    start_worker("ml", "default", NODE_HOST="elsewhere")
    done = ops(mine, "drain")
    assert done.returncode == 2
    assert "no other worker that answers consumes celery" in done.stderr
    assert "FORCE=yes" in done.stderr
    # The other one is drained at the same time: it does not count.
    assert "consumes celery, default:" in ops(mine, "drain", "--host", "elsewhere").stderr
    assert ops(mine, "drain", "--force").returncode == 0
    assert ops(mine, "undrain").returncode == 0


def test_a_host_without_workers_is_not_drained(env: dict[str, str]) -> None:
    done = ops(env, "drain")
    assert done.returncode == 2
    assert f"no worker of {HERE} answers" in done.stderr
