"""Limits on the size of a message, of a result and of the arguments stored with a result.

Redis answers anything larger than ``proto-max-bulk-len`` (compose/redis.conf.j2) by closing the
connection without a reason. The checks here raise a clear error before that happens.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kombu.utils.encoding import str_to_bytes
from kombu.utils.json import dumps

from tasks.broker.envelope import MOST_BYTES
from tasks.contracts import InvalidArgumentsError

#: The size of a message besides its arguments: headers, properties, options.
_ENVELOPE_BYTES: Final = 16 * 1024

#: Larger arguments, in bytes of JSON, are not stored with the task's result.
KEPT_ARGUMENTS_BYTES: Final = 64 * 1024

#: The fields that hold the task's arguments in a result, with ``result_extended``.
_ARGUMENTS: Final = ("args", "kwargs")


class MessageTooLargeError(Exception):
    """A task publishes a message that Redis would refuse."""


def in_message(text_bytes: int) -> int:
    """Return how many bytes that much JSON takes in a message, which holds it in base64."""
    return 4 * (text_bytes + 2) // 3 + _ENVELOPE_BYTES


def mib(number: int) -> str:
    """Return a number of bytes as text for people."""
    return f"{number / 2**20:.1f} MiB"


def require_sendable(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments whose message would be too large.

    Raises:
        InvalidArgumentsError: the message would be too large; the text says what to do.
    """
    size = in_message(len(str_to_bytes(dumps(arguments))))
    if size > MOST_BYTES:
        message = (
            f"{name}: with these arguments the message takes {mib(size)}, and at most "
            f"{mib(MOST_BYTES)} are accepted; put the data into a file under the datasets folder "
            "and send its path"
        )
        raise InvalidArgumentsError(message)


def require_publishable(message: Mapping[str, Any]) -> None:
    """Refuse a message of kombu's that is too large, before Redis closes the connection.

    Raises:
        MessageTooLargeError: the message is too large; the text says by how much.
    """
    size = len(message.get("body") or "") + _ENVELOPE_BYTES
    if size > MOST_BYTES:
        task = (message.get("headers") or {}).get("task", "a task")
        text = f"{task}: its message takes {mib(size)}, and at most {mib(MOST_BYTES)} are accepted"
        raise MessageTooLargeError(text)


def encoded(meta: dict[str, Any], encode: Callable[[dict[str, Any]], str]) -> str:
    """Encode a result, without its task's arguments if those are large.

    A refused call of 60 MB would otherwise stay in Redis for a day, of no use to anybody.
    """
    value = encode(meta)
    if len(value) > KEPT_ARGUMENTS_BYTES:
        large = {
            name: None
            for name in _ARGUMENTS
            if meta.get(name) and len(encode({name: meta[name]})) > KEPT_ARGUMENTS_BYTES
        }
        if large:
            value = encode({**meta, **large})
    return value
