"""What the deployment gives is read exactly, and a mistake in it is one readable line."""

import json
from collections.abc import Callable
from pathlib import Path

import celray_programs
import pytest

from tasks.credentials import ConfigurationError
from tasks.settings import Settings, load_settings

Configure = Callable[..., Settings]


def wrong(configure: Configure, **values: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configure(**values)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_secrets_are_read_from_files(
    in_process: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(in_process["CELRAY_SECRETS_DIR"])
    folder.mkdir()
    monkeypatch.delenv("CELRAY_BROKER_URL")
    (folder / "celray_broker_url").write_text("redis://celray:hunter2@broker:6380/0\n")
    (folder / "celray_notify_channels").write_text('{"ops": "json://example.invalid/hook"}')
    settings = load_settings()
    assert settings.broker_url.get_secret_value() == "redis://celray:hunter2@broker:6380/0"
    assert list(settings.notify_channels) == ["ops"]
    assert "hunter2" not in repr(settings)
    assert "hook" not in repr(settings)


def test_a_missing_value_names_its_file_and_the_way_out(
    in_process: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CELRAY_BROKER_URL")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    file = Path(in_process["CELRAY_SECRETS_DIR"], "celray_broker_url")
    assert (
        str(caught.value) == f"broker_url (file {file}): is missing; deploy again, which writes it"
    )


def test_every_mistake_is_named_at_once(configure: Configure) -> None:
    text = wrong(configure, ray_address="localhost", result_expires_seconds=5)
    assert "ray_address (environment variable CELRAY_RAY_ADDRESS)" in text
    assert "result_expires_seconds" in text


@pytest.mark.parametrize("url", ["http://x:hunter2@h/0", "redis://", "hunter2"])
def test_a_wrong_url_is_not_repeated(configure: Configure, url: str) -> None:
    text = wrong(configure, broker_url=url)
    assert "redis://user:password@host:port/db" in text
    assert "hunter2" not in text


def test_what_is_not_json_names_its_variable(configure: Configure) -> None:
    assert "CELRAY_WORKERS): is not valid JSON" in wrong(configure, workers="[{")


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ([], "at least 1 item"),
        ([{"name": "a", "queue": ["ml"]}], "0.queue: Extra inputs"),
        ([{"name": "a", "queues": []}], "0.queues"),
        ([{"name": "a b", "queues": ["ml"]}], "'a b' must be letters"),
        ([{"name": "a", "queues": ["ml", "default"]}] * 2, "a named more than once"),
        ([{"name": "a", "queues": ["default"]}], "routed to queue 'ml', which no worker consumes"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(
    configure: Configure, workers: list[object], words: str
) -> None:
    text = wrong(configure, workers=workers)
    assert words in text
    assert "celery_workers" in text


def test_a_worker_that_is_not_in_the_catalogue_is_an_error(configure: Configure) -> None:
    assert "'typo' is not in workers (ml, data, default)" in wrong(configure, worker_name="typo")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "x", "task": "tasks.simple_tasks.pong", "every_seconds": 1}, "does not exist"),
        ({"name": "x", "task": "tasks.simple_tasks.ping"}, "every_seconds or cron, exactly one"),
        ({"name": "x", "task": "tasks.simple_tasks.ping", "cron": "0 3"}, "not five"),
        ({"name": "x", "task": "tasks.simple_tasks.ping", "every_second": 1}, "every_second"),
        (
            {"name": "x", "task": "tasks.simple_tasks.ping", "every_seconds": 1, "queue": "gpu"},
            "goes to queue 'gpu', which no worker consumes",
        ),
    ],
)
def test_a_mistake_in_the_schedule_is_named_and_concerns_that_entry_alone(
    configure: Configure, entry: dict[str, object], words: str
) -> None:
    good = {"name": "good", "task": "tasks.simple_tasks.ping", "cron": "@daily"}
    schedule = configure(beat_schedule=[entry, good]).schedule
    assert [spec.name for spec in schedule.entries] == ["good"]
    assert words in schedule.refused["x"]


def test_run_folders_never_hold_the_models(configure: Configure) -> None:
    text = wrong(configure, models_dir="/data/models", runs_dir="/data")
    assert "must not hold /data/models" in text


def test_a_missing_token_names_the_file(configure: Configure, tmp_path: Path) -> None:
    settings = configure()
    settings = settings.model_copy(
        update={"ray_auth_mode": "token", "ray_auth_token_path": tmp_path / "absent"}
    )
    with pytest.raises(ConfigurationError, match=r"RAY_AUTH_TOKEN_PATH: cannot read .*/absent"):
        settings.ray_headers()


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_a_process_stops_with_one_line_and_no_traceback(env: dict[str, str], command: str) -> None:
    env["CELRAY_WORKERS"] = json.dumps([{"name": "a", "queues": ["default"]}])
    done = celray_programs.run("celery", "-A", "tasks", command, env=env)
    assert done.returncode == 78
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "configuration error" in done.stderr
    assert "'ml'" in done.stderr


def test_a_replica_and_a_stand_in_are_nodes_of_their_worker(configure: Configure) -> None:
    names = ["data", "data-3", "default"]
    settings = configure(
        workers=[
            {"name": n, "queues": [q]}
            for n, q in zip(names, ["ml", "data", "default"], strict=True)
        ]
    )
    nodes = ["data@h", "data-2@h", "data-stand-in@h", "data-3@h", "data-3-2@h", "other-2@h"]
    assert [settings.worker_of(node) for node in nodes] == [
        "data",
        "data",
        "data",
        "data-3",
        "data-3",
        "other-2",
    ]
