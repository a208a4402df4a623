"""The envelope of a message in a queue, checked before kombu reads it.

Every client can write to a queue, so its bytes may be anything. :func:`read` returns a kombu
message in the form that the rest of the worker expects, and raises :class:`Refused` for everything
else. So no code behind it has to survive broken input. :mod:`tasks.broker.task_message` checks what
a message says about its task.
"""

import bz2
import lzma
import zlib
from base64 import b64decode
from collections.abc import Callable
from typing import Any, Final, Protocol

from kombu.utils.json import dumps, loads

#: The longest message, in bytes. Redis refuses more than 16 MiB (``proto-max-bulk-len``), also from
#: workers, and a redelivered message has grown by a header or two.
MOST_BYTES: Final = 16 * 1024 * 1024 - 64 * 1024
#: The longest decompressed body, in bytes: a few compressed bytes may expand to gigabytes.
MOST_BODY_BYTES: Final = 4 * MOST_BYTES

#: The longest reason, in characters.
MOST_REASON_CHARACTERS: Final = 1_000

#: The most levels of nested lists and objects.
MOST_NESTING_LEVELS: Final = 200

#: The only content type: pickle and YAML allow a message to execute code.
CONTENT_TYPE: Final = "application/json"
#: What clients call the other serialisers.
_SERIALISERS: Final = {
    "application/x-python-serialize": "pickle",
    "application/x-yaml": "yaml",
    "application/x-msgpack": "msgpack",
    "application/data": "none",
}
#: Properties that are text, or left out.
_TEXTS: Final = ("correlation_id", "reply_to")


class Refused(Exception):  # noqa: N818 - a verdict on a message, not an error of this program
    """A message that cannot be decoded; the text says why.

    Args:
        reason: what is wrong, for the sender.
        task_id: the task's id, where one can be read.
        context: what else is known of the task, as message headers.
    """

    def __init__(
        self, reason: str, task_id: str | None = None, context: dict[str, Any] | None = None
    ) -> None:
        # An error's own text may quote all of the message, and the letter must fit into Redis.
        self.reason = reason[:MOST_REASON_CHARACTERS]
        super().__init__(self.reason)
        self.task_id = task_id
        self.context = context or {}


#: The longest name of a task, group or queue, in characters.
MOST_NAME_CHARACTERS: Final = 1024
#: What :func:`is_name` takes, for messages to the sender.
NAME_IN_WORDS: Final = f"text of 1 to {MOST_NAME_CHARACTERS} characters"


def is_name(value: object) -> bool:
    """Return whether ``value`` can be a name in Redis: a text, not empty, that can be encoded."""
    if not isinstance(value, str) or not 0 < len(value) <= MOST_NAME_CHARACTERS:
        return False
    return _encodable(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def read(item: bytes, tag: str) -> dict[str, Any]:
    """Return a message in kombu's form; its body is still to be decoded (:func:`payload_of`).

    Args:
        item: what stood in the queue.
        tag: the delivery tag under which this process holds it.

    Raises:
        Refused: kombu could not take it for a message.
    """
    if len(item) > MOST_BYTES:
        reason = f"{len(item)} bytes are more than a message may have ({MOST_BYTES})"
        raise Refused(reason)
    try:
        message = loads(item)
    except Exception as error:  # noqa: BLE001 - kombu's decoders raise what they like
        raise Refused(_not_json("it", error)) from None
    if not isinstance(message, dict):
        reason = f"it is {_kind(message)}, not an object with properties and a body"
        raise Refused(reason)
    properties, headers = message.get("properties"), message.get("headers")
    if not isinstance(properties, dict):
        reason = f"its properties are {_kind(properties)}, not an object"
        raise Refused(reason)
    if headers is None:  # some clients send none, or null
        headers = {}
    if not isinstance(headers, dict):
        reason = f"its headers are {_kind(headers)}, not an object"
        raise Refused(reason, _text(properties.get("correlation_id")))
    message["headers"] = headers
    _tidy(properties, tag)
    try:
        require_shallow(item, message)
        _body_of(message)
    except Refused as refused:
        # The first protocol has its id in the body; Celery repeats it here.
        refused.task_id = _text(headers.get("id")) or _text(properties.get("correlation_id"))
        refused.context = headers
        raise
    return message


def payload_of(message: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return the decoded body of a message that :func:`read` has returned.

    Raises:
        Refused: it is not JSON.
    """
    body = _body_of(message)
    try:
        found = loads(body)
    except Exception as error:  # noqa: BLE001 - kombu's decoders raise what they like
        raise Refused(_not_json("its body", error)) from None
    require_shallow(body, found)
    return found


def _not_json(what: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{what} is nested too deep"
    return f"{what} is not JSON in UTF-8: {str(error)[:200]}"


def require_shallow(data: bytes, found: object) -> None:
    """Refuse what was read from ``data`` when it is nested too deep to be written again.

    How deep Python may go depends on where it starts, so a bound of our own holds everywhere.

    Raises:
        Refused: it is.
    """
    if data.count(b"[") + data.count(b"{") <= MOST_NESTING_LEVELS:
        return
    level: list[object] = [found]
    for _ in range(MOST_NESTING_LEVELS):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    reason = f"it is nested deeper than {MOST_NESTING_LEVELS} levels"
    raise Refused(reason)


def _tidy(properties: dict[str, Any], tag: str) -> None:
    """Set right what decides nothing about the task."""
    properties["delivery_tag"] = tag
    info = properties.get("delivery_info")
    info = info if isinstance(info, dict) else {}
    properties["delivery_info"] = {
        "exchange": _text(info.get("exchange")) or "",
        "routing_key": _text(info.get("routing_key")) or "",
        **({"redelivered": True} if info.get("redelivered") is True else {}),
    }
    if not isinstance(properties.get("priority"), int):
        properties.pop("priority", None)
    for name in _TEXTS:
        if _text(properties.get(name)) is None:
            properties.pop(name, None)


def _body_of(message: dict[str, Any]) -> bytes:
    """Return a message's body as bytes of JSON.

    Raises:
        Refused: it is something else.
    """
    kind, body, charset = (message.get(k) for k in ("content-type", "body", "content-encoding"))
    if kind != CONTENT_TYPE:
        name = _SERIALISERS.get(kind, repr(kind)[:100]) if isinstance(kind, str) else _kind(kind)
        reason = f"its body is serialised by {name}, and this service takes JSON alone"
        raise Refused(reason)
    if charset is not None and not isinstance(charset, str):
        reason = f"its content-encoding is {_kind(charset)}, not a name"
        raise Refused(reason)
    if not isinstance(body, str) or not body or not _encodable(body):
        reason = "its body is empty" if body == "" else f"its body is {_kind(body)}, not plain text"
        raise Refused(reason)
    encoding = message["properties"].get("body_encoding")
    data = body.encode()
    if encoding == "base64":
        try:
            data = b64decode(data)  # as kombu does: what is not of the alphabet is passed over
        except ValueError as error:
            reason = f"its body is not base64: {error}"
            raise Refused(reason) from None
    elif encoding:
        reason = f"its body_encoding is {repr(encoding)[:100]}, not base64"
        raise Refused(reason)
    return _decompressed(data, message["headers"].get("compression"))


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_DECOMPRESSORS: Final[dict[str, Callable[[], _Decompressor]]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lzma.LZMADecompressor,
}


def _decompressed(data: bytes, compression: object) -> bytes:
    """Return a body that is no longer than it may be.

    Raises:
        Refused: it is longer, or not compressed as it says.
    """
    if not compression:
        return data
    make = _DECOMPRESSORS.get(compression) if isinstance(compression, str) else None
    if make is None:
        known = ", ".join(_DECOMPRESSORS)
        reason = f"its compression is {repr(compression)[:100]}; this service takes {known}"
        raise Refused(reason)
    try:
        found = make().decompress(data, MOST_BODY_BYTES + 1)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        reason = f"its body is not {compression}: {error}"
        raise Refused(reason) from None
    if len(found) > MOST_BODY_BYTES:
        reason = f"its body has more than {MOST_BODY_BYTES} bytes when it is decompressed"
        raise Refused(reason)
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and is_name(value) else None


def _kind(value: object) -> str:
    """Return what a JSON value is, in one word or two."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "of another type")


def written(message: dict[str, Any]) -> str:
    """Write a message that goes back to its queue.

    Raises:
        Refused: it is longer now than it was. JSON has shorter forms than the one that is written
            here, for letters with an accent and for numbers, and Redis closes the connection of
            whoever sends it too much.
    """
    text: str = dumps(message)
    if len(text) > MOST_BYTES:
        reason = f"it takes {len(text)} bytes when it is written again, at most {MOST_BYTES} may be"
        raise Refused(reason)
    return text


# -- what is held is recorded in kombu's own form, ``[message, "", queue]``, or, where the message
# -- is long, as the message alone, under a tag that ends with ``@`` and the queue


def record_of(tag: str, stored: str) -> tuple[str, str]:
    """Return message and queue of a record of ``celray:held``, whatever the message is.

    Not by reading JSON: the message in it may be none. It ends at the last place that looks like
    the end of a message in a record, for a queue's name in JSON holds no quotation mark.

    Args:
        tag: the delivery tag that it stands under; "" for one that another worker made.
        stored: the record; bytes that are not UTF-8 stand in it as surrogates.

    Raises:
        ValueError: it is no record.
    """
    queue = tag.partition("@")[2]
    if queue:
        return stored, queue
    end = stored.rfind(',"",')
    try:
        if not stored.startswith("[") or not stored.endswith("]") or end < 0:
            # Written by another program, with white space in it.
            message, _, queue = loads(stored)
            return dumps(message), str(queue)
        return stored[1:end], str(loads(stored[end + 4 : -1]))
    except Exception as error:  # noqa: BLE001 - kombu's decoders raise what they like
        reason = f"no record of a message: {str(error)[:200]}"
        raise ValueError(reason) from None
