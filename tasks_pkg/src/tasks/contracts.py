"""What every task does with its arguments: checked by type, refused in one line."""

import difflib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar, get_type_hints, is_typeddict

from pydantic import AfterValidator, BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tasks.ray_jobs.protocol import run_of

P = ParamSpec("P")
R = TypeVar("R")

#: An object of Celery or kombu, which ship no types.
Untyped: TypeAlias = Any

#: An id names folders and Ray jobs.
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")

#: How much of a wrong value an error repeats.
_SHOWN = 80


class InvalidArgumentsError(Exception):
    """The caller's mistake: never retried, shown without a traceback."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Shape:
    """What a parameter holds, beside its annotation: ``Annotated[dict[str, Any], Shape]``.

    For callers, who learn a mistake before they send; the task itself parses again.

    Attributes:
        model: the keys of a ``dict``, their types and descriptions; None of anything else.
        parse: raises :class:`InvalidArgumentsError` for a wrong value.
    """

    model: type[BaseModel] | None
    parse: Callable[[Any], object]


def require_task_id(task_id: str) -> None:
    """Refuse a task id that cannot name a run folder and a Ray job.

    Raises:
        InvalidArgumentsError: says what an id is made of.
    """
    # What looks like another attempt of a task would be taken for one.
    if not _TASK_ID.fullmatch(task_id) or run_of(task_id) != task_id:
        message = (
            f"task id {_shown(task_id)} cannot be used: give up to 128 letters, digits and _ . : -,"
            " a letter or digit first, and not '-retry' and a number last"
        )
        raise InvalidArgumentsError(message)


def distinct(values: list[str]) -> list[str]:
    """Refuse a list that names something twice.

    Raises:
        ValueError: says what.
    """
    for value, times in Counter(values).items():
        if times > 1:
            message = f"{value!r} is named {times} times; name it once"
            raise ValueError(message)
    return values


#: Names, none of them twice.
Distinct = Annotated[list[str], AfterValidator(distinct)]


def _schema(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - any annotation
    """Return a JSON schema; of what holds further objects, only that it is one."""
    try:
        schema = TypeAdapter(annotation).json_schema()
    except PydanticUserError:  # a TypedDict in a TypedDict, before Python 3.12
        return {"type": "object"}
    return {"type": "object"} if "$defs" in schema else schema


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the arguments: where, of which kind, in words."""

    where: tuple[str | int, ...]
    kind: str
    text: str


def wrong(
    error: ValidationError, value: object, name: str, known: Sequence[str] = ()
) -> list[Problem]:
    """Return what pydantic found wrong with ``value``, in a caller's words.

    Of a union, pydantic reports every alternative under the name of its type. Here they are one
    problem at the value's own place, unless one alternative fits so far that only a part is wrong.

    Args:
        error: what pydantic raised.
        value: what it was given.
        name: what the caller calls it.
        known: the keys that it may have, for the nearest to a wrong one.
    """
    found: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    united = set()
    for each in error.errors(include_url=False):
        path, tagged = _place(each, value)
        found.setdefault(path, []).append(each)
        if tagged:
            united.add(path)
    deepest = {
        path: each
        for path, each in found.items()
        if path not in united
        or not any(len(other) > len(path) and other[: len(path)] == path for other in found)
    }
    return [
        Problem((name, *path), each[0]["type"], _in_words(path, each, name, known))
        for path, each in deepest.items()
    ]


def _place(error: ErrorDetails, value: Any) -> tuple[tuple[str | int, ...], bool]:  # noqa: ANN401
    """The keys and indices on the way to what is wrong; whether a union's tags were among them."""
    path: list[str | int] = []
    tagged = False
    for number, part in enumerate(error["loc"], 1):
        keys = range(len(value)) if isinstance(value, list | tuple) else value
        if isinstance(keys, Mapping | range) and part in keys:
            value = value[part]
        elif error["type"] != "missing" or number < len(error["loc"]):
            tagged = True
            continue
        path.append(part)
    return tuple(path), tagged


def _in_words(
    path: tuple[str | int, ...], errors: list[ErrorDetails], name: str, known: Sequence[str]
) -> str:
    first = errors[0]
    if first["type"] == "extra_forbidden" and known:
        key = ".".join(map(str, path))
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it accepts: {', '.join(known)}"
        return f"{name}: unknown key {key!r}; {hint}"
    start = "Input should be "
    texts = list(dict.fromkeys(e["msg"].removeprefix("Value error, ") for e in errors))
    if all(text.startswith(start) for text in texts):
        texts = [start + " or ".join(text.removeprefix(start) for text in texts)]
    where = ".".join(map(str, (name, *path)))
    return f"{where}: {'; '.join(texts)}, got {_shown(first['input'])}"


class Contract:
    """The arguments that a function accepts, by its signature and annotations.

    Types are strict, as JSON carries them: ``"7"`` is not a number. A parameter named ``self``
    (a bound task) is left alone; one without annotation accepts anything.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
        self.annotations = {
            name: hints.get(name, Any) for name in self.signature.parameters if name != "self"
        }
        self._returns = hints.get("return")
        self._adapters = {
            name: TypeAdapter(annotation) for name, annotation in self.annotations.items()
        }

    def schema(self, parameter: str) -> dict[str, Any]:
        """Return a parameter's JSON schema, with the keys of its :class:`Shape`."""
        shape = self._shape(parameter)
        known = shape.model if shape else None
        adapter = TypeAdapter(known) if known else self._adapters[parameter]
        return adapter.json_schema()

    def result_schema(self) -> dict[str, Any]:
        """Return a JSON schema of the keys that the function is annotated to return."""
        if not is_typeddict(self._returns):
            return {}
        keys = get_type_hints(self._returns, include_extras=True)
        return {"properties": {name: _schema(hint) for name, hint in keys.items()}}

    def validate(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[inspect.BoundArguments, list[Problem]]:
        """Bind arguments and convert them to their types.

        Raises:
            InvalidArgumentsError: one is missing or unknown.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            accepted = ", ".join(self.annotations) or "nothing"
            message = f"{self.name}: {error}; it accepts: {accepted}"
            raise InvalidArgumentsError(message) from None
        problems: list[Problem] = []
        for parameter, value in bound.arguments.items():
            if parameter not in self._adapters:
                continue
            try:
                adapter = self._adapters[parameter]
                bound.arguments[parameter] = adapter.validate_python(value, strict=True)
            except ValidationError as error:
                problems += wrong(error, value, parameter)
        return bound, problems

    def refuse(self, problems: Sequence[Problem]) -> None:
        """Raise :class:`InvalidArgumentsError` that names every problem, if there is one."""
        if problems:
            raise InvalidArgumentsError(f"{self.name}: {'; '.join(p.text for p in problems)}")

    def check(self, kwargs: Mapping[str, Any]) -> None:
        """Check what a caller is about to send, into the keys of each :class:`Shape`.

        Raises:
            InvalidArgumentsError: names everything that is wrong.
        """
        callers = self.signature.replace(
            parameters=[p for n, p in self.signature.parameters.items() if n != "self"]
        )
        try:
            callers.bind(**kwargs)
        except TypeError as error:
            accepted = ", ".join(self.annotations) or "nothing"
            message = f"{self.name}: {error}; it accepts: {accepted}"
            raise InvalidArgumentsError(message) from None
        placeholder = {"self": None} if "self" in self.signature.parameters else {}
        _, problems = self.validate((), {**placeholder, **kwargs})
        self.refuse(problems)
        for parameter, value in kwargs.items():
            shape = self._shape(parameter)
            if shape is not None and value is not None:
                shape.parse(value)

    def wants_text(self, kwargs: Mapping[str, Any]) -> list[tuple[str | int, ...]]:
        """Give the places, also in the keys of a :class:`Shape`, where something else than text is.

        Raises:
            InvalidArgumentsError: an argument is missing or unknown.
        """
        placeholder = {"self": None} if "self" in self.signature.parameters else {}
        _, problems = self.validate((), {**placeholder, **kwargs})
        for parameter, value in kwargs.items():
            shape = self._shape(parameter)
            if shape is None or shape.model is None or not isinstance(value, dict):
                continue
            try:
                shape.model.model_validate(value)
            except ValidationError as error:
                problems += wrong(error, value, parameter)
        return [problem.where for problem in problems if problem.kind == "string_type"]

    def _shape(self, parameter: str) -> Shape | None:
        marks = getattr(self.annotations.get(parameter), "__metadata__", ())
        return next((mark for mark in marks if isinstance(mark, Shape)), None)


def validated(function: Callable[P, R]) -> Callable[P, R]:
    """Check a task's arguments against its annotations before its body runs.

    The :class:`Contract` is the result's attribute ``contract``.

    Raises:
        InvalidArgumentsError: when called with a missing, unknown or wrong argument; its text
            names each of them and what the task accepts.
    """
    contract = Contract(function)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound, problems = contract.validate(args, kwargs)
        contract.refuse(problems)
        return function(*bound.args, **bound.kwargs)

    checked.contract = contract  # type: ignore[attr-defined]
    return checked
