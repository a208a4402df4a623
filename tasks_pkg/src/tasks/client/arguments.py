"""``key=value`` words to keyword arguments: JSON values, nested keys, files."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.contracts import Contract, InvalidArgumentsError


def parse(words: Sequence[str], document: str | None, contract: Contract | None) -> dict[str, Any]:
    """Give the keyword arguments for a task.

    Args:
        words: ``key=value``; ``model_config.max_depth=4`` sets a key of a key. A value is JSON,
            or text where it is no JSON or the task wants text; ``@file`` reads it from a file.
        document: a JSON object with all or some of them, ``@file``, or ``-`` for standard input.
        contract: decides between a number and text that looks like one.

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
        if path in texts:
            message = f"{key} is given twice; a list is written {key}='[1, 2]'"
            raise InvalidArgumentsError(message)
        texts[path] = text
        _set(arguments, path, _value(text), key)
    if contract is not None:
        _as_text(arguments, texts, contract)
    return arguments


def _document(text: str) -> dict[str, Any]:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = _file(text[1:], "--json-args")
    try:
        value = json.loads(text)
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


def _value(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(text)
    except ValueError:
        return text


def _set(arguments: dict[str, Any], path: tuple[str, ...], value: object, key: str) -> None:
    inner = arguments
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
        if not isinstance(inner, dict):
            message = f"{key}: {step!r} already has the value {json.dumps(inner)[:80]}"
            raise InvalidArgumentsError(message)
    inner[path[-1]] = value


def _as_text(
    arguments: dict[str, Any], texts: dict[tuple[str, ...], str], contract: Contract
) -> None:
    """Put back as text what the task wants as text: ``channel=7`` is the channel "7"."""
    try:
        placeholder = {"self": None} if "self" in contract.signature.parameters else {}
        _, problems = contract.validate((), {**placeholder, **arguments})
    except InvalidArgumentsError:
        return  # the check before sending says it better
    for problem in problems:
        path = tuple(map(str, problem.where))
        if problem.kind == "string_type" and path in texts:
            _set(arguments, path, texts[path], ".".join(path))
