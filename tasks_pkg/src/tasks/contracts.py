"""What every task does with its arguments: checked by type, refused in one line."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeAlias, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

P = ParamSpec("P")
R = TypeVar("R")

#: An object of Celery or kombu, which ship no types.
Untyped: TypeAlias = Any

#: How much of a wrong value an error repeats.
_SHOWN = 80


class InvalidArgumentsError(Exception):
    """The caller's mistake: never retried, shown without a traceback."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def validated(function: Callable[P, R]) -> Callable[P, R]:
    """Check a task's arguments against its annotations before its body runs.

    Types are strict, as JSON carries them: ``"7"`` is not a number. A parameter named ``self``
    (a bound task) is left alone.

    Raises:
        InvalidArgumentsError: when called with a missing, unknown or wrong argument; its text
            names each of them and what the task accepts.
    """
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    accepted = [name for name in signature.parameters if name != "self"]
    adapters = {name: TypeAdapter(hints[name]) for name in accepted}

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        name = function.__name__
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            message = f"{name}: {error}; it accepts: {', '.join(accepted) or 'nothing'}"
            raise InvalidArgumentsError(message) from None
        problems: list[str] = []
        for parameter, value in bound.arguments.items():
            if parameter not in adapters:
                continue
            try:
                bound.arguments[parameter] = adapters[parameter].validate_python(value, strict=True)
            except ValidationError as error:
                problems += [
                    f"{'.'.join([parameter, *map(str, e['loc'])])}: {e['msg']}, "
                    f"got {_shown(e['input'])}"
                    for e in error.errors(include_url=False)
                ]
        if problems:
            raise InvalidArgumentsError(f"{name}: {'; '.join(problems)}")
        return function(*bound.args, **bound.kwargs)

    return checked
