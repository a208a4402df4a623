"""Beat sends what is due, says that it lives, and leaves its lock behind for nobody."""

import json
import time
from pathlib import Path

from celery import Celery
from celray_testing import Process, RedisServer, wait_for

from tasks.inspection import beat_state
from tasks.settings import Settings

SCHEDULE = [
    {"name": "often", "task": "tasks.simple_tasks.ping", "every_seconds": 1},
    {"name": "nightly", "task": "tasks.simple_tasks.cleanup_old_results", "cron": "30 3 * * *"},
    {"name": "elsewhere", "task": "tasks.simple_tasks.ping", "every_seconds": 1, "queue": "data"},
]


def start_beat(env: dict[str, str], log: Path) -> Process:
    env = {
        **env,
        "CELRAY_BEAT_SCHEDULE": json.dumps(SCHEDULE),
        "CELRAY_BEAT_MAX_INTERVAL_SECONDS": "1",
    }
    arguments = ["-A", "tasks", "beat", "-S", "tasks.beat:Scheduler", "--pidfile=", "-l", "INFO"]
    return Process(arguments, env, log)


def test_beat_ticks_and_stops(
    env: dict[str, str], redis: RedisServer, tmp_path: Path, app: Celery, settings: Settings
) -> None:
    process = start_beat(env, tmp_path / "beat.log")
    try:
        with redis.client(0) as broker:
            wait_for(lambda: int(str(broker.llen("default"))) >= 2 and broker.llen("data"))
        assert time.time() - (tmp_path / "heartbeat").stat().st_mtime < 5
        state = beat_state(app, settings, 1.0)
        assert state.lock_held
        assert state.last_tick_seconds_ago is not None
        assert state.last_tick_seconds_ago < 5
        assert set(state.last_runs) == {"often", "nightly", "elsewhere"}
        assert state.last_runs["often"] is not None

        process.terminate()
        assert not beat_state(app, settings, 1.0).lock_held
        assert "Traceback" not in process.text
    finally:
        process.kill()


def test_an_entry_that_was_removed_is_forgotten(
    env: dict[str, str], redis: RedisServer, tmp_path: Path, app: Celery, settings: Settings
) -> None:
    with redis.client(2) as client:
        client.sadd("redbeat::statics", "gone")
        client.zadd("redbeat::schedule", {"redbeat:gone": 1})
        client.hset("redbeat:gone", "definition", "{}")
    process = start_beat(env, tmp_path / "beat.log")
    try:
        wait_for((tmp_path / "heartbeat").exists)
        assert "gone" not in beat_state(app, settings, 1.0).last_runs
    finally:
        process.kill()
