"""`celray` as its user meets it: a program of its own, the rights of Redis's default user."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import celray_programs
import pytest
from celery import Celery
from celray_testing import (
    BEAT,
    PACKAGE,
    TRACES,
    Process,
    RedisServer,
    StartWorker,
    wait_for,
)

from tasks import code_version
from tasks.broker.redis.scripts import DEAD
from tasks.cli.context import Session
from tasks.cli.watching import watch
from tasks.client import Client, NotFinishedError

PING = "tasks.simple_tasks.ping"
Celray = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def credentials(redis: RedisServer, tmp_path: Path) -> Path:
    """A file as `make client` writes it, for a user with the rights of Redis's default user."""
    template = (PACKAGE.parent / "compose/users.acl.j2").read_text()
    rights = re.findall(r"set celery = '([^']+)'", template)[0].split()
    with redis.client(0) as admin:
        admin.execute_command("ACL", "SETUSER", "submitter", "reset", "on", ">secret", *rights)
    url = f"redis://submitter:secret@127.0.0.1:{redis.port}"
    file = tmp_path / "credentials"
    file.write_text(f"CELERY_BROKER_URL={url}/0\nCELERY_RESULT_BACKEND={url}/1\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has none of the service's settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": f"{PACKAGE / 'src'}",
    }


@pytest.fixture
def celray(credentials: Path, bare: dict[str, str]) -> Celray:
    def run(*words: str, status: int = 0, **extra: str) -> "subprocess.CompletedProcess[str]":
        env = {**bare, "CELRAY_CREDENTIALS": str(credentials), **extra}
        done = celray_programs.run("tasks.cli", *words, env=env)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def document(done: "subprocess.CompletedProcess[str]") -> Any:  # noqa: ANN401 - JSON
    return json.loads(done.stdout)


def test_submit_and_watch_prints_the_result_and_nothing_else_on_standard_output(
    celray: Celray, start_worker: StartWorker
) -> None:
    start_worker()
    done = celray("submit", "ping", "--watch")
    assert document(done)["status"] == "pong"
    assert 0 <= document(done)["queue_seconds"] < 30
    assert "sent tasks.simple_tasks.ping as" in done.stderr


@pytest.mark.slow
def test_an_id_leads_to_status_result_and_trace(celray: Celray, start_worker: StartWorker) -> None:
    start_worker()
    words = ["message=hello", "channel=7"]
    task_id = celray("submit", "send_notification", *words).stdout.strip()
    found = document(celray("result", task_id, "--timeout", "20"))
    assert found["status"] == "not_configured"
    assert found["channel"] == "7"  # the task wants text
    status = document(celray("status", task_id, "--json"))
    assert status["state"] == "SUCCESS"
    assert status["result"] == found
    trace = document(celray("trace", task_id, "--json"))
    assert trace["arguments"] == {"message": "hello", "channel": "7"}
    assert trace["queue"]["name"] == "default"
    assert trace["worker"]["node"].startswith("default@")
    assert trace["worker"]["code_now"] == "test"
    assert "default@" in celray("trace", task_id).stdout


@pytest.mark.slow
def test_a_task_waits_with_its_place_in_the_queue_and_is_taken_out_of_it(
    celray: Celray, client: Celery, redis: RedisServer
) -> None:
    ids = [celray("submit", "ping").stdout.strip() for _ in range(3)]
    second = document(celray("status", ids[1], "--json"))
    assert (second["state"], second["queue"], second["position"]) == ("WAITING", "default", 2)
    assert "no worker that answers consumes queue default" in (
        celray("submit", "ping", "--watch", "--timeout", "6", status=5).stderr
    )
    gone = document(celray("cancel", ids[1], "--json"))[0]
    assert (gone["state"], gone["cancelled"]) == ("REVOKED", True)
    with redis.client(0) as broker:
        assert ids[1] not in "".join(broker.lrange("default", 0, -1))
    celray("result", ids[1], status=4)
    celray("result", ids[0], status=5)
    assert client.AsyncResult(ids[1]).state == "REVOKED"


def test_cancelling_a_running_task_ends_it(
    celray: Celray, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker(app="extra_tasks")
    sent = client.send_task("extra.nap", (1, 60), queue="default")
    with redis.client(5) as traces:
        wait_for(lambda: traces.lrange(TRACES, 0, -1) == ["start 1"])
    running = document(celray("trace", sent.id, "--json"))
    assert running["worker"]["pid"] > 0
    assert "cancelled" in celray("cancel", sent.id).stdout
    celray("result", sent.id, status=4)
    assert "already ended: REVOKED" in celray("cancel", sent.id, status=1).stdout


def test_a_failed_task_says_so_in_one_line(
    celray: Celray, start_worker: StartWorker, client: Celery
) -> None:
    start_worker()
    sent = client.send_task("tasks.simple_tasks.ping", kwargs={"loud": 1})
    sent.get(timeout=60, propagate=False)
    done = celray("result", sent.id, status=1)
    assert done.stderr.startswith("celray: InvalidArgumentsError: ping: got an unexpected keyword")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "pin"], "did you mean 'ping'?"),
        (["submit", "ping", "loud=true"], "unexpected keyword argument 'loud'"),
        (["submit", "send_notification"], "missing a required argument: 'message'"),
        (["submit", "send_notification", "message="], "at least 1 character"),
        (["submit", "cleanup_old_results", "max_age_days=-1"], "greater than 0"),
        (["submit", "cleanup_old_results", "dry_run=maybe"], "dry_run: Input should be"),
        (
            [
                "submit",
                "distributed_training",
                "dataset_path=x.csv",
                "model_config.n_estimator=3",
            ],
            "did you mean 'n_estimators'?",
        ),
        (
            ["submit", "hyperparameter_search", 'param_grid=[{"foo": 1}]', "dataset_path=x.csv"],
            "param_grid[0]: unknown key 'foo'",
        ),
        (
            [
                "submit",
                "process_large_csv",
                "file_path=a.csv",
                "output_path=b.csv",
                "transformations.filter=a >",
            ],
            "character 4: a value, a column",
        ),
        (
            ["submit", "aggregate_data", 'data_sources=["a.csv", "a.csv"]', "output_path=b.csv"],
            "'a.csv' is named 2 times; name it once",
        ),
        (
            [
                "submit",
                "aggregate_data",
                'data_sources=["a.csv"]',
                "output_path=b.csv",
                'group_by=["a", "a"]',
            ],
            "'a' is named 2 times; name it once",
        ),
        (["submit", "send_notification", "message=1", "message=2"], "message is given twice"),
        (
            ["submit", "distributed_training", "model_config.max_depth=4", "model_config={}"],
            "model_config is given whole and as model_config.max_depth",
        ),
        (
            ["submit", "distributed_training", "model_config={}", "model_config.max_depth=4"],
            "model_config is given whole and as model_config.max_depth",
        ),
        (
            ["submit", "distributed_training", 'model_config={"seed": 1, "seed": 2}'],
            "model_config: the key 'seed' stands 2 times in one object",
        ),
        (
            ["submit", "send_notification", "--json-args", '{"message": "a"}', "message=b"],
            "message is given twice, also in --json-args",
        ),
        (
            [
                "submit",
                "distributed_training",
                "--json-args",
                '{"model_config": {"seed": 1}}',
                "model_config.seed=2",
            ],
            "model_config.seed is given twice, also in --json-args",
        ),
        (
            ["submit", "send_notification", "--json-args", '{"message": "a", "message": "b"}'],
            "--json-args: the key 'message' stands 2 times in one object",
        ),
        (
            ["submit", "ping", "--json-args", '{"a": 1}', "--json-args", '{"b": 2}'],
            "'--json-args': is given twice",
        ),
        (["submit", "ping", "--timeout", "5"], "--timeout says how long to watch: add --watch"),
        (["submit", "ping", "--task-id", ""], "task id '' cannot be used"),
        (["submit", "ping", "--delay", "inf"], "cannot be delayed by inf seconds"),
        (["submit", "ping", "loud"], "'loud' is not of the form key=value"),
        (["submit", "ping", "--json-args", "[1]"], "a JSON object is needed"),
        (["submit", "send_notification", "message=@/no/such/file"], "No such file"),
        (["statu"], "did you mean 'status'?"),
        (["status"], "Missing argument 'ID'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    celray: Celray, redis: RedisServer, words: list[str], said: str
) -> None:
    done = celray(*words, status=2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    with redis.client(0) as broker:
        assert not broker.exists("default")
        assert not broker.exists("ml", "data")


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "ping", "--delay", "abc", "--json"],
        ["submit", "ping", "--badopt", "--json"],
        ["nosuch", "--json"],
        ["--json", "nosuch"],
    ],
)
def test_wrong_use_is_told_in_json_too_where_it_stands_before_the_option(
    celray: Celray, words: list[str]
) -> None:
    error = document(celray(*words, status=2))["error"]
    assert (error["kind"], error["exit_status"]) == ("UsageError", 2)


def test_no_result_yet_is_an_error_document_with_and_without_waiting(celray: Celray) -> None:
    task_id = celray("submit", "ping").stdout.strip()
    for words in ([], ["--timeout", "0.1"]):
        error = document(celray("result", task_id, "--json", *words, status=5))["error"]
        assert error["kind"] == "NotFinishedError"


def test_help_is_laid_out_as_written(celray: Celray) -> None:
    for words in ([], ["submit"], ["run"]):
        shown = celray(*words, "--help").stdout
        assert "\\b" not in shown
    assert "\n  celray run distributed_training" in shown


def test_nested_keys_json_and_files_make_one_document(
    celray: Celray, redis: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "path.txt").write_text("a.csv")
    celray(
        "submit",
        "distributed_training",
        "--json-args",
        '{"model_config": {"max_depth": 3, "target": "y"}}',
        f"dataset_path=@{tmp_path / 'path.txt'}",
        "model_config.n_estimators=5",
        'model_config.exclude_columns=["id"]',
    )
    with redis.client(0) as broker:
        message = json.loads(broker.lrange("ml", 0, -1)[0])
    assert json.loads(message["headers"]["kwargsrepr"].replace("'", '"')) == {
        "model_config": {
            "max_depth": 3,
            "target": "y",
            "n_estimators": 5,
            "exclude_columns": ["id"],
        },
        "dataset_path": "a.csv",
    }


def test_what_a_key_wants_as_text_is_text(celray: Celray, redis: RedisServer) -> None:
    words = ["dataset_path=7", "model_config.target=8", "model_config.max_depth=9"]
    celray("submit", "distributed_training", *words)
    words = ["file_path=a.csv", "output_path=b.csv", "transformations.new_columns.one=1"]
    celray("submit", "process_large_csv", *words)
    with redis.client(0) as broker:
        sent = [json.loads(broker.lrange(queue, 0, -1)[0]) for queue in ("ml", "data")]
    first, second = (json.loads(one["headers"]["kwargsrepr"].replace("'", '"')) for one in sent)
    assert first == {"dataset_path": "7", "model_config": {"target": "8", "max_depth": 9}}
    assert second["transformations"] == {"new_columns": {"one": "1"}}


def test_queues_and_workers(celray: Celray, start_worker: StartWorker, client: Celery) -> None:
    client.send_task("tasks.simple_tasks.ping", queue="ml")
    start_worker()
    queues = document(celray("queues", "--json"))
    assert queues["ml"] == {"waiting": 1, "taken": 0, "workers": []}
    assert len(queues["default"]["workers"]) == 1
    assert "nobody answers" in celray("queues").stdout
    workers = document(celray("workers", "--json"))
    assert [info["versions"]["code"] for info in workers.values()] == ["test"]
    assert "default, celery" in celray("workers").stdout


def test_a_queue_that_the_service_does_not_have_is_refused(
    celray: Celray, start_worker: StartWorker, redis: RedisServer
) -> None:
    celray("submit", "ping", "--queue", "data")  # nobody says which queues there are
    start_worker()
    for queue in ("nosuch", ""):
        said = celray("submit", "ping", "--queue", queue, status=2).stderr
        assert f"queue {queue!r}: the service has no such queue; it has: celery, data" in said
    # The worker of this one is not there now.
    assert document(celray("submit", "ping", "--queue", "ml", "--json"))["queue"] == "ml"
    with redis.client(0) as broker:
        assert broker.llen("ml") == broker.llen("data") == 1


def test_no_worker_and_an_unknown_id_have_their_own_exit_status(celray: Celray) -> None:
    assert "no worker answers" in celray("workers", status=69).stderr
    assert "nothing is known of task nonsense" in celray("status", "nonsense", status=3).stderr
    said = document(celray("status", "nonsense", "--json", status=3))
    assert said["error"]["kind"] == "UnknownIdError"


def test_the_service_being_away_is_one_line_without_the_password(
    celray: Celray, credentials: Path
) -> None:
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", credentials.read_text())
    credentials.write_text(text)
    done = celray("submit", "ping", status=69)
    assert "Redis at redis://127.0.0.1:1/0 does not answer" in done.stderr
    assert str(credentials) in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_password_is_told_as_such(celray: Celray, credentials: Path) -> None:
    credentials.write_text(credentials.read_text().replace(":secret@", ":opensesame@"))
    done = celray("queues", status=69)
    assert "refuses" in done.stderr
    assert "opensesame" not in done.stderr


def test_a_missing_open_or_incomplete_credentials_file_is_refused(
    celray: Celray, credentials: Path
) -> None:
    said = celray("queues", CELRAY_CREDENTIALS="", status=78).stderr
    assert "CELERY_BROKER_URL is not set" in said
    credentials.chmod(0o644)
    assert f"chmod 600 {credentials}" in celray("queues", status=78).stderr
    credentials.chmod(0o600)
    credentials.write_text("CELERY_BROKER_URL=amqp://host\n")
    said = celray("queues", status=78).stderr
    assert "CELERY_BROKER_URL: must be a URL of the form redis://" in said
    assert "CELERY_RESULT_BACKEND: is missing" in said


def test_the_environment_is_a_connection_too(celray: Celray, redis: RedisServer) -> None:
    celray(
        "queues",
        CELERY_BROKER_URL=redis.url(0),
        CELERY_RESULT_BACKEND=redis.url(1),
        CELRAY_CREDENTIALS="/no/such/file",
    )


def test_half_a_connection_in_the_environment_is_refused(
    celray: Celray, redis: RedisServer
) -> None:
    said = celray("queues", CELERY_RESULT_BACKEND=redis.url(1), status=78).stderr
    assert "the environment: CELERY_BROKER_URL: is missing" in said
    said = celray("queues", CELERY_BROKER_URL=redis.url(0), status=78).stderr
    assert "the environment: CELERY_RESULT_BACKEND: is missing" in said


def test_celery_itself_is_reached_with_the_clients_app(
    celray: Celray, start_worker: StartWorker
) -> None:
    start_worker()
    assert "1 node online" in celray("celery", "inspect", "ping").stdout
    assert "Usage: celray celery" in celray("celery", "--help").stdout


def test_help_names_every_command_without_loading_celery(bare: dict[str, str]) -> None:
    asked = "import sys; from tasks.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked], env=bare, capture_output=True, text=True, check=True
    )
    assert "submit" in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert {"celery", "pydantic", "rich", "redis"}.isdisjoint(loaded)


def test_completion_knows_the_tasks(bare: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from tasks.cli import main; sys.exit(main())"],
        env={
            **bare,
            "_CELRAY_COMPLETE": "bash_complete",
            "COMP_WORDS": "celray submit pi",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ping" in done.stdout


def test_a_description_says_what_a_task_takes_and_gives(celray: Celray) -> None:
    text = celray("tasks", "distributed_training").stdout
    assert "tasks.schemas" not in text  # where the keys themselves follow
    assert "max_depth   whole number >= 1, <= 30 or none; default 6" in text
    assert "Boosting rounds" in text
    found = document(celray("tasks", "--json"))
    assert {task["name"]: task["queue"] for task in found}["tasks.simple_tasks.ping"] == "default"


@pytest.mark.slow
def test_dead_letters_are_listed_shown_replayed_and_dropped(
    celray: Celray, start_worker: StartWorker, client: Celery
) -> None:
    worker = start_worker(app="extra_tasks")
    sent = [client.send_task("extra.poison", queue="default") for _ in range(2)]
    for one in sent:
        one.get(timeout=60, propagate=False)
    ids = {one.id for one in sent}
    wait_for(lambda: {letter["id"] for letter in document(celray("dead", "list", "--json"))} == ids)
    first, second = sorted(ids)
    assert document(celray("dead", "show", first, "--json"))["task"] == "extra.poison"
    assert "extra.poison" in celray("dead", "list").stdout
    assert first in celray("dead", "drop", first).stdout
    worker.terminate()  # or what is replayed is a dead letter again before anybody looks
    celray("dead", "replay", second)
    assert document(celray("dead", "list", "--json")) == []
    assert "no dead letter" in celray("dead", "show", first, status=3).stderr


def test_progress_of_other_keys_is_shown_as_it_is(
    celray: Celray,
    start_worker: StartWorker,
    client: Celery,
    redis: RedisServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_worker(app="extra_tasks")
    sent = client.send_task("extra.counting", queue="default")
    with redis.client(5) as traces:
        wait_for(lambda: traces.lrange(TRACES, 0, -1) == ["counting"])
    for command in ("status", "trace"):
        said = celray(command, sent.id).stdout
        assert '{"current": 3, "total": 9}' in said
    url = {"broker": redis.url(0), "backend": redis.url(1)}

    def shown() -> bool:
        with pytest.raises(NotFinishedError):
            watch(Session(), ours.task(sent.id), log=False, timeout=0.1)
        return 'running {"current": 3, "total": 9}' in capsys.readouterr().err

    with Client(**url) as ours:
        wait_for(shown)


def letter(redis: RedisServer, letter_id: str) -> None:
    """Bury a ping."""
    message = {"headers": {"id": letter_id, "task": PING}, "properties": {}, "body": ""}
    stored = {"queue": "default", "reason": "a test", "deliveries": 3, "buried_at": 1}
    with redis.client(0) as broker:
        broker.hset(DEAD, letter_id, json.dumps({**stored, "message": message}))


@pytest.mark.parametrize("action", ["drop", "replay"])
def test_every_dead_letter_has_its_answer_when_one_of_them_is_unknown(
    celray: Celray, redis: RedisServer, action: str
) -> None:
    for name in ("a", "b", "c", "d"):
        letter(redis, name)
    done = celray("dead", action, "a", "nope", "b", status=3)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["a", "b"]
    assert "no dead letter 'nope'" in done.stderr
    done = celray("dead", action, "c", "nope", "d", "--json", status=3)
    first, second, third = document(done)
    assert (first["id"], second["id"], third["id"]) == ("c", "nope", "d")
    assert second["error"]["kind"] == "UnknownIdError"
    assert document(celray("dead", "list", "--json")) == []


@pytest.mark.slow
def test_every_task_is_cancelled_when_one_of_them_is_unknown(celray: Celray) -> None:
    ids = [celray("submit", "ping").stdout.strip() for _ in range(4)]
    done = celray("cancel", ids[0], "unknown", ids[1], status=3)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ids[:2]
    assert "nothing is known of task unknown" in done.stderr
    done = celray("cancel", ids[2], "unknown", ids[3], "--json", status=3)
    first, second, third = document(done)
    assert first["cancelled"]
    assert third["cancelled"]
    assert second["error"]["kind"] == "UnknownIdError"


def test_a_task_that_a_worker_holds_is_seen_as_delivered(
    celray: Celray, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    start_worker(app="extra_tasks")
    naps = [client.send_task("extra.nap", (n, 30), queue="default") for n in range(4)]
    wait_for(lambda: all(nap.state == "STARTED" for nap in naps))
    with redis.client(1) as store:
        store.delete(f"celery-task-meta-{naps[0].id}")  # as a task that stores no start
    held = document(celray("status", naps[0].id, "--json"))
    assert (held["state"], held["name"], held["queue"]) == ("DELIVERED", "extra.nap", "default")
    assert document(celray("queues", "--json"))["default"]["taken"] == 4


@pytest.mark.slow
def test_a_worker_older_than_the_deployed_code_is_flagged(  # noqa: PLR0913, PLR0917
    celray: Celray,
    start_worker: StartWorker,
    redis: RedisServer,
    app: Celery,
    in_process: dict[str, str],
    env: dict[str, str],
    tmp_path: Path,
) -> None:
    start_worker(CELRAY_CODE_VERSION="yesterday")
    assert worker_code(celray) == "unknown"
    beat = Process([*BEAT], {**env, "CELRAY_CODE_VERSION": "today"}, tmp_path / "beat.log")
    try:
        wait_for(lambda: worker_code(celray) == "old")
    finally:
        beat.kill()
    assert "yesterday  OLD: today is deployed" in celray("workers").stdout
    patient = {**in_process, "CELRAY_HEALTH_TIMEOUT_SECONDS": "5"}
    shown = celray_programs.run("tasks.ops", "status", env=patient)
    assert "code yesterday OLD, deployed is today: restart it" in shown.stdout
    # Flower shows what `inspect stats` answers.
    (stats,) = (app.control.inspect(timeout=5, limit=1).stats() or {}).values()
    assert stats["code_version"] == "yesterday"

    with redis.client(0) as broker:
        code_version.announce(broker, "yesterday")
    assert worker_code(celray) == "current"


def worker_code(celray: Celray) -> str:
    (info,) = document(celray("workers", "--json")).values()
    return str(info["code_state"])


def test_a_worker_that_an_update_has_reached_before_beat_is_newer() -> None:
    beat: code_version.Deployed = {"version": "a", "at": 1000.0}
    assert code_version.judge("b", 1090.0, beat) == "newer"
    assert code_version.judge("b", 900.0, beat) == "old"
    assert code_version.judge("a", 900.0, beat) == "current"
    assert code_version.judge("a", 900.0, None) == "unknown"
