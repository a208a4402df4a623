"""The Redis list that holds a message: kombu keeps one list per queue and priority step."""

from bisect import bisect
from collections.abc import Iterable
from typing import Any, Final

STEPS: Final = (0, 3, 6, 9)
SEPARATOR: Final = "\x06\x16"
#: The suffix of each list's key after the queue's name, one per priority step.
PRIORITY_SUFFIXES: Final = ("", *(f"{SEPARATOR}{step}" for step in STEPS[1:]))
_HIGHEST = 9


def priority_of(message: dict[str, Any]) -> int:
    """Return a message's priority, 0 (highest) to 9, as kombu reads it."""
    try:
        priority = int(message["properties"]["priority"])
    except (TypeError, ValueError, KeyError):
        return 0
    return max(min(priority, _HIGHEST), 0)


def list_of(queue: str, message: dict[str, Any]) -> str:
    """Return the key of the list that ``message`` belongs in."""
    step = STEPS[bisect(STEPS, priority_of(message)) - 1]
    return f"{queue}{SEPARATOR}{step}" if step else queue


def list_lengths(answers: Iterable[object]) -> list[int]:
    """Return the lengths of lists; 0 for a key of another type, which holds no message.

    Raises:
        redis.exceptions.RedisError: an answer is another error.
    """
    found: list[int] = []
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
        found.append(answer if isinstance(answer, int) else 0)
    return found
