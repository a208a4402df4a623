"""Beat sends what is due, says that it lives, and leaves its lock behind for nobody."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from celery import Celery
from celery.schedules import crontab, schedule
from celray_testing import BEAT, Process, RedisServer, full, wait_for
from redbeat import RedBeatSchedulerEntry
from redbeat.decoder import RedBeatJSONEncoder

from tasks.beat.cron_schedule import CronSchedule
from tasks.beat.scheduler import Entry
from tasks.operations import health
from tasks.operations.probes import beat_state
from tasks.settings import Settings

SCHEDULE: list[dict[str, object]] = [
    {"name": "often", "task": "tasks.simple_tasks.ping", "every_seconds": 1},
    {"name": "nightly", "task": "tasks.simple_tasks.cleanup_old_results", "cron": "30 3 * * *"},
    {"name": "elsewhere", "task": "tasks.simple_tasks.ping", "every_seconds": 1, "queue": "data"},
]


def start_beat(env: dict[str, str], log: Path, schedule: Sequence[object] | None = None) -> Process:
    env = {
        **env,
        "CELRAY_BEAT_SCHEDULE": json.dumps(schedule or SCHEDULE),
        "CELRAY_BEAT_MAX_INTERVAL_SECONDS": "1",
    }
    return Process([*BEAT], env, log)


@pytest.mark.slow
def test_beat_ticks_and_stops(
    env: dict[str, str], redis: RedisServer, tmp_path: Path, app: Celery, settings: Settings
) -> None:
    process = start_beat(env, tmp_path / "beat.log")
    try:
        with redis.client(0) as broker:
            wait_for(lambda: int(str(broker.llen("default"))) >= 2 and broker.llen("data"))
        started = (tmp_path / "heartbeat").stat().st_mtime
        wait_for(lambda: (tmp_path / "heartbeat").stat().st_mtime > started)
        state = beat_state(app, settings, 1.0)
        assert state.lock_held
        assert state.last_tick_seconds_ago is not None
        assert state.last_tick_seconds_ago < 60
        assert set(state.last_runs) == {"often", "nightly", "elsewhere"}
        assert state.said_of("often") == state.last_runs["often"]
        assert state.said_of("nightly") == "never", "its first run is due at its first time"

        process.terminate()
        assert not beat_state(app, settings, 1.0).lock_held
        assert "Traceback" not in process.text
    finally:
        process.kill()


def test_wrong_entries_are_named_and_the_others_run(
    env: dict[str, str], redis: RedisServer, tmp_path: Path, app: Celery, settings: Settings
) -> None:
    """Each of these ended Beat, and with it every entry."""
    ping: dict[str, object] = {"task": "tasks.simple_tasks.ping"}
    wrong = {
        "61": {**ping, "cron": "61 * * * *"},
        "never": {**ping, "cron": "0 0 31 2 *"},
        "nan": {**ping, "every_seconds": "nan"},
        "nobody": {**ping, "task": "tasks.simple_tasks.pong", "every_seconds": 1},
        "nowhere": {**ping, "every_seconds": 1, "queue": "gpu"},
    }
    right = {
        "sunday": {**ping, "cron": "0 3 * * 7"},
        "daily": {**ping, "cron": "@daily"},
        "last": {**ping, "cron": "0 3 L * *"},
        "quarters": {**ping, "cron": "5/15 * * * *"},
    }
    entries: list[object] = [{"name": name, **entry} for name, entry in (wrong | right).items()]
    process = start_beat(env, tmp_path / "beat.log", [*entries, SCHEDULE[0], "no entry"])
    try:
        with redis.client(0) as broker:
            wait_for(lambda: int(str(broker.llen("default"))) >= 2)
        state = beat_state(app, settings, 1.0)
        assert set(state.last_runs) == {*right, "often"}
        assert set(state.refused) == {*wrong, f"number {len(entries) + 2}"}
        told = process.text
        for name, why in state.refused.items():
            assert f"schedule entry {name} does not run: {why}" in told
        assert "61" in state.refused["61"]
        assert "Traceback" not in told
        assert [r.part for r in health.check(app, settings).reasons if "schedule" in r.part] == [
            f"schedule {name}" for name in state.refused
        ]
    finally:
        process.kill()


def test_an_entry_of_ours_that_nobody_can_read_is_made_anew(
    env: dict[str, str], redis: RedisServer, tmp_path: Path
) -> None:
    with redis.client(2) as client:
        for name, definition in (
            ("often", '{"schedule": {"__type__": "crontab", "minute": "99"}}'),
            ("somebodys", "no json"),
            ("lists", "[]"),
        ):
            client.hset(f"redbeat:{name}", "definition", definition)
            client.zadd("redbeat::schedule", {f"redbeat:{name}": 1})
    process = start_beat(env, tmp_path / "beat.log")
    try:
        with redis.client(0) as broker:
            wait_for(lambda: int(str(broker.llen("default"))) >= 2)
        assert "Traceback" not in process.text
    finally:
        process.kill()


def test_a_version_before_reads_what_this_one_has_written(app: Celery) -> None:
    """After a rollback an earlier Beat finds these entries: Celery's own classes, no other."""
    for text in ("0 3 * * 7", "5/15 * * * *", "0 0 L * 1-3", "@daily"):
        entry = Entry(
            name="x", task="tasks.simple_tasks.ping", schedule=CronSchedule(text), app=app
        )
        entry.save()
        before = RedBeatSchedulerEntry.from_key("redbeat:x", app=app)
        assert isinstance(before.schedule, crontab)
        assert Entry.from_key("redbeat:x", app=app).schedule == CronSchedule(text)
    Entry(name="x", task="tasks.simple_tasks.ping", schedule=schedule(60), app=app).save()
    assert Entry.from_key("redbeat:x", app=app).schedule == schedule(60)


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


def last_ran(redis: RedisServer, name: str, ago: timedelta) -> None:
    """Make an entry's last run as old as an outage would."""
    when = datetime.now(UTC) - ago
    meta = {"last_run_at": when, "total_run_count": 1}
    with redis.client(2) as client:
        client.hset(f"redbeat:{name}", "meta", json.dumps(meta, cls=RedBeatJSONEncoder))
        client.zadd("redbeat::schedule", {f"redbeat:{name}": 1})


def run_until_it_ticks(env: dict[str, str], folder: Path, schedule: Sequence[object]) -> None:
    """Have Beat store its entries, and stop it."""
    before = start_beat(env, folder / "before.log", schedule)
    try:
        wait_for((folder / "heartbeat").exists)
    finally:
        before.terminate()


def test_what_was_missed_is_sent_once_or_left_out_and_either_is_said(
    env: dict[str, str], redis: RedisServer, tmp_path: Path, app: Celery, settings: Settings
) -> None:
    """After an outage of three hours, of hourly and of nightly entries."""
    noon = datetime.now(UTC) + timedelta(hours=12)
    cron = f"{noon.minute} {noon.hour} * * *"  # due half a day ago, and in half a day
    hourly = {"task": "tasks.simple_tasks.ping", "every_seconds": 3600}
    nightly = {"task": "tasks.simple_tasks.ping", "cron": cron, "queue": "data"}
    schedule: list[dict[str, object]] = [
        {**hourly, "name": "catches-up"},
        {**hourly, "name": "skips", "missed": "skip", "queue": "ml"},
        {**nightly, "name": "nightly", "missed": "run"},
        {**nightly, "name": "nightly-skips", "missed": "skip"},
        {**nightly, "name": "new"},
    ]
    run_until_it_ticks(env, tmp_path, schedule)
    for name in ("catches-up", "skips"):
        last_ran(redis, name, timedelta(hours=4))
    for name in ("nightly", "nightly-skips"):
        last_ran(redis, name, timedelta(hours=30))
    process = start_beat(env, tmp_path / "beat.log", schedule)
    try:
        wait_for(lambda: len(beat_state(app, settings, 1.0).missed) == 4)
        time.sleep(2.5)  # two more ticks, in which nothing may be sent again
        with redis.client(0) as broker:
            sent = {queue: broker.llen(queue) for queue in ("default", "ml", "data")}
        assert sent == {"default": 1, "ml": 0, "data": 1}
        state = beat_state(app, settings, 1.0)
        told = {name: (found["action"], found["runs"]) for name, found in state.missed.items()}
        assert told == {
            "catches-up": ("run", 4),
            "skips": ("skip", 4),
            "nightly": ("run", None),
            "nightly-skips": ("skip", None),
        }
        assert 10_000 < state.missed["skips"]["late_seconds"] < 11_000
        assert all(state.last_runs.values())  # each waits for its next time
        assert process.text.count("and was missed") == 4
        assert "skips was due at" in process.text
    finally:
        process.kill()


def test_a_clock_that_was_set_back_silences_no_entry_and_repeats_none(
    env: dict[str, str], redis: RedisServer, tmp_path: Path
) -> None:
    """Last runs that are ahead of the clock: the same for Beat as a clock that went back."""
    nightly = {"task": "tasks.simple_tasks.ping", "cron": "30 3 * * *"}
    schedule: list[dict[str, object]] = [
        {"name": "hourly", "task": "tasks.simple_tasks.ping", "every_seconds": 3600},
        {**nightly, "name": "nightly"},
        {**nightly, "name": "nightly-ahead-for-days"},
    ]
    run_until_it_ticks(env, tmp_path, schedule)
    last_ran(redis, "hourly", timedelta(hours=-5))
    last_ran(redis, "nightly", timedelta(hours=-5))
    last_ran(redis, "nightly-ahead-for-days", timedelta(days=-5))
    process = start_beat(env, tmp_path / "beat.log", schedule)
    try:
        process.says("nightly-ahead-for-days ran last")
        with redis.client(2) as client:
            due = dict(client.zrange("redbeat::schedule", 0, -1, withscores=True))
        hour, day, now = 3600, 86_400, time.time()
        assert now < due["redbeat:hourly"] < now + hour + 1
        assert now < due["redbeat:nightly-ahead-for-days"] < now + day + 1
        # Not before the time at which it ran last; the morning before that one was its own.
        assert due["redbeat:nightly"] > now + 5 * hour - 60
        assert process.text.count("counted from now") == 2
        with redis.client(0) as broker:
            assert broker.llen("default") == 0
    finally:
        process.kill()


def test_beat_on_time_has_missed_nothing(
    env: dict[str, str], redis: RedisServer, tmp_path: Path, app: Celery, settings: Settings
) -> None:
    process = start_beat(env, tmp_path / "beat.log")
    try:
        with redis.client(0) as broker:
            wait_for(lambda: int(str(broker.llen("default"))) >= 3)
        assert beat_state(app, settings, 1.0).missed == {}
        assert "missed" not in process.text
    finally:
        process.kill()


def test_beat_that_starts_while_redis_is_full_waits_for_room(
    env: dict[str, str], redis: RedisServer, tmp_path: Path
) -> None:
    """It ended, and began again for as long as Redis was full."""
    run_until_it_ticks(env, tmp_path, SCHEDULE)
    (tmp_path / "heartbeat").unlink()
    with full(redis):
        process = start_beat(env, tmp_path / "beat.log")
        wait_for(lambda: process.text.count("Beat starts when it is not") >= 2)
    try:
        wait_for((tmp_path / "heartbeat").exists)
        assert "Traceback" not in process.text
    finally:
        process.terminate()


@pytest.mark.slow
def test_beat_waits_while_redis_is_full_and_goes_on(
    env: dict[str, str], redis: RedisServer, tmp_path: Path
) -> None:
    process = start_beat(env, tmp_path / "beat.log", SCHEDULE[:1])
    try:
        with redis.client(0) as broker:
            wait_for(lambda: broker.llen("default"))
            with full(redis):
                wait_for(lambda: "Redis is away or full" in process.text)
                waiting = int(str(broker.llen("default")))
                time.sleep(2.5)
                assert broker.llen("default") == waiting
            wait_for(lambda: int(str(broker.llen("default"))) > waiting + 1)
        times = sent_at(redis)
        assert all(later - earlier > 0.5 for earlier, later in pairwise(times))
        assert process.popen.poll() is None
    finally:
        process.kill()


def sent_at(redis: RedisServer) -> list[float]:
    """When each message of the entry `often` was sent, in order."""
    with redis.client(0) as broker:
        messages = [json.loads(str(raw)) for raw in broker.lrange("default", 0, -1)]
    return sorted(message["headers"]["celray_published_at"] for message in messages)


@pytest.mark.slow
def test_of_two_beats_one_ticks_and_the_other_replaces_it_when_it_dies(
    env: dict[str, str], redis: RedisServer, tmp_path: Path
) -> None:
    only = SCHEDULE[:1]
    first = start_beat(env, tmp_path / "first.log", only)
    second: Process | None = None
    try:
        wait_for(lambda: len(sent_at(redis)) >= 2)
        second = start_beat(env, tmp_path / "second.log", only)
        second.says("beat: Starting")
        before = len(sent_at(redis))
        wait_for(lambda: len(sent_at(redis)) >= before + 3)
        assert "Scheduler: Sending" not in second.text

        first.kill()
        killed = time.time()
        wait_for(lambda: sent_at(redis)[-1] > killed)  # the lock lives five ticks
        assert "Scheduler: Sending" in second.text

        # Somebody deletes the lock: its holder ends, rather than tick beside another.
        with redis.client(2) as client:
            assert client.delete("redbeat::lock") == 1
        second.popen.wait(timeout=60)
        ended = time.time()
        first = start_beat(env, tmp_path / "third.log", only)  # as the container's policy does
        wait_for(lambda: sent_at(redis)[-1] > ended)

        assert all(later - earlier > 0.5 for earlier, later in pairwise(sent_at(redis)))
    finally:
        first.kill()
        if second is not None:
            second.kill()
