"""Messages that nobody would send: well-formed ones of both protocols, with something wrong.

One generator for every test of "no message stops a worker": it takes a message as a client of
either protocol writes it and changes any part of it, at any depth, to any kind of value.
"""

import base64
import bz2
import json
import random
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
    """Return a signature as it stands in a message."""
    options = {"task_id": str(uuid.uuid4()), "queue": "default"}
    return {"task": task, "args": [], "kwargs": {}, "options": options, "subtask_type": None}


def protocol_2(task: str = PING, **more: object) -> dict[str, Any]:
    """Return a message of the second protocol."""
    task_id = str(uuid.uuid4())
    headers = {
        **{"lang": "py", "task": task, "id": task_id, "shadow": None, "eta": None},
        **{"expires": None, "group": None, "group_index": None, "retries": 0},
        **{"timelimit": [None, None], "root_id": task_id, "parent_id": None},
        **{"argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False},
        **{"stamped_headers": None, "stamps": {}, **more},
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return message([[], {}, embed], headers, correlation_id=task_id)


def protocol_1(task: str = PING, **more: object) -> dict[str, Any]:
    """Return a message of the first protocol."""
    task_id = str(uuid.uuid4())
    body = {
        **{"task": task, "id": task_id, "args": [], "kwargs": {}, "retries": 0, "eta": None},
        **{"expires": None, "utc": True, "callbacks": None, "errbacks": None, "chord": None},
        **{"timelimit": [None, None], "taskset": None, **more},
    }
    return message(body, {}, correlation_id=task_id)


def _odd(rng: random.Random) -> object:
    """Return a value of any kind."""
    deep: object = []
    for _ in range(rng.choice([150, 500, 10_000])):
        deep = [deep]
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
            *(signature(), [signature()], [signature("no.such.task")], deep),
        ]
    )


def _paths(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    if len(path) > 8:  # noqa: PLR2004 - levels
        return found
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found += [(*path, key), *_paths(inner, (*path, key))]
    return found


def _change(rng: random.Random, whole: Any) -> None:  # noqa: ANN401 - any JSON
    """Replace one part of ``whole``, at any depth, or take it away."""
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
    """Write JSON however deep it is, which Python's own writer does not."""
    try:
        return json.dumps(value).encode()
    except RecursionError:
        text = json.dumps(_shallow(value))
        return text.replace('"<deep>"', "[" * 10_000 + "]" * 10_000).encode()


def _shallow(value: object) -> object:
    depth, inner = 0, value
    while isinstance(inner, list) and len(inner) == 1 and depth <= 100:  # noqa: PLR2004
        depth, inner = depth + 1, inner[0]
    if depth > 100:  # noqa: PLR2004
        return "<deep>"
    if isinstance(value, dict):
        return {key: _shallow(one) for key, one in value.items()}
    return [_shallow(one) for one in value] if isinstance(value, list) else value


def mutated(rng: random.Random) -> bytes:
    """Return one message with something wrong, as the bytes that stand in a queue."""
    made = rng.choice([protocol_1, protocol_2])()
    made = deepcopy(made)
    how = rng.randrange(10)
    if how == 0:  # what is no message at all
        length = rng.choice([0, 1, 10, 1000])
        junk = [b"", b"null", b"[]", b"{}", b'"x"', b"1", b"{", rng.randbytes(length), b"[" * 10_000]
        return rng.choice(junk)
    body: Any = json.loads(base64.b64decode(made["body"]))
    if how <= 4:  # noqa: PLR2004 - the body
        for _ in range(rng.choice([1, 1, 2])):
            _change(rng, body)
        if rng.random() < 0.1:  # noqa: PLR2004
            body = _odd(rng)
    elif how <= 8:  # noqa: PLR2004 - everything else
        for _ in range(rng.choice([1, 1, 2, 5])):
            _change(rng, made)
    data = _dumped(body)
    headers = made.get("headers")
    if rng.random() < 0.2 and isinstance(headers, dict):  # noqa: PLR2004
        names = ["application/x-gzip", "application/x-bz2", "gzip", "", 3, "application/x-lzma"]
        headers["compression"] = name = rng.choice(names)
        if rng.random() < 0.7:  # noqa: PLR2004
            packed = {"application/x-gzip": zlib.compress, "application/x-bz2": bz2.compress}
            data = packed.get(str(name), bytes)(data)
    if "body" in made and isinstance(made["body"], str):
        text = base64.b64encode(data).decode()
        made["body"] = rng.choice([text, text, text, text, text[:-1], "%%%" + text, ""])
    if rng.random() < 0.1:  # noqa: PLR2004
        kinds = ["application/x-python-serialize", "application/x-yaml", "text/plain", None, 1, ""]
        made["content-type"] = rng.choice(kinds)
    if rng.random() < 0.05:  # noqa: PLR2004
        made["content-encoding"] = rng.choice([None, "binary", "utf-16", "no-such", 5, ""])
    raw = _dumped(made)
    if how == 9:  # noqa: PLR2004 - the bytes themselves
        at = rng.randrange(len(raw))
        raw = raw[:at] + rng.randbytes(rng.choice([0, 1, 4])) + raw[at + rng.choice([0, 1, 9]) :]
    return raw
