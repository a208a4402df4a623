"""What ours stands on in kombu, Celery and redis-py: an upgrade that changes it fails here."""

import inspect
import json
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.worker import request as celery_request
from celery.worker import state
from celery.worker.consumer import Consumer
from celray_testing import RedisServer, full
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from tasks.broker.redis.priorities import SEPARATOR, STEPS, list_of
from tasks.broker.redis.scripts import HELD, LEASES
from tasks.broker.redis.transport import Channel, Poller


@pytest.fixture
def connection(redis: RedisServer, app: Celery) -> Iterator[Connection]:
    with Connection(redis.url(0), transport=app.conf.broker_transport) as made:
        yield made


def test_a_transport_is_taken_by_its_alias_and_keeps_the_url(connection: Connection) -> None:
    assert isinstance(connection.default_channel, Channel)
    assert isinstance(connection.transport.cycle, Poller)
    assert connection.as_uri().startswith("celray://")


def test_the_queue_lists_are_named_by_priority_step() -> None:
    assert list(STEPS) == kombu_redis.PRIORITY_STEPS
    assert kombu_redis.Channel.sep == SEPARATOR
    assert list_of("q", {"properties": {"priority": 7}}) == f"q{SEPARATOR}6"
    assert list_of("q", {"properties": {"priority": 0}}) == "q"


def test_a_stock_client_writes_what_the_fetch_reads(client: Celery, redis: RedisServer) -> None:
    client.send_task("x", queue="default", priority=5)
    with redis.client(0) as broker:
        (raw,) = broker.lrange(f"default{SEPARATOR}3", 0, -1)
    message = json.loads(str(raw))
    assert isinstance(message["properties"]["delivery_tag"], str)
    assert message["headers"]["id"]
    assert message["properties"]["priority"] == 5


def test_a_message_is_recorded_when_popped_and_gone_when_acknowledged(
    connection: Connection, client: Celery, redis: RedisServer
) -> None:
    client.send_task("x", queue="default")
    message = connection.default_channel.basic_get("default")
    with redis.client(0) as broker:
        assert broker.llen("default") == 0
        record = json.loads(str(broker.hget(HELD, message.delivery_tag)))
        assert record[1:] == ["", "default"]  # kombu's form; restored to this very queue
        assert broker.zscore(LEASES, message.delivery_tag) is not None
        message.ack()
        assert not broker.exists(HELD, LEASES)


def test_a_message_of_a_closed_channel_can_still_be_acknowledged(
    connection: Connection, client: Celery, redis: RedisServer
) -> None:
    client.send_task("x", queue="default")
    channel = connection.default_channel
    message = channel.basic_get("default")
    channel.leases.working = frozenset({message.delivery_tag})
    connection.close()
    channel.leases.working = frozenset()
    with redis.client(0) as broker:
        assert broker.exists(HELD)
        message.ack()
        assert not broker.exists(HELD, LEASES)


def test_a_closed_channel_gives_back_what_nobody_works_on(
    connection: Connection, client: Celery, redis: RedisServer
) -> None:
    client.send_task("x", queue="default", priority=9)
    connection.default_channel.basic_get("default")
    connection.close()
    with redis.client(0) as broker:
        (raw,) = broker.lrange(f"default{SEPARATOR}9", 0, -1)
        assert json.loads(str(raw))["properties"]["delivery_info"]["redelivered"]
        assert not broker.exists(HELD, LEASES)


def test_priorities_and_all_queues_are_served_in_kombus_order(
    connection: Connection, client: Celery
) -> None:
    for number, (queue, priority) in enumerate([("a", 9), ("b", 9), ("a", 0), ("b", 0)]):
        client.send_task("x", args=[number], queue=queue, priority=priority)
    seen: list[int] = []

    def take(body: list[list[int]], message: object) -> None:
        seen.append(body[0][0])
        message.ack()  # type: ignore[attr-defined]

    queues = [Queue(name) for name in ("a", "b")]
    with connection.Consumer(queues, callbacks=[take], accept=["json"]):
        while len(seen) < 4:
            connection.drain_events(timeout=5)
    assert set(seen[:2]) == {2, 3}  # in Redis kombu serves 0 first
    assert set(seen[2:]) == {0, 1}


def test_an_idle_consumer_is_told_of_a_message_at_once(
    connection: Connection, client: Celery
) -> None:
    seen: list[object] = []
    queue = Queue("default")
    with connection.Consumer(queue, callbacks=[lambda _, message: seen.append(message)]):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)  # nothing there: it waits for a notice
        channel = connection.default_channel
        assert channel._waiting
        assert not channel.connection.cycle.poller.poll(0)
        client.send_task("x", queue="default")
        assert channel.connection.cycle.poller.poll(5)
        while not seen:
            connection.drain_events(timeout=5)


def test_an_idle_consumer_is_not_woken_by_other_queues(
    connection: Connection, client: Celery
) -> None:
    with connection.Consumer(Queue("ml"), callbacks=[lambda *_: None]):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
        channel = connection.default_channel
        assert channel._waiting
        client.send_task("x", queue="default")
        with connection.clone() as other:
            message = other.default_channel.basic_get("default")  # held and leased
            message.ack()
        assert not channel.connection.cycle.poller.poll(0.3)
        client.send_task("x", queue="ml")
        assert channel.connection.cycle.poller.poll(5)


def test_more_than_the_prefetch_count_is_never_held(connection: Connection, client: Celery) -> None:
    for _ in range(10):
        client.send_task("x", queue="default")
    seen: list[object] = []
    queue = Queue("default")
    with connection.Consumer(
        queue, callbacks=[lambda _, message: seen.append(message)], prefetch_count=3
    ):
        while len(seen) < 3:
            connection.drain_events(timeout=5)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
        assert len(seen) == 3


@pytest.mark.parametrize("timer", ["maybe_refresh_binding_expiry", "look_again"])
def test_channels_come_while_a_timer_goes_through_them(
    connection: Connection, timer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was stopped said "Set changed size during iteration" now and then."""
    poller = connection.transport.cycle
    assert connection.default_channel in poller._channels
    monkeypatch.setattr(Channel, timer, lambda _: connection.channel())
    getattr(poller, timer)()
    assert len(poller._channels) == 2


def test_what_kombus_poller_and_channel_call_is_what_we_replace() -> None:
    poller = inspect.getsource(kombu_redis.MultiChannelPoller)
    assert "channel._brpop_start()" in poller
    assert "chan.handlers[type]()" in poller
    assert "channel._in_poll" in poller
    channel = inspect.getsource(kombu_redis.Channel)
    assert "'BRPOP': self._brpop_read" in channel
    assert "def _connparams(self, asynchronous=False)" in channel
    assert "self._brpop_sent_at" in channel
    assert "restore_unacked_once" in inspect.getsource(kombu_redis.virtual.Channel.close)
    assert "self._delivered" in inspect.getsource(kombu_redis.virtual.QoS.can_consume)


def test_redis_py_tells_notices_from_answers() -> None:
    assert "push_request" in inspect.signature(AbstractConnection.read_response).parameters
    assert "redis_connect_func" in inspect.signature(AbstractConnection.__init__).parameters


def test_celerys_consumer_treats_a_lost_connection_as_we_replace_it() -> None:
    source = inspect.getsource(Consumer.on_close)
    assert "self.pool.flush()" in source
    assert "reserved_requests.clear()" in source
    assert "self.on_close()" in inspect.getsource(Consumer.start)
    assert "_apply_result = maybe(ref, result)" in inspect.getsource(
        celery_request.Request.execute_using_pool
    )
    assert isinstance(state.requests, dict)


def test_celerys_consumer_tells_nobody_but_the_caller_of_an_unknown_task() -> None:
    source = inspect.getsource(Consumer.on_unknown_task)
    assert "chord=None" in source
    assert "errbacks=None" in source


def test_a_full_redis_still_fetches_renews_and_acknowledges(
    connection: Connection, client: Celery, redis: RedisServer
) -> None:
    client.send_task("x", queue="default")
    with redis.client(0) as broker:
        broker.config_set("maxmemory", 1)
        try:
            with pytest.raises(OutOfMemoryError):
                broker.set("something", "more")
            message = connection.default_channel.basic_get("default")
            assert connection.default_channel.leases.renew() == set()
            message.ack()
            assert not broker.exists(HELD, LEASES)
        finally:
            broker.config_set("maxmemory", "200mb")


def test_a_full_redis_takes_a_workers_results_and_messages(
    app: Celery, client: Celery, redis: RedisServer
) -> None:
    with full(redis) as broker:
        with pytest.raises(OperationalError, match="maxmemory"):
            client.send_task("x", queue="default", retry=False)
        app.backend.store_result("an-id", {"rows": 7}, "SUCCESS")
        app.send_task("x", queue="default", ignore_result=True)
        assert broker.llen("default") == 1
    assert client.AsyncResult("an-id").get(timeout=5) == {"rows": 7}
    with redis.client(1) as results:
        assert 0 < int(results.ttl("celery-task-meta-an-id")) <= app.conf.result_expires


def test_the_reserve_of_a_full_redis_has_an_end(app: Celery, redis: RedisServer) -> None:
    with full(redis, share=0.5), pytest.raises(OperationalError, match="reserve"):
        app.send_task("x", queue="default", ignore_result=True, retry=False)


def test_a_worker_can_begin_in_a_full_redis(connection: Connection, redis: RedisServer) -> None:
    with full(redis) as broker:
        channel = connection.default_channel
        Queue("mailbox", Exchange("boxes"), "mailbox", expires=10)(channel).declare()
        broker.delete("_kombu.binding.boxes")
        channel._refresh_bindings(["mailbox"])
        assert broker.exists("_kombu.binding.boxes")


def test_a_chord_comes_together_in_a_full_redis(app: Celery, redis: RedisServer) -> None:
    with full(redis):
        script = app.backend._chord_part_return_script
        arguments = ["an-id", "{}", 1, 0, 60, 60, 10, "token"]
        assert script(keys=list("jtsdgc"), args=arguments)[0] == 1


def test_a_result_that_a_full_redis_refuses_is_written_again(app: Celery) -> None:
    assert app.backend.exception_safe_to_retry(OutOfMemoryError("full"))
    assert app.backend.exception_safe_to_retry(RedisConnectionError("away"))
    assert not app.backend.exception_safe_to_retry(ValueError("wrong"))
