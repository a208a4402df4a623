"""Cleaning removes what is old and ended, and never a queue, a model, or what a link points at."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celray_testing import HttpService, RedisServer, http_service, ray_answers

from tasks.ray_jobs.files import locked
from tasks.settings import Settings

TASK = "tasks.simple_tasks.cleanup_old_results"
Configure = Callable[..., Settings]
Clean = Callable[..., dict[str, Any]]


@pytest.fixture
def ray() -> Iterator[HttpService]:
    jobs = [{"submission_id": "celray-running", "status": "RUNNING"}]
    with http_service(ray_answers(jobs=jobs)) as service:
        yield service


@pytest.fixture
def clean(app: Celery, configure: Configure, ray: HttpService) -> Clean:
    """Run the task in this process."""
    app.loader.import_default_modules()
    configure(ray_address=ray.url)

    def run(**kwargs: object) -> dict[str, Any]:
        result: dict[str, Any] = app.tasks[TASK].apply(kwargs=kwargs).get()
        return result

    return run


def put_result(redis: RedisServer, name: str, days: float, ttl: int | None = 86_400) -> str:
    done = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    key = f"celery-task-meta-{name}"
    with redis.client(1) as store:
        store.set(key, json.dumps({"status": "SUCCESS", "date_done": done}), ex=ttl)
    return key


def put_run(settings: Settings, name: str, days: float, end: str | None = "result.json") -> Path:
    folder = settings.runs_dir / name
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "data.bin").write_bytes(b"x" * 1000)
    if end:
        (folder / end).write_text("{}")
    when = time.time() - days * 86_400
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (when, when))
    return folder


def test_old_results_go_and_young_ones_stay(clean: Clean, redis: RedisServer) -> None:
    old, young = put_result(redis, "old", 2), put_result(redis, "young", 0.5)
    ageless, old_ageless = (
        put_result(redis, "ageless", 0.5, None),
        put_result(redis, "old-ageless", 2, None),
    )
    result = clean()
    assert result["status"] == "completed"
    assert (result["results_deleted"], result["results_given_ttl"]) == (2, 1)
    with redis.client(1) as store:
        assert [store.exists(key) for key in (old, young, ageless, old_ageless)] == [0, 1, 1, 0]
        assert 0 < int(str(store.ttl(ageless))) <= 86_400


def test_what_is_no_result_is_never_touched(clean: Clean, redis: RedisServer) -> None:
    for db in (0, 1):
        with redis.client(db) as store:
            store.rpush("default", "a", "b")
            store.rpush("celery-task-meta-a-list", "a")
            store.hset("unacked", "tag", "message")
            store.set("celery-task-meta-no-json", "x", ex=60)
            store.set("celery-task-meta-running", json.dumps({"status": "STARTED"}), ex=60)
    clean(max_age_days=0.000001)
    for db in (0, 1):
        with redis.client(db) as store:
            assert store.lrange("default", 0, -1) == ["a", "b"]
            assert store.llen("celery-task-meta-a-list") == 1
            assert store.hget("unacked", "tag") == "message"
            assert store.exists("celery-task-meta-no-json", "celery-task-meta-running") == 2


def test_old_ended_runs_go_and_are_counted(clean: Clean, settings: Settings) -> None:
    old, young = put_run(settings, "celray-old", 31), put_run(settings, "celray-young", 29)
    result = clean()
    assert not old.exists()
    assert young.exists()
    assert (result["runs_deleted"], result["files_deleted"], result["space_freed"]) == (1, 2, 1002)


def test_a_dry_run_counts_the_same_and_deletes_nothing(
    clean: Clean, settings: Settings, redis: RedisServer
) -> None:
    folder, key = put_run(settings, "celray-old", 31), put_result(redis, "old", 2)
    result = clean(dry_run=True)
    assert folder.exists()
    with redis.client(1) as store:
        assert store.exists(key)
    assert (result["dry_run"], result["runs_deleted"], result["results_deleted"]) == (True, 1, 1)
    again = clean()
    assert (again["runs_deleted"], again["space_freed"]) == (1, result["space_freed"])


def test_a_run_that_ray_still_runs_stays_however_old(clean: Clean, settings: Settings) -> None:
    folder = put_run(settings, "celray-running", 400, end=None)
    result = clean()
    assert folder.exists()
    assert result["runs_kept_active"] == 1


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_state_of_a_search_stays_while_the_search_goes_on(
    clean: Clean, settings: Settings, *, dry_run: bool
) -> None:
    folder = put_run(settings, "celray-search-0123456789ab", 400, end="lock")
    with locked(folder / "lock"):
        when = time.time() - 400 * 86_400
        os.utime(folder / "lock", (when, when))
        result = clean(max_age_days=0.01, dry_run=dry_run)
        assert (result["runs_deleted"], result["runs_kept_active"]) == (0, 1)
        assert (folder / "deep" / "data.bin").exists()
    assert clean(max_age_days=0.01)["runs_deleted"] == 1
    assert not folder.exists()


def test_what_a_task_keeps_for_all_its_attempts_stays_while_one_of_them_runs(
    clean: Clean, settings: Settings, ray: HttpService
) -> None:
    jobs = [{"submission_id": "celray-task-retry2", "status": "RUNNING"}]
    ray.answers["/api/jobs/"] = ray_answers(jobs=jobs)["/api/jobs/"]
    names = ("celray-task", "celray-task-retry1", "celray-task-retry2", "celray-task2")
    folders = [put_run(settings, name, 400) for name in names]
    clean()
    assert [folder.exists() for folder in folders] == [True, False, True, False]


def test_without_rays_word_only_runs_with_an_end_go(
    clean: Clean, settings: Settings, ray: HttpService
) -> None:
    del ray.answers["/api/jobs/"]
    ended, failed = (
        put_run(settings, "celray-a", 31),
        put_run(settings, "celray-b", 31, "error.json"),
    )
    unknown = put_run(settings, "celray-c", 31, end=None)
    assert clean()["runs_deleted"] == 2
    assert [ended.exists(), failed.exists(), unknown.exists()] == [False, False, True]


def test_a_young_file_keeps_its_run(clean: Clean, settings: Settings) -> None:
    folder = put_run(settings, "celray-old", 31)
    (folder / "deep" / "progress.json").write_text("{}")
    assert clean()["runs_deleted"] == 0
    assert folder.exists()


def test_models_and_strangers_stay(clean: Clean, settings: Settings, tmp_path: Path) -> None:
    model = settings.models_dir / "celray-model"
    model.mkdir()
    stranger = put_run(settings, "my-notes", 400)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (settings.runs_dir / "celray-link").symlink_to(outside)
    within = put_run(settings, "celray-old", 31)
    (within / "link").symlink_to(outside)
    os.utime(within, (0, 0))
    os.utime(within / "link", (0, 0), follow_symlinks=False)
    clean()
    assert not within.exists()
    assert (outside / "precious").exists()
    assert model.exists()
    assert stranger.exists()
    assert (settings.runs_dir / "celray-link").is_symlink()


def test_a_link_in_place_of_the_runs_folder_is_refused(
    clean: Clean, settings: Settings, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    settings.runs_dir.rename(elsewhere)
    settings.runs_dir.symlink_to(elsewhere)
    folder = put_run(settings, "celray-old", 31)
    result = clean()
    assert folder.exists()
    assert result["status"] == "partial"
    assert "symbolic link" in result["problems"][0]
