"""A message reaches its channel once, and the channel's URL reaches nobody."""

import logging
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from celery.result import EagerResult
from celray_testing import Answer, HttpService, RedisServer, http_service

from tasks.settings import Settings

TASK = "tasks.simple_tasks.send_notification"
TOKEN = "SuperSecretToken42"  # noqa: S105 - a canary
Configure = Callable[..., Settings]


@pytest.fixture
def hook() -> Iterator[HttpService]:
    with http_service({f"/{TOKEN}": Answer(200)}) as service:
        yield service


@pytest.fixture
def send(app: Celery, configure: Configure, hook: HttpService) -> Callable[..., EagerResult]:
    """Run the task in this process; its retries follow without a pause."""
    app.loader.import_default_modules()
    url = hook.url.replace("http://", "json://") + f"/{TOKEN}"
    configure(notify_channels={"ops": url, "bad": f"nosuchscheme://{TOKEN}"}, notify_max_retries=2)

    def run(**kwargs: object) -> EagerResult:
        result: EagerResult = app.tasks[TASK].apply(kwargs=kwargs)
        return result

    return run


@pytest.mark.slow
def test_a_message_is_sent(send: Callable[..., EagerResult], hook: HttpService) -> None:
    result = send(message="disk is full", channel="ops").get()
    assert (result["status"], result["channel"], result["message"]) == (
        "sent",
        "ops",
        "disk is full",
    )
    assert [path for path, _, _ in hook.seen] == [f"/{TOKEN}"]
    assert "disk is full" in hook.seen[0][1]


def test_a_duplicate_within_the_window_is_suppressed(
    send: Callable[..., EagerResult], hook: HttpService
) -> None:
    assert send(message="a", channel="ops").get()["status"] == "sent"
    assert send(message="a", channel="ops").get()["status"] == "duplicate"
    assert send(message="b", channel="ops").get()["status"] == "sent"
    assert len(hook.seen) == 2


def test_the_window_ends(send: Callable[..., EagerResult], redis: RedisServer) -> None:
    send(message="a", channel="ops").get()
    with redis.client(1) as store:
        (key,) = store.scan_iter("celray:notify:*")
        assert 0 < int(str(store.ttl(key))) <= 300


def test_a_failure_is_retried_a_bounded_number_of_times_and_marks_nothing(
    send: Callable[..., EagerResult], hook: HttpService, redis: RedisServer
) -> None:
    hook.answers[f"/{TOKEN}"] = Answer(503)
    result = send(message="a", channel="ops")
    assert result.state == "FAILURE"
    assert str(result.result) == "channel 'ops': not delivered, HTTP 503"
    assert len(hook.seen) == 3
    with redis.client(1) as store:
        assert not list(store.scan_iter("celray:notify:*"))
    hook.answers[f"/{TOKEN}"] = Answer(200)
    assert send(message="a", channel="ops").get()["status"] == "sent"


@pytest.mark.parametrize("channel", ["default", "opps"])
def test_without_the_channel_the_result_says_so(
    send: Callable[..., EagerResult], hook: HttpService, channel: str
) -> None:
    result = send(message="a", channel=channel).get()
    assert result["status"] == "not_configured"
    assert "there are: bad, ops" in result["detail"]
    assert "celray_notify_channels" in result["detail"]
    assert not hook.seen


@pytest.mark.parametrize(("channel", "status"), [("ops", 500), ("ops", 200), ("bad", 200)])
def test_no_part_of_the_url_is_told(
    send: Callable[..., EagerResult],
    hook: HttpService,
    caplog: pytest.LogCaptureFixture,
    channel: str,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.answers[f"/{TOKEN}"] = Answer(status)
    result = send(message="a", channel=channel)
    told = f"{result.result!r} {result.traceback} {caplog.text}"
    assert channel in told
    assert TOKEN not in told
    assert TOKEN.lower() not in told


@pytest.mark.parametrize("arguments", [{}, {"message": 3}, {"message": ""}, {"text": "a"}])
def test_wrong_arguments_are_refused(
    send: Callable[..., EagerResult], arguments: dict[str, object]
) -> None:
    result = send(**arguments)
    assert type(result.result).__name__ == "InvalidArgumentsError"
