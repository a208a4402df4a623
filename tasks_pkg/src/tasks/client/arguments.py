"""Parse ``key=value`` words into keyword arguments: JSON values, nested keys, files."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts import Contract, InvalidArgumentsError


def parse(words: Sequence[str], document: str | None, contract: Contract | None) -> dict[str, Any]:
    """Return the keyword arguments for a task; refuse an argument that is set twice.

    Args:
        words: ``key=value``; ``model_config.max_depth=4`` sets a nested key. A value is JSON, or
            text if it is not JSON or the task expects text; ``@file`` reads it from a file.
        document: a JSON object with some or all arguments, ``@file``, or ``-`` for standard input.
        contract: decides whether a value that looks like a number is text.

    Raises:
        InvalidArgumentsError: a word or a document is wrong.
    """
    arguments = _document(document) if document is not None else {}
    texts: dict[tuple[str, ...], str] = {}
    for word in words:
        key, sign, text = word.partition("=")
        path = tuple(key.split("."))
        if not sign or not all(path):
            message = f"{word!r} is not of the form key=value, such as model_config.max_depth=4"
            raise InvalidArgumentsError(message)
        if text.startswith("@"):
            text = _file(text[1:], key)
        _refuse_twice(path, texts)
        texts[path] = text
        _set(arguments, path, _value(text, key), key)
    if contract is not None:
        _as_text(arguments, texts, contract)
    return arguments


def _refuse_twice(path: tuple[str, ...], earlier: Iterable[tuple[str, ...]]) -> None:
    key = ".".join(path)
    for other in earlier:
        if other == path:
            message = f"{key} is given twice; a list is written {key}='[1, 2]'"
            raise InvalidArgumentsError(message)
        shared = min(len(path), len(other))
        if path[:shared] == other[:shared]:
            whole, part = sorted((".".join(other), key), key=len)
            message = f"{whole} is given whole and as {part}; give it in one way"
            raise InvalidArgumentsError(message)


def _document(text: str) -> dict[str, Any]:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = _file(text[1:], "--json-args")
    try:
        value = _json(text, "--json-args")
    except ValueError as error:
        message = f"--json-args: not JSON ({error})"
        raise InvalidArgumentsError(message) from None
    if not isinstance(value, dict):
        message = f"--json-args: a JSON object is needed, not {json.dumps(value)[:80]}"
        raise InvalidArgumentsError(message)
    return value


def _file(name: str, key: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not text"
        message = f"{key}: file {name}: {why}"
        raise InvalidArgumentsError(message) from None


def _value(text: str, key: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return _json(text, key)
    except ValueError:
        return text


def _json(text: str, origin: str) -> Any:  # noqa: ANN401 - JSON
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            times = Counter(key for key, _ in pairs)
            twice = next(key for key in times if times[key] > 1)
            message = f"{origin}: the key {twice!r} stands {times[twice]} times in one object"
            raise InvalidArgumentsError(message)
        return found

    return json.loads(text, object_pairs_hook=once)


def _set(arguments: dict[str, Any], path: tuple[str, ...], value: object, key: str) -> None:
    inner = arguments
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
        if not isinstance(inner, dict):
            message = f"{key}: {step!r} already has the value {json.dumps(inner)[:80]}"
            raise InvalidArgumentsError(message)
    if path[-1] in inner:
        message = f"{key} is given twice, also in --json-args; give it in one place"
        raise InvalidArgumentsError(message)
    inner[path[-1]] = value


def _as_text(
    arguments: dict[str, Any], texts: dict[tuple[str, ...], str], contract: Contract
) -> None:
    """Restore the text of values that the task expects as text: ``channel=7`` is "7"."""
    try:
        places = contract.wants_text(arguments)
    except InvalidArgumentsError:
        return  # the check before sending reports the error better
    for place in places:
        path = tuple(map(str, place))
        if path in texts:
            inner = arguments
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = texts[path]
