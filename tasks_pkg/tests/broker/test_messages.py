"""No message stops a worker: a queue is open to every client, so its bytes may be anything.

The kind: any bytes in a queue, in a lease's record, or among the dead letters. What cannot be
understood is put aside once, with an answer where an id can be read; everything else runs; nothing
ends a worker or a lease keeper. ``CELRAY_FUZZ_SECONDS=3600`` makes the fuzz run its long form.
"""

import base64
import json
import os
import pickle
import random
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from threading import Event, Thread
from typing import Any

import pytest
from celery import Celery, chord, signature
from celray_messages import PING, message, mutated, protocol_1, protocol_2
from celray_messages import signature as sent
from celray_testing import Process, RedisServer, StartWorker, wait_for
from redis import Redis

from tasks.broker.envelope import (
    MOST_BYTES,
    MOST_REASON_CHARACTERS,
    Refused,
    payload_of,
    read,
    record_of,
)
from tasks.broker.redis import dead_letters, refusals
from tasks.broker.redis.leases import all_leases
from tasks.broker.redis.refusals import MOST_LETTERS, put_aside
from tasks.broker.redis.scripts import COUNTS, DEAD, FETCH, HELD, LEASES, REFUSED
from tasks.broker.task_message import check, identity
from tasks.client import Client
from tasks.operations.probes import queue_lengths
from tasks.worker.lease_keeper import LapsedLeases, is_due_later

FUZZ_SECONDS = float(os.environ.get("CELRAY_FUZZ_SECONDS", "6"))


def raw(redis: RedisServer) -> Redis:
    return Redis(port=redis.port, db=0)


def settled(redis: RedisServer, *queues: str) -> Callable[[], bool]:
    def question() -> bool:
        with redis.client(0) as broker:
            return not broker.exists(HELD, LEASES, *queues)

    return question


def still_works(client: Celery, worker: Process) -> None:
    assert client.send_task(PING, queue="default").get(timeout=60)["status"] == "pong"
    assert worker.popen.poll() is None


# -- each shape that was found, and what its sender is told


def _no_id() -> dict[str, Any]:
    made = protocol_2()
    del made["headers"]["id"]
    return made


def _with(made: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {**made, **changes}


FOUND: dict[str, Callable[[], dict[str, Any]]] = {
    "two parts": lambda: message([[], {}], protocol_2()["headers"]),
    "broken base64": lambda: _with(protocol_2(), body="x"),
    "null body": lambda: _with(protocol_2(), body=None),
    "no body": lambda: {k: v for k, v in protocol_2().items() if k != "body"},
    "null content-type": lambda: _with(protocol_2(), **{"content-type": None}),
    "task is a list": lambda: protocol_2(task=["x"]),  # type: ignore[arg-type]
    "a long name": lambda: protocol_2(task=1_000_000 * "x"),
    "no id": _no_id,
    "pickle": lambda: _with(
        protocol_2(),
        **{"content-type": "application/x-python-serialize"},
        body=base64.b64encode(pickle.dumps(([], {}, {}))).decode(),
    ),
    "yaml": lambda: _with(protocol_2(), **{"content-type": "application/x-yaml"}),
    "cannot be revived": lambda: message(
        [[{"__type__": "datetime", "__value__": "no"}], {}, {}], protocol_2()["headers"]
    ),
    "retries is text": lambda: protocol_2(retries="many"),
    "eta is a number": lambda: protocol_2(eta=5),
    "time limits": lambda: protocol_2(timelimit=[1e308, -1]),
    "chord is a number": lambda: message([[], {}, {"chord": 5}], protocol_2()["headers"]),
    "too deep": lambda: _with(
        protocol_2(), body=base64.b64encode(b"[" * 10_000 + b"]" * 10_000).decode()
    ),
    "expands a thousand times": lambda: _with(
        protocol_2(compression="application/x-gzip"),
        body=base64.b64encode(__import__("zlib").compress(b" " * 80_000_000)).decode(),
    ),
}


def test_each_is_put_aside_once_and_answered_where_an_id_can_be_read(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    worker = start_worker()
    made = {name: make() for name, make in FOUND.items()}
    with redis.client(0) as broker:
        for one in made.values():
            broker.lpush("default", json.dumps(one))
        broker.lpush("default", b"\xff\xfe not JSON")
        wait_for(settled(redis, "default"))
        letters = dead_letters.letters(dead_letters.connect(redis.url(0)))
        assert len(letters) == len(FOUND) + 1
        assert int(str(broker.hget(COUNTS, "refused"))) == len(FOUND) + 1
    for name, one in made.items():
        task_id = one["headers"].get("id")
        if name == "no id":
            task_id = one["properties"]["correlation_id"]
        result = client.AsyncResult(task_id)
        wait_for(lambda result=result: result.state == "FAILURE")  # type: ignore[misc]
        assert "its message was refused" in str(result.result), name
    for name, words in (("pickle", "pickle"), ("a long name", "not text of 1 to 1024 characters")):
        assert words in str(client.AsyncResult(made[name]["headers"]["id"]).result), name
    assert "yaml" in str(client.AsyncResult(made["yaml"]["headers"]["id"]).result)
    still_works(client, worker)
    assert "Traceback" not in worker.text


@pytest.mark.parametrize("headers", [None, {}, "absent"])
def test_protocol_1_runs_whatever_its_empty_headers_are(
    headers: object, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    worker = start_worker()
    made = [protocol_1() for _ in range(100)]
    for one in made:
        one["headers"] = headers
        if headers == "absent":
            del one["headers"]
    with redis.client(0) as broker:
        broker.lpush("default", *(json.dumps(one) for one in made))
    for one in made:
        task_id = json.loads(base64.b64decode(one["body"]))["id"]
        assert client.AsyncResult(task_id).get(timeout=60)["status"] == "pong"
    still_works(client, worker)


def test_a_chord_with_a_part_that_cannot_be_decoded_ends(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    part = signature(PING, app=client, queue="default")
    joined = chord([part.clone() for _ in range(3)], app=client)(part.clone())
    with redis.client(0) as broker:
        spoiled = json.loads(str(broker.rpop("default")))
        spoiled["body"] = "x"
        broker.lpush("default", json.dumps(spoiled))  # the last to be taken, now
    start_worker()
    joined.get(timeout=60, propagate=False)
    assert joined.state == "FAILURE"


def test_a_date_without_a_time_zone_is_taken_as_utc_and_said_to_be(
    start_worker: StartWorker, client: Celery
) -> None:
    worker = start_worker()
    past = datetime(2020, 1, 1, 12)  # noqa: DTZ001 - what is tested
    sent = client.send_task(PING, queue="default", eta=past)
    assert sent.get(timeout=60)["status"] == "pong"
    worker.says("its eta 2020-01-01T12:00:00 has no time zone and is taken as UTC")
    aware = client.send_task(PING, queue="default", countdown=0.1)
    assert aware.get(timeout=60)["status"] == "pong"
    assert worker.text.count("has no time zone") == 1


# -- any bytes


def test_the_readers_refuse_or_return_whatever_they_are_given() -> None:
    rng = random.Random(11)  # noqa: S311 - a seed, not a secret
    verdicts = {"refused": 0, "taken": 0}
    for _ in range(1_500):
        item = mutated(rng)
        made = None
        with suppress(Refused):
            found = read(item, "tag")
            check(found["headers"], payload_of(found))
            made = found
        verdicts["refused" if made is None else "taken"] += 1
        assert made is None or identity(made)[0]
    assert min(verdicts.values()) > 100, verdicts


@pytest.mark.slow
@pytest.mark.timeout(FUZZ_SECONDS + 120)
def test_no_message_stops_a_worker(
    start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    seed = int(os.environ.get("CELRAY_FUZZ_SEED", "2026"))
    rng = random.Random(seed)  # noqa: S311 - a seed, not a secret
    worker = start_worker()
    pid = worker.popen.pid
    end = time.monotonic() + FUZZ_SECONDS
    with raw(redis) as broker:
        broker.config_set("maxmemory", "4gb")  # what waits for its time adds up in the long form
        while time.monotonic() < end:
            batch = [mutated(rng) for _ in range(100)]
            for item in batch:
                broker.lpush("default", item)
            broker.rpush("default", json.dumps(protocol_2()))
            wait_for(lambda: not broker.exists("default"), 60)
            assert worker.popen.poll() is None, worker.text[-5000:]
            redis.client(1).flushdb()  # an hour's results are more than this Redis may hold
    assert worker.popen.pid == pid
    still_works(client, worker)
    # What waits for a date in the future is held; everything else has been dealt with.
    with dead_letters.connect(redis.url(0)) as broker:

        def waits(tag: str, record: str) -> bool:
            with suppress(Refused):  # one that is just being put aside
                item = record_of(tag, record)[0].encode("utf-8", "surrogateescape")
                return is_due_later(read(item, "tag"))
            return False

        wait_for(lambda: all(waits(*one) for one in broker.hgetall(HELD).items()))


@pytest.mark.parametrize("megabytes", [8, 15, 17])
def test_a_long_message_runs_or_is_refused_and_costs_redis_few_of_it(
    megabytes: int, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    made = protocol_2(argsrepr="x" * (megabytes * 1024 * 1024))
    item = json.dumps(made)
    # Its peak is that of its process, and a start that reads the append-only file has the peaks of
    # the tests before again.
    redis.stop()
    shutil.rmtree(redis.folder / "appendonlydir")
    redis.start()
    with redis.client(0) as broker:
        broker.lpush("default", item)
        before = int(broker.info("memory")["used_memory"])
        worker = start_worker()
        wait_for(settled(redis, "default"))
        scripts = int(broker.info("memory")["used_memory_peak"]) - before
        # The message and its record in the script, its record in the hash, and the answer.
        assert scripts < 6 * len(item)
    result = client.AsyncResult(made["headers"]["id"])
    if len(item) > MOST_BYTES:
        assert result.state == "PENDING"  # nobody reads so much to find an id
    else:
        assert result.get(timeout=60)["status"] == "pong"
    still_works(client, worker)


def test_a_fetch_holds_few_copies_of_a_long_message(redis: RedisServer) -> None:
    def lua() -> int:
        return int(broker.info("memory")["used_memory_vm_eval"])

    length = MOST_BYTES - 1024
    with redis.client(0) as broker:
        fetch = broker.register_script(FETCH)
        given = [60, 16, HELD, LEASES, "tag-", 0, "default"]
        fetch(keys=["default"], args=given)
        before = lua()
        broker.lpush("default", "x" * length, "y" * length, "z" * length)
        answer = fetch(keys=["default"], args=given)
        assert [part[:1] for part in answer[2::3]] == ["x"], "one long message at a time"
        # Nothing is collected yet.
        assert 0.9 * length < lua() - before < 1.1 * length


@pytest.mark.parametrize("kind", ["string", "hash", "set", "zset", "stream"])
def test_a_key_that_is_no_list_is_put_out_of_the_way(
    kind: str, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    with redis.client(0) as broker:
        for name in ("default", "default\x06\x163"):
            match kind:
                case "string":
                    broker.set(name, "x")
                case "hash":
                    broker.hset(name, "a", "x")
                case "set":
                    broker.sadd(name, "x")
                case "zset":
                    broker.zadd(name, {"x": 1})
                case _:
                    broker.xadd(name, {"a": "x"})
        worker = start_worker()
        wait_for(lambda: not broker.exists("default"))
        assert broker.exists("celray:aside:default")
        assert broker.ttl("celray:aside:default") > 0
    still_works(client, worker)


def test_a_client_finds_and_cancels_beside_any_bytes(client: Celery, redis: RedisServer) -> None:
    rng = random.Random(17)  # noqa: S311 - a seed, not a secret
    ours = Client(broker=redis.url(0), backend=redis.url(1))
    with raw(redis) as broker:
        for _ in range(100):
            broker.lpush("default", mutated(rng))
            broker.hset(HELD, rng.randbytes(4), b"[" + mutated(rng) + b',"","default"]')
            broker.hset("unacked", rng.randbytes(4), mutated(rng))
        sent = client.send_task(PING, queue="default")
        assert ours.task(sent.id).status().position == 101
        assert ours.queues()["default"]["waiting"] == 101
        assert ours.task(sent.id).cancel().cancelled
        assert broker.llen("default") == 100


# -- what is held by a worker that has died


@pytest.fixture
def bounded(redis: RedisServer) -> Iterator[Redis]:
    """The bound of a deployment (compose/redis.conf.j2); gives a client that reads bytes."""
    with raw(redis) as broker:
        broker.config_set("proto-max-bulk-len", 16 * 2**20)
        yield broker
        broker.config_set("proto-max-bulk-len", 512 * 2**20)


#: Headers that are longer when they are written again, and all but too long as they come.
GROWING = {
    "letters with an accent": b'"' + 4_000_000 * "é".encode() + b'"',
    "numbers with an exponent": b"[" + 1_000_000 * b"1e15," + b"1]",
}


def test_the_keeper_deals_with_each_record_by_itself(app: Celery, redis: RedisServer) -> None:
    rng = random.Random(7)  # noqa: S311 - a seed, not a secret
    with app.connection_for_read() as connection:
        leases = connection.default_channel.leases
        sweeper = LapsedLeases(app, leases, 0.0, 3)
        with raw(redis) as broker:
            records = [b"[" + mutated(rng) + b',"","default"]' for _ in range(300)]
            records += [b"", b"[]", b"null", b"\xff", b"[1,2,3]", b'{"a":1}', b'["x","",5]']
            for number, record in enumerate(records):
                broker.hset(HELD, f"t{number}", record)
                broker.zadd(LEASES, {f"t{number}": 1.0})
            good = json.dumps(protocol_2()).encode()
            broker.hset(HELD, "zz", b"[" + good + b',"","default"]')
            broker.zadd(LEASES, {"zz": 1.0})
            for _ in range(3):
                sweeper.sweep()
            wait_for(lambda: broker.zcard(LEASES) == 0)
            assert broker.hlen(HELD) == 0
            back = broker.lrange("default", 0, -1)
            assert json.loads(good)["headers"]["id"] in b" ".join(back).decode()
            assert 0 < broker.hlen(DEAD) <= len(records)
    assert leases in all_leases()


def test_putting_aside_never_looks_like_a_lease_that_another_took(
    app: Celery, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.connection_for_read() as connection, redis.client(0) as broker:
        channel = connection.default_channel
        held: list[bool] = []

        def noted(client: Redis, tag: str, *rest: Any) -> str:  # noqa: ANN401 - the original's
            held.append(tag in channel.leases.held)
            return put_aside(client, tag, *rest)

        monkeypatch.setattr(refusals, "put_aside", noted)
        for number in range(20):
            broker.lpush("default", f"not JSON {number}")
        assert channel.basic_get("default") is None
        wait_for(settled(redis, "default"))
        # A worker that renews a lease in this moment finds it gone, and would end.
        assert held == [False] * 20


def test_a_record_is_read_back_whatever_the_message_is() -> None:
    rng = random.Random(3)  # noqa: S311 - a seed, not a secret
    for _ in range(500):
        item = mutated(rng).decode("utf-8", "surrogateescape")
        assert record_of("tag", f'[{item},"","de\\"fault"]') == (item, 'de"fault')


@pytest.mark.parametrize("length", [1, 65535, 65536, 100_000])
def test_a_message_of_any_length_is_held_with_its_queue(length: int, redis: RedisServer) -> None:
    """A long one is recorded alone: also where it looks like a record itself, or is no text."""
    queue = 'any "@" queue'
    rng = random.Random(length)  # noqa: S311 - a seed, not a secret
    record = b'["x","","default"]'
    items = [rng.randbytes(length), record[:length].rjust(length, b"["), b"@" * length]
    with dead_letters.connect(redis.url(0)) as broker:
        fetch = broker.register_script(FETCH)
        broker.lpush("list", *items)
        got = fetch(keys=["list"], args=[60, 16, HELD, LEASES, "tag-", 0, queue])
        held = broker.hgetall(HELD)
        assert set(held) == set(got[1::3]) == set(broker.zrange(LEASES, 0, -1))
        for tag, item in zip(got[1::3], items, strict=True):
            assert record_of(tag, held[tag]) == (item.decode("utf-8", "surrogateescape"), queue)


@pytest.mark.parametrize("bad", ["no record", "grows", "no hash", "no sorted set"])
def test_what_others_held_and_nobody_can_read_is_told_once_and_holds_up_nothing(
    bad: str, app: Celery, redis: RedisServer, bounded: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Records of kombu's own form, of workers of older releases or of another program."""
    grown = json.dumps(protocol_2(more="HERE")).encode()
    grown = grown.replace(b'"HERE"', GROWING["letters with an accent"])
    records = {"no record": b"junk", "grows": b"[" + grown + b',"","default"]'}
    good = json.dumps([protocol_2(), "", "default"])
    if bad == "no hash":
        bounded.set("unacked", "x")
    else:
        bounded.hset("unacked", "t", records.get(bad, b"x"))
        bounded.hset("unacked", "u", good)
    if bad == "no sorted set":
        bounded.set("unacked_index", "x")
    else:
        bounded.zadd("unacked_index", {"t": 1.0, "u": 2.0})
    with app.connection_for_read() as connection:
        sweeper = LapsedLeases(app, connection.default_channel.leases, 0.0, 3)
        for _ in range(3):
            sweeper._foreign_at = -1e9  # a minute has passed
            sweeper.sweep()
    told = [one.getMessage() for one in caplog.records if "older workers" in one.getMessage()]
    assert len(told) == 1
    assert "unacked" in told[0]
    assert "docs/troubleshoot.md" in told[0]
    if bad in records:
        assert bounded.llen("default") == 1  # the other is delivered again
        assert bounded.hexists("unacked", "t")
    assert redis.answers()


# -- the dead letters


def test_every_letter_can_be_listed_shown_replayed_or_dropped(
    app: Celery, redis: RedisServer
) -> None:
    rng = random.Random(5)  # noqa: S311 - a seed, not a secret
    with raw(redis) as broker, dead_letters.connect(redis.url(0)) as tools:
        for _ in range(200):
            broker.hset(DEAD, rng.randbytes(6), mutated(rng))
            stored = {"queue": "default", "reason": "x", "deliveries": 1, "buried_at": 1}
            message_of_one = {**stored, "message": protocol_2()}
            broker.hset(DEAD, uuid.UUID(int=rng.getrandbits(128)).hex, json.dumps(message_of_one))
        for number in range(50):
            item = mutated(rng)
            put_aside(broker, f"t{number}", "default", item, Refused("a test"))
        letters = dead_letters.letters(tools)
        assert len(letters) == broker.hlen(DEAD)
        json.dumps([letter.as_dict() for letter in letters]).encode()
        for letter in letters:
            assert dead_letters.show(tools, letter.id).id == letter.id
            if letter.message is not None and letter.reason == "x":
                dead_letters.replay(tools, letter.id, app=app)
            else:
                dead_letters.drop(tools, letter.id)
        assert not broker.exists(DEAD, REFUSED)
        assert broker.llen("default") == 200


def test_letters_of_refused_messages_are_bounded_and_leave_the_others(redis: RedisServer) -> None:
    with redis.client(0) as broker:
        broker.hset(DEAD, "a task", "{}")
        for number in range(MOST_LETTERS + 20):
            put_aside(broker, "t", "default", str(number).encode(), Refused("a test"))
        assert broker.hlen(DEAD) == MOST_LETTERS + 1
        assert broker.hexists(DEAD, "a task")
        assert int(str(broker.hget(COUNTS, "refused"))) == MOST_LETTERS + 20
        oldest = str(broker.zrange(REFUSED, 0, 0)[0])
        broker.zadd(REFUSED, {oldest: 1.0})
        put_aside(broker, "t", "default", b"one more", Refused("a test"))
        assert not broker.hexists(DEAD, oldest)  # too old, and gone


def test_a_lapsed_message_takes_no_holders_tag_along(app: Celery, redis: RedisServer) -> None:
    """Workers of an older release hold a message under the tag that it says itself."""
    with app.connection_for_read() as connection, redis.client(0) as broker:
        sweeper = LapsedLeases(app, connection.default_channel.leases, 0.0, 3)
        broker.hset(HELD, "stalled", json.dumps([protocol_2(), "", "default"]))
        broker.zadd(LEASES, {"stalled": 1.0})
        sweeper.sweep()
        back = json.loads(str(broker.rpop("default")))
        assert back["properties"]["delivery_tag"] != "stalled"


@pytest.mark.parametrize(
    "options", [{"queue": "no-such-queue"}, {"serializer": "no-such"}, {"countdown": 1e308}]
)
def test_a_task_is_given_up_whoever_cannot_be_told(
    options: dict[str, object], app: Celery, redis: RedisServer
) -> None:
    """An errback that cannot be sent; all three are errors of a caller's program."""
    embed = {"errbacks": [{**sent("no.such.task"), "options": options}]}
    made = message([[], {}, embed], {**protocol_2()["headers"], "celray_lapses": 2})
    made["headers"]["ignore_result"] = True
    with app.connection_for_read() as connection, redis.client(0) as broker:
        sweeper = LapsedLeases(app, connection.default_channel.leases, 0.0, 3)
        broker.hset(HELD, "t", json.dumps([made, "", "default"]))
        broker.zadd(LEASES, {"t": 1.0})
        sweeper.sweep()
        wait_for(settled(redis, "default"))
        assert broker.hlen(DEAD) == 1


def test_the_keeper_never_waits_until_others_are_told(app: Celery, redis: RedisServer) -> None:
    """A keeper that stands still renews nothing, and another worker runs what this one runs."""
    told = Event()

    def answer(_: Refused) -> None:
        told.wait()

    refusals.answer_with(answer)
    with app.connection_for_read() as connection, redis.client(0) as broker:
        sweeper = LapsedLeases(app, connection.default_channel.leases, 0.0, 3)
        for number in range(200):
            made = _with(protocol_2(), **{"content-type": "application/x-yaml"})
            broker.hset(HELD, f"t{number}", json.dumps([made, "", "default"]))
            broker.zadd(LEASES, {f"t{number}": 1.0})
        keeper = Thread(target=sweeper.sweep, daemon=True)
        keeper.start()
        keeper.join(10)
        stood_still = keeper.is_alive()
        told.set()
        assert not stood_still

        def all_gone() -> bool:
            sweeper.sweep()
            return not broker.exists(HELD, LEASES)

        wait_for(all_gone)
        assert broker.hlen(DEAD) == 200
    refusals._answer.clear()


# -- what Redis would refuse of a worker, whose connection it closes then


@pytest.mark.parametrize("grows", GROWING)
def test_a_message_that_grows_keeps_no_other_from_coming_back(
    grows: str, app: Celery, bounded: Redis
) -> None:
    with app.connection_for_read() as connection:
        leases = connection.default_channel.leases
        sweeper = LapsedLeases(app, leases, 0.0, 3)
        text = json.dumps(protocol_2(more="HERE")).encode().replace(b'"HERE"', GROWING[grows])
        given_back = read(text, "back")
        for number, item in enumerate([text, json.dumps(protocol_2()).encode()]):
            bounded.hset(HELD, f"t{number}", b"[" + item + b',"","default"]')
            bounded.zadd(LEASES, {f"t{number}": 1.0 + number})
        for _ in range(3):
            sweeper.sweep()
        wait_for(lambda: bounded.zcard(LEASES) == 0)
        assert bounded.llen("default") == 1
        assert bounded.hlen(DEAD) == 1
        # A worker that stops gives the others back all the same.
        leases.hold("back", "default", given_back)
        leases.hold("other", "default", read(json.dumps(protocol_2()).encode(), "other"))
        bounded.hset(HELD, "other", b"x")
        leases.give_back_all(["back", "other"])
        assert bounded.llen("default") == 2


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("grows", GROWING)
@pytest.mark.parametrize("who", ["its process", "its whole worker"])
def test_a_message_that_grows_has_a_letter_when_its_task_is_given_up(
    who: str, grows: str, app: Celery, start_worker: StartWorker, redis: RedisServer
) -> None:
    headers = {"more": "HERE", "retries": 2, "celray_lapses": 2, "ignore_result": True}
    made = protocol_2("extra.poison", **headers)
    text = json.dumps(made).encode().replace(b'"HERE"', GROWING[grows])
    if who == "its process":
        start_worker(app="extra_tasks")
        with raw(redis) as broker:
            broker.lpush("default", text)
        wait_for(settled(redis, "default"))
    else:
        with app.connection_for_read() as connection, raw(redis) as broker:
            broker.hset(HELD, "t", b"[" + text + b',"","default"]')
            broker.zadd(LEASES, {"t": 1.0})
            LapsedLeases(app, connection.default_channel.leases, 0.0, 3).sweep()
            wait_for(settled(redis, "default"))
    with dead_letters.connect(redis.url(0)) as tools:
        (letter,) = wait_for(lambda: dead_letters.letters(tools))
    assert letter.id == letter.task_id == made["headers"]["id"]
    assert letter.task == "extra.poison"
    assert letter.deliveries >= 3
    assert "bytes when it is written again" in letter.reason
    assert len(letter.unreadable or "") == refusals.KEPT_BYTES


def _expired(chord: dict[str, Any]) -> bytes:
    """A part of a chord whose time is over, so that its worker's main process tells the chord."""
    made = protocol_2(
        expires="2020-01-01T00:00:00+00:00",
        group=str(uuid.uuid4()),
        compression="application/x-gzip",
    )
    body = json.dumps([[], {}, {"chord": {**sent(), **chord}}]).encode()
    return json.dumps(_with(made, body=base64.b64encode(zlib.compress(body)).decode())).encode()


#: What a chord's body may say, and Redis or its client does not take as it is.
BODIES: dict[str, dict[str, Any]] = {
    "longer than a message": {"args": ["x" * 17_000_000]},
    "longer than a message, elsewhere": {"immutable": "x" * 17_000_000},
    "a size that is true": {"chord_size": True},
}


@pytest.mark.parametrize("body", BODIES)
def test_no_chord_that_is_told_stops_a_worker(
    body: str, start_worker: StartWorker, client: Celery, bounded: Redis, redis: RedisServer
) -> None:
    worker = start_worker()
    bounded.lpush("default", _expired(BODIES[body]))
    wait_for(settled(redis, "default"))
    still_works(client, worker)
    assert "Connection to" not in worker.text.partition(" ready.")[2]
    assert "Traceback" not in worker.text


#: Errbacks of a task whose time is over: its worker's main process is to send them, and cannot.
ERRBACKS: dict[str, dict[str, Any]] = {
    "a kind that does not exist": {"subtask_type": "no-such"},
    "a queue that does not exist": {"options": {"queue": "no-such-queue"}},
    "a serialiser that does not exist": {"options": {"serializer": "no-such"}},
    "a time beyond clocks": {"options": {"countdown": 1e308}},
    "options of another kind": {"options": {"compression": 5, "headers": 5, "priority": "x"}},
    "a task of another kind": {"task": PING, "kwargs": {"task": 5}, "subtask_type": "group"},
}


@pytest.mark.parametrize("errback", ERRBACKS)
def test_no_errback_that_cannot_be_sent_stops_a_worker(
    errback: str, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    worker = start_worker()
    made = protocol_2(expires="2020-01-01T00:00:00+00:00")["headers"]
    with redis.client(0) as broker:
        embed = {"errbacks": [{**sent("no.such.task"), **ERRBACKS[errback]}]}
        broker.lpush("default", json.dumps(message([[], {}, embed], made)))
    wait_for(settled(redis, "default"))
    still_works(client, worker)
    assert "Connection to" not in worker.text.partition(" ready.")[2]


#: Options of a callback that kombu does not know; Celery took its KeyError for a lost connection.
UNKNOWN: dict[str, dict[str, Any]] = {
    "compression": {"compression": "no-such"},
    "compression of another kind": {"compression": {"a": 1}},
    "delivery mode": {"delivery_mode": "no-such"},
}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
@pytest.mark.parametrize("option", UNKNOWN)
def test_a_callback_that_can_never_be_sent_is_not_tried_again(
    option: str, grouped: bool, start_worker: StartWorker, client: Celery, redis: RedisServer
) -> None:
    """Each would keep a process for a minute: a dozen of them, the whole worker."""
    worker = start_worker()
    callback = sent()
    callback["options"] |= UNKNOWN[option]
    if grouped:
        callback = {**sent("celery.group"), "kwargs": {"tasks": [callback]}}
        callback["subtask_type"] = "group"
    made = protocol_2()["headers"]
    with redis.client(0) as broker:
        broker.lpush("default", json.dumps(message([[], {}, {"callbacks": [callback]}], made)))
    with pytest.raises(ValueError, match=r"not sent: its .* is .*(no-such|'a')"):
        client.AsyncResult(made["id"]).get(timeout=60)
    still_works(client, worker)
    assert "Retrying refused callback publish" not in worker.text


@pytest.mark.slow
def test_a_reason_that_quotes_the_message_fits_into_redis(
    start_worker: StartWorker, client: Celery, bounded: Redis, redis: RedisServer
) -> None:
    """An error's own text is as long as what it quotes: here a signature's kind."""
    worker = start_worker()
    made = protocol_2(expires="2020-01-01T00:00:00+00:00")
    embed = {"errbacks": [{**sent(), "subtask_type": "é" * 1_500_000}]}
    bounded.lpush("default", json.dumps(message([[], {}, embed], made["headers"])))
    wait_for(settled(redis, "default"))
    still_works(client, worker)
    for letter in dead_letters.letters(dead_letters.connect(redis.url(0))):
        assert len(letter.reason) <= MOST_REASON_CHARACTERS
    assert "waits to be put aside" not in worker.text


@pytest.mark.parametrize("kind", ["set", "sadd", "hset", "zadd"])
def test_tools_look_past_a_key_that_is_no_list(kind: str, redis: RedisServer) -> None:
    """Nobody consumes this queue, so nobody puts the key out of the way."""
    ours = Client(broker=redis.url(0), backend=redis.url(1))
    with redis.client(0) as broker:
        more: tuple[object, ...] = {"hset": ("a", 1), "zadd": (1, "a")}.get(kind, ("x",))
        broker.execute_command(kind, "ml", *more)
        made = protocol_2()
        broker.lpush("ml\x06\x163", json.dumps(made))
        assert ours.queues()["ml"]["waiting"] == 1
        assert queue_lengths(redis.url(0), ["ml"], 5) == {"ml": 1}
        assert ours.task(made["headers"]["id"]).cancel().cancelled
        assert not broker.exists("ml\x06\x163")


@pytest.mark.slow
def test_a_poison_task_is_kept_whatever_our_own_headers_say(
    start_worker: StartWorker, redis: RedisServer
) -> None:
    start_worker(app="extra_tasks")
    with redis.client(0) as broker:
        ours = dict.fromkeys(("celray_lapses", "celray_unbegun", "celray_passed_on"))
        broker.lpush("default", json.dumps(protocol_2("extra.poison", retries=2, **ours)))
        wait_for(settled(redis, "default"))
        assert wait_for(lambda: broker.hlen(DEAD)) == 1
