"""Malformed messages: messages of both protocols with random changes.

Every test of "no message stops a worker" uses this generator. It takes a message as a client of
either protocol writes it and changes any part of it, at any depth, to any kind of value.
"""

import base64
import bz2
import json
import random
import re
import uuid
import zlib
from copy import deepcopy
from typing import Any, Final

PING: Final = "tasks.simple_tasks.ping"
_MISSING: Final = object()


def _encoded(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def message(body: object, headers: dict[str, Any] | None, **properties: object) -> dict[str, Any]:
    """Return a message in kombu's form."""
    return {
        "body": _encoded(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "correlation_id": str(uuid.uuid4()),
            "reply_to": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "default"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            **properties,
        },
    }


def signature(task: str = PING) -> dict[str, Any]:
    """Return a signature in the form that messages have."""
    options = {"task_id": str(uuid.uuid4()), "queue": "default"}
    return {"task": task, "args": [], "kwargs": {}, "options": options, "subtask_type": None}


def protocol_2(task: str = PING, **more: object) -> dict[str, Any]:
    """Return a message of the second protocol."""
    task_id = str(uuid.uuid4())
    headers = {
        "lang": "py",
        "task": task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "gen1@host",
        "ignore_result": False,
        "stamped_headers": None,
        "stamps": {},
        **more,
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return message([[], {}, embed], headers, correlation_id=task_id)


def protocol_1(task: str = PING, **more: object) -> dict[str, Any]:
    """Return a message of the first protocol."""
    task_id = str(uuid.uuid4())
    body = {
        "task": task,
        "id": task_id,
        "args": [],
        "kwargs": {},
        "retries": 0,
        "eta": None,
        "expires": None,
        "utc": True,
        "callbacks": None,
        "errbacks": None,
        "chord": None,
        "timelimit": [None, None],
        "taskset": None,
        **more,
    }
    return message(body, {}, correlation_id=task_id)


#: Placeholders for nested lists of so many levels: json.dumps cannot write the deepest.
_DEEP: Final = ("<150 deep>", "<500 deep>", "<10000 deep>")


def _odd(rng: random.Random) -> object:
    """Return a value of any kind."""
    return rng.choice(
        [
            *(None, True, False, 0, -1, 3, 2**31, 2**70, 1e308, -0.5, float("nan"), float("inf")),
            *("", "x", "0", "null", "ä" * 10, "\ud800", "\x00", "default", PING, "2" * 30),
            *("2026-01-01T00:00:00", "9999-12-31T23:59:59+14:00", "0001-01-01T00:00:00-14:00"),
            *("x" * 2000, [], [[]], [None], {}, {"task": PING}, {"task": None}, {"": None}),
            *([1, 2, 3], ["task"], {"args": 1}, [[], {}], [[], {}, {}, {}], {"__type__": "date"}),
            {"__type__": "datetime", "__value__": "junk"},
            {"__type__": "decimal", "__value__": "1e999999"},
            {"__type__": "uuid", "__value__": 3},
            *(signature(), [signature()], [signature("no.such.task")], *_DEEP),
        ]
    )


def _paths(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    if len(path) > 8:
        return found
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found += [(*path, key), *_paths(inner, (*path, key))]
    return found


def _change(rng: random.Random, whole: Any) -> None:  # noqa: ANN401 - any JSON
    """Replace or remove one part of ``whole``, at any depth."""
    paths = _paths(whole)
    if not paths:
        return
    *way, last = rng.choice(paths)
    inner = whole
    for key in way:
        inner = inner[key]
    value = rng.choice([_MISSING, _odd(rng), _odd(rng), _odd(rng)])
    if value is _MISSING:
        del inner[last]
    else:
        inner[last] = value


def _dumped(value: object) -> bytes:
    """Return JSON of any depth."""
    return re.sub('"<([0-9]+) deep>"', _brackets, json.dumps(value)).encode()


def _brackets(found: re.Match[str]) -> str:
    levels = int(found[1])
    return "[" * levels + "]" * levels


_JUNK: Final = (b"", b"null", b"[]", b"{}", b'"x"', b"1", b"{", b"[" * 10_000)
_COMPRESSIONS: Final = ("application/x-gzip", "application/x-bz2", "gzip", "", 3)
_KINDS: Final = ("application/x-python-serialize", "application/x-yaml", "text/plain", None, 1, "")
_CHARSETS: Final = (None, "binary", "utf-16", "no-such", 5, "")


def mutated(rng: random.Random) -> bytes:
    """Return one malformed message, as the bytes in a queue."""
    what = rng.choice(["junk", *(["body"] * 4), *(["all"] * 4), "bytes"])
    if what == "junk":
        return rng.choice([*_JUNK, rng.randbytes(10), rng.randbytes(1000)])
    task = rng.choice([*([PING] * 5), "no.such.task"])
    made = deepcopy(rng.choice([protocol_1, protocol_2])(task))
    if rng.random() < 0.1:  # headers of the second protocol, a body of the first
        made["headers"] = protocol_2(task)["headers"]
    body: Any = json.loads(base64.b64decode(made["body"]))
    if what != "bytes":
        for _ in range(rng.choice([1, 1, 2, 4])):
            _change(rng, body if what == "body" else made)
    if rng.random() < 0.05:
        body = _odd(rng)
    _pack(rng, made, _dumped(body))
    raw = _dumped(made)
    if what == "bytes":
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.randbytes(rng.choice([0, 1, 4])) + raw[at + rng.choice([0, 1, 9]) :]
    return raw


def _pack(rng: random.Random, made: dict[str, Any], data: bytes) -> None:
    """Put a body into a message, sometimes wrongly encoded."""
    headers = made.get("headers")
    if isinstance(headers, dict) and rng.random() < 0.2:
        headers["compression"] = name = rng.choice(_COMPRESSIONS)
        if name == "application/x-gzip" and rng.random() < 0.7:
            data = zlib.compress(data)
        elif name == "application/x-bz2" and rng.random() < 0.7:
            data = bz2.compress(data)
    if isinstance(made.get("body"), str):
        text = base64.b64encode(data).decode()
        made["body"] = rng.choice([text, text, text, text, text[:-1], "%%%" + text, ""])
    if rng.random() < 0.1:
        made["content-type"] = rng.choice(_KINDS)
    if rng.random() < 0.05:
        made["content-encoding"] = rng.choice(_CHARSETS)
