"""Celery is configured as measured; each value here cost somebody a task somewhere."""

from collections.abc import Callable

import pytest
from celery import Celery
from redbeat.schedulers import ensure_conf

from tasks.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_serializer", "json"),
        ("result_serializer", "json"),
        ("event_serializer", "json"),
        ("accept_content", ["json"]),
        ("result_accept_content", ["json"]),
        ("task_acks_late", True),
        ("worker_prefetch_multiplier", 1),
        ("task_reject_on_worker_lost", True),
        ("task_retry_on_worker_lost", True),
        ("worker_cancel_long_running_tasks_on_connection_loss", False),
        ("result_backend_always_retry", True),
        ("broker_connection_max_retries", None),
        ("broker_connection_retry_on_startup", True),
        ("task_default_queue", "default"),
        ("task_create_missing_queues", False),
        ("task_track_started", True),
        ("task_send_sent_event", True),
        ("worker_send_task_events", True),
        ("result_extended", True),
        ("timezone", "UTC"),
        ("enable_utc", True),
    ],
)
def test_setting(app: Celery, name: str, value: object) -> None:
    assert app.conf[name] == value


def test_no_socket_waits_for_ever(app: Celery) -> None:
    options = app.conf.broker_transport_options
    assert 0 < options["socket_timeout"] <= 60
    assert 0 < options["socket_connect_timeout"] <= 30
    assert options["socket_keepalive"]
    assert 0 < app.conf.redis_socket_timeout <= 60


def test_publishing_outlives_a_restart_of_the_broker(app: Celery) -> None:
    policy = app.conf.task_publish_retry_policy
    waits = [
        min(policy["interval_start"] + i * policy["interval_step"], policy["interval_max"])
        for i in range(policy["max_retries"])
    ]
    assert 20 < sum(waits) < 120


def test_a_lost_child_is_retried_a_bounded_number_of_times(app: Celery) -> None:
    app.loader.import_default_modules()
    ours = [task for name, task in app.tasks.items() if name.startswith("tasks.")]
    assert ours
    assert all(task.max_retries is not None and task.max_retries <= 5 for task in ours)


def test_beat_locks_for_five_of_its_ticks(app: Celery, settings: Settings) -> None:
    assert app.conf.beat_max_loop_interval == settings.beat_max_interval_seconds
    assert app.conf.redbeat_lock_timeout == 5 * settings.beat_max_interval_seconds
    # Not in app.conf, which workers tell whoever asks them.
    assert ensure_conf(app).redis_url == settings.redbeat_url.get_secret_value()
    assert "redbeat_redis_url" not in app.conf


@pytest.mark.parametrize(("scheme", "tls"), [("redis", False), ("rediss", True)])
def test_the_schemes_tls_also_holds_under_our_transport(
    configure: Callable[..., Settings], scheme: str, tls: bool
) -> None:
    from tasks.app import create_app  # noqa: PLC0415 - needs the environment

    settings = configure(broker_url=f"{scheme}://:x@127.0.0.1:1/0")
    connection = create_app(settings).connection()
    assert bool(connection.ssl) is tls
    assert connection.transport_cls == "celray"
