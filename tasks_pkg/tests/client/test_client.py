"""The Python client, synchronous and not, and the examples that show it."""

import asyncio
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from celray_testing import (
    PACKAGE,
    TRACES,
    RedisServer,
    StartWorker,
    environment,
    wait_for,
    worker,
)
from packaging.requirements import Requirement
from pydantic import SecretStr

from tasks.broker.redis.scripts import HELD
from tasks.cli.context import Session
from tasks.cli.watching import watch
from tasks.client import (
    AmbiguousNameError,
    AsyncClient,
    Client,
    NotFinishedError,
    ServiceUnavailableError,
    Status,
    TaskCancelledError,
    TaskFailedError,
    UnknownIdError,
    UnknownTaskError,
    catalogue,
    docstrings,
)
from tasks.client.catalogue import TaskInfo
from tasks.client.jobs import Jobs
from tasks.contracts import Contract, InvalidArgumentsError
from tasks.credentials import ClientSettings, ConfigurationError

EXAMPLES = PACKAGE / "examples"


@pytest.fixture
def ours(redis: RedisServer) -> Iterator[Client]:
    with Client(broker=redis.url(0), backend=redis.url(1)) as made:
        yield made


def test_submit_wait_and_result(ours: Client, start_worker: StartWorker) -> None:
    start_worker()
    seen: list[Status] = []
    task = ours.submit("ping")
    status = task.wait(timeout=60, on_change=seen.append)
    assert status.state == "SUCCESS"
    assert seen[-1] == status
    assert task.result()["status"] == "pong"
    assert ours.task(task.id).status().name == "tasks.simple_tasks.ping"


def test_a_mistake_is_refused_and_nothing_is_sent(ours: Client, redis: RedisServer) -> None:
    with pytest.raises(InvalidArgumentsError, match="unexpected keyword argument 'loud'"):
        ours.submit("ping", loud=True)
    with pytest.raises(UnknownTaskError, match="did you mean 'ping'"):
        ours.submit("pin")
    with redis.client(0) as broker:
        assert not broker.exists("default")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_half_a_connection_is_refused_and_no_other_one_is_taken(
    kind: type[Client] | type[AsyncClient], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", redis.url(0))
    monkeypatch.setenv("CELERY_RESULT_BACKEND", redis.url(1))
    with pytest.raises(ConfigurationError, match="`broker` without `backend`; give both"):
        kind(broker=redis.url(2))
    with pytest.raises(ConfigurationError, match="`backend` without `broker`; give both"):
        kind(backend=redis.url(2))
    with pytest.raises(ConfigurationError, match="backend: must be a URL of the form redis://"):
        kind(broker=redis.url(2), backend="http://u:secret@host")


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0?password=sekret", "redis://u:sekret@127.0.0.1:1/0#sekret"]
)
def test_an_error_repeats_no_secret_of_an_address(url: str) -> None:
    with (
        Client(broker=url, backend=url) as away,
        pytest.raises(ServiceUnavailableError, match=r"redis://127\.0\.0\.1:1/0 does not") as told,
    ):
        away.queues()
    assert "sekret" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://token:sekret@127.0.0.1:1", "Ray at http://127.0.0.1:1 does not answer"),
        ("http://127.0.0.1:1/sekret?token=sekret", "Ray at http://127.0.0.1:1 does not answer"),
        ("http://token:sekret#x@127.0.0.1", "Ray at an address that is no URL does not answer"),
    ],
)
def test_an_error_repeats_no_secret_of_rays_address(url: str, said: str) -> None:
    somewhere = SecretStr("redis://127.0.0.1:1/0")
    settings = ClientSettings(
        broker_url=somewhere, result_backend_url=somewhere, ray_address=url, origin="the test"
    )
    with pytest.raises(ServiceUnavailableError, match=re.escape(said)) as told:
        Jobs(settings, 1.0).details("celray-1")
    assert "sekret" not in str(told.value)


@pytest.mark.parametrize("url", ["redis://u:sekret#x@h/0", "redis://u:sekret\u2100@h/0"])
def test_what_is_no_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a URL of the form") as told:
        Client(broker=url, backend="redis://h/1")
    assert "sekret" not in str(told.value)


def test_a_parameter_that_is_also_an_option_of_submit_is_not_taken_for_it(
    ours: Client, redis: RedisServer
) -> None:
    def export(queue: str = "none") -> None:
        """Have a parameter that submit has too."""

    known = ours.tasks()
    export_info = TaskInfo("mine.export", "data", Contract(export))
    known["mine.export"] = export_info
    try:
        with pytest.raises(InvalidArgumentsError, match=r"client\.send\(client\.find\('export'\)"):
            ours.submit("export", queue="default")
        ours.send(ours.find("export"), {"queue": "default"})
    finally:
        del known["mine.export"]
    with redis.client(0) as broker:
        assert "'queue': 'default'" in broker.lrange("data", 0, -1)[0]
        assert not broker.exists("default")


def test_a_failure_a_cancellation_and_a_missing_result_differ(
    ours: Client, start_worker: StartWorker, redis: RedisServer
) -> None:
    waiting = ours.submit("ping")
    with pytest.raises(NotFinishedError, match="has not ended within"):
        waiting.result(timeout=0.1)
    assert waiting.cancel().cancelled
    with pytest.raises(TaskCancelledError):
        waiting.result(timeout=5)
    with pytest.raises(UnknownIdError):
        ours.task("nonsense").cancel()

    start_worker(app="extra_tasks")
    wrong = ours.send(TaskInfo("tasks.simple_tasks.ping", "default"), {"loud": 1})
    with pytest.raises(TaskFailedError, match="InvalidArgumentsError: ping: got an unexpected"):
        wrong.result(timeout=60)

    nap = ours.send(TaskInfo("extra.nap", "default"), {"number": 1, "seconds": 60})
    with redis.client(5) as traces:
        wait_for(lambda: traces.lrange(TRACES, 0, -1) == ["start 1"])
    assert nap.cancel().state == "REVOKED"


def test_an_id_of_ones_own_is_for_one_task(
    ours: Client, start_worker: StartWorker, redis: RedisServer
) -> None:
    start_worker()
    first = ours.submit("send_notification", task_id="night:1", message="good night", channel="ops")
    result = first.result(timeout=60)
    again = ours.submit("send_notification", task_id="night:1", channel="ops", message="good night")
    assert again.result(timeout=5) == result
    with redis.client(0) as broker:
        assert not broker.exists("default")
    with pytest.raises(InvalidArgumentsError, match=r"'night:1' was used before, .* other argum"):
        ours.submit("send_notification", task_id="night:1", message="good morning")
    with pytest.raises(InvalidArgumentsError, match="'night:1' was used before, for tasks"):
        ours.submit("ping", task_id="night:1")
    assert ours.task("night:1").result(timeout=5) == result


@pytest.mark.parametrize("task_id", ["../../up", "a/b", "", ".", "a\n", "night-retry1", "x" * 129])
def test_an_id_that_cannot_name_a_job_is_refused(task_id: str, ours: Client) -> None:
    with pytest.raises(InvalidArgumentsError, match="cannot be used: give up to 128 letters"):
        ours.submit("ping", task_id=task_id)


def test_so_it_is_from_another_client(ours: Client, start_worker: StartWorker) -> None:
    start_worker("ml", "ml")
    sent = ours.app.send_task("tasks.ml_tasks.retrain_models", task_id="../up", queue="ml")
    with pytest.raises(Exception, match=r"task id '../up' cannot be used"):
        sent.get(timeout=60)


@pytest.mark.slow
def test_watching_a_task_that_keeps_no_result_ends(
    ours: Client, client: Celery, start_worker: StartWorker, redis: RedisServer
) -> None:
    sent = client.send_task("tasks.simple_tasks.ping", queue="default", ignore_result=True)
    start_worker()
    with redis.client(0) as broker:
        wait_for(lambda: not broker.exists("default", HELD))
    with pytest.raises(UnknownIdError, match="or was never kept"):
        watch(Session(), ours.task(sent.id), log=False, timeout=30)


def crowd(redis: RedisServer, number: int) -> None:
    """Fill queue default; number 0 is taken next."""
    with redis.client(0) as broker:
        messages = (json.dumps({"headers": {"id": str(n)}}) for n in range(number))
        broker.lpush("default", *messages)


def test_a_task_behind_very_many_others_is_cancelled_and_status_says_how_far_it_looked(
    ours: Client, redis: RedisServer
) -> None:
    crowd(redis, 20_100)
    task = ours.submit("ping")
    with pytest.raises(UnknownIdError, match="queue default only the first 20,000 were looked at"):
        task.require_known()
    assert task.cancel().cancelled
    with redis.client(0) as broker:
        assert broker.llen("default") == 20_100
    assert ours.task("19000").status().position == 19_001
    assert ours.task("100").status().position == 101
    with pytest.raises(UnknownIdError, match=r"or was never kept$"):
        ours.task("nonsense").cancel()


def test_no_message_is_missed_where_workers_take_others_meanwhile(
    ours: Client, redis: RedisServer
) -> None:
    crowd(redis, 2000)
    seen = ours.broker._messages("default", everywhere=False)
    found = {next(seen)[1]}
    with redis.client(0) as broker:
        for _ in range(3):
            broker.rpop("default", 300)
            broker.lpush("default", *(f"later {n}" for n in range(100)))
            found |= {raw for _, raw in itertools.islice(seen, 600)}
        found |= {raw for _, raw in seen}
        left = set(broker.lrange("default", 0, -1))
    assert {raw for raw in left if not raw.startswith("later")} <= found


def test_a_task_that_only_workers_have_is_sent_to_its_queue(
    ours: Client, start_worker: StartWorker
) -> None:
    """A package's task: the worker knows its queue, this machine has none of its code."""
    with pytest.raises(UnknownTaskError):
        ours.find("nap")
    start_worker(app="extra_tasks")
    with pytest.raises(UnknownTaskError):  # registered, and routed nowhere
        ours.submit("extra.nap", number=1, seconds=0)
    task = ours.send(TaskInfo("extra.nap", None), {"number": 1, "seconds": 0}, queue="default")
    assert task.result(timeout=60) == 1


def test_many_wait_at_once_without_blocking_the_loop(
    redis: RedisServer, start_worker: StartWorker
) -> None:
    start_worker(app="extra_tasks")

    async def main() -> None:
        async with AsyncClient(broker=redis.url(0), backend=redis.url(1)) as client:
            task = await client.submit("ping")
            assert (await task.result(timeout=60))["status"] == "pong"
            nap = TaskInfo("extra.nap", "default")
            sent = [
                client.task(
                    (await client.call(client.sync.send, nap, {"number": n, "seconds": 1})).id
                )
                for n in range(4)
            ]
            assert await asyncio.gather(*(one.result(timeout=60) for one in sent)) == [0, 1, 2, 3]
            states = [status.state async for status in sent[0].follow()]
            assert states == ["SUCCESS"]
            assert (await sent[0].trace())["state"] == "SUCCESS"
            assert (await client.queues())["default"]["waiting"] == 0

    asyncio.run(main())


OPERATIONS: dict[str, Callable[[Client], object]] = {
    "submit": lambda ours: ours.submit("ping"),
    "cancel": lambda ours: ours.submit("ping").cancel(wait=0.1),
    "status": lambda ours: ours.submit("ping").status(),
    "trace": lambda ours: ours.submit("ping").trace(),
    "result": lambda ours: ours.submit("ping").result(timeout=60),
    "workers": lambda ours: ours.workers(),
    "queues": lambda ours: ours.queues(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_client_that_lives_longer_than_redis_goes_on(
    operation: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    """Its connections are of a Redis that has been started anew meanwhile."""
    process = worker(environment(own_redis, tmp_path), tmp_path, "default", "default,celery")
    try:
        with Client(broker=own_redis.url(0), backend=own_redis.url(1)) as ours:
            for does in OPERATIONS.values():
                does(ours)
            own_redis.stop()
            own_redis.start()
            OPERATIONS[operation](ours)
    finally:
        process.kill()


def test_names_are_completed_and_typos_are_told() -> None:
    known = ["tasks.a.run", "tasks.b.run", "mine.c.train"]
    assert catalogue.resolve("train", known) == "mine.c.train"
    assert catalogue.resolve("b.run", known) == "tasks.b.run"
    assert catalogue.resolve("tasks.a.run", known) == "tasks.a.run"
    with pytest.raises(AmbiguousNameError, match=r"tasks\.a\.run, tasks\.b\.run"):
        catalogue.resolve("run", known)
    with pytest.raises(UnknownTaskError, match="did you mean 'train'"):
        catalogue.resolve("trian", known)


def test_a_docstring_is_taken_apart() -> None:
    found = docstrings.parse(
        """Do it.

        More, as in :class:`tasks.x.Y`.

        Args:
            self: the task.
            path: a ``file``,
                or two.

        Returns:
            A thing.

        Raises:
            ValueError: no.
        """
    )
    assert (found.summary, found.text) == ("Do it.", "More, as in tasks.x.Y.")
    assert found.parameters == {"self": "the task.", "path": "a file, or two."}
    assert found.returns == "A thing."
    assert found.raises == {"ValueError": "no."}


def test_every_task_is_documented_for_those_who_send_it() -> None:
    for info in catalogue.installed().values():
        assert info.doc.summary, info.name
        assert info.queue, info.name
        undocumented = [p.name for p in info.parameters if not p.doc]
        assert not undocumented, f"{info.name}: {undocumented}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["submit_and_wait", "many_at_once", "plain_celery"])
def test_an_example_runs(name: str, start_worker: StartWorker, redis: RedisServer) -> None:
    start_worker()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env={
            "PYTHONPATH": str(PACKAGE / "src"),
            "CELERY_BROKER_URL": redis.url(0),
            "CELERY_RESULT_BACKEND": redis.url(1),
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = {
        "submit_and_wait": ["pong from default@", "refused: send_notification", "not_configured"],
        "many_at_once": ["20 answers"],
        "plain_celery": ["pong\ncelery"],
    }
    assert all(words in done.stdout for words in expected[name]), done.stdout


def test_what_local_jobs_need_is_what_rays_image_has() -> None:
    extras = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    lines = (PACKAGE / "requirements" / "ray.in").read_text().splitlines()
    in_image = [line for line in lines if line and not line.startswith("#")]
    local = [Requirement(line) for line in extras["optional-dependencies"]["local"]]
    wanted = [Requirement(line) for line in in_image]
    # The extra bounds what an installation without a lock may take; the image has a lock.
    assert [(one.name, one.extras) for one in local] == [(one.name, one.extras) for one in wanted]
