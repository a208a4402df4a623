"""Check a task's arguments by type, and refuse wrong ones in one line."""

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

#: An object of Celery or kombu, which have no type annotations.
Untyped: TypeAlias = Any

#: A task id is used in names of folders and Ray jobs.
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")

#: How many characters of a wrong value an error repeats.
_SHOWN = 80


class InvalidArgumentsError(Exception):
    """A mistake by the caller: never retried, shown without a traceback."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Shape:
    """The keys of a parameter, beside its annotation: ``Annotated[dict[str, Any], Shape]``.

    A caller's arguments are checked with it before they are sent; the task itself parses them
    again.

    Attributes:
        model: the keys of a ``dict`` with types and descriptions; None for other parameters.
        parse: raises :class:`InvalidArgumentsError` for a wrong value.
    """

    model: type[BaseModel] | None
    parse: Callable[[Any], object]


def require_task_id(task_id: str) -> None:
    """Refuse a task id that cannot be used for a run folder and a Ray job.

    Raises:
        InvalidArgumentsError: tells which ids are allowed.
    """
    # An id that ends like a retry of another task would be mistaken for it.
    if not _TASK_ID.fullmatch(task_id) or run_of(task_id) != task_id:
        message = (
            f"task id {_shown(task_id)} cannot be used: give up to 128 letters, digits and _ . : -,"
            " a letter or digit first, and not '-retry' and a number last"
        )
        raise InvalidArgumentsError(message)


def distinct(values: list[str]) -> list[str]:
    """Refuse a list that contains a value twice.

    Raises:
        ValueError: names the value.
    """
    for value, times in Counter(values).items():
        if times > 1:
            message = f"{value!r} is named {times} times; name it once"
            raise ValueError(message)
    return values


#: A list of names without duplicates.
Distinct = Annotated[list[str], AfterValidator(distinct)]


def _schema(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 - any annotation
    """Return a JSON schema; a type that nests objects gets only the schema of an object."""
    try:
        schema = TypeAdapter(annotation).json_schema()
    except PydanticUserError:  # a TypedDict in a TypedDict, before Python 3.12
        return {"type": "object"}
    return {"type": "object"} if "$defs" in schema else schema


@dataclass(frozen=True)
class Problem:
    """One mistake in the arguments: its place, its kind, and its text."""

    where: tuple[str | int, ...]
    kind: str
    text: str


def wrong(
    error: ValidationError, value: object, name: str, known: Sequence[str] = ()
) -> list[Problem]:
    """Return pydantic's errors about ``value`` in the caller's terms.

    For a union, pydantic reports an error for every alternative, under the name of its type. This
    function combines them into one problem at the value's place, unless one alternative matches
    except for a part of the value.

    Args:
        error: pydantic's exception.
        value: the checked value.
        name: the caller's name for it.
        known: the keys that it may have, to suggest the nearest one.
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
    """Return the keys and indices that lead to an error, and whether union tags were among them."""
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
    """The arguments that a function accepts, from its signature and annotations.

    Types are strict, as in JSON: ``"7"`` is not a number. A parameter named ``self`` (a bound task)
    is not checked; one without annotation accepts anything.
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
        """Return a JSON schema of the keys in the function's annotated result."""
        if not is_typeddict(self._returns):
            return {}
        keys = get_type_hints(self._returns, include_extras=True)
        return {"properties": {name: _schema(hint) for name, hint in keys.items()}}

    def validate(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[inspect.BoundArguments, list[Problem]]:
        """Bind arguments and convert them to their types.

        Raises:
            InvalidArgumentsError: an argument is missing, unknown or of the wrong type.
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
        """Raise :class:`InvalidArgumentsError` with every problem, if there is one."""
        if problems:
            raise InvalidArgumentsError(f"{self.name}: {'; '.join(p.text for p in problems)}")

    def check(self, kwargs: Mapping[str, Any]) -> None:
        """Check a caller's arguments before sending, including the keys of each :class:`Shape`.

        Raises:
            InvalidArgumentsError: names every mistake.
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
        """Return the places, also in keys of a :class:`Shape`, that expect text and got no text.

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
        InvalidArgumentsError: an argument is missing, unknown or wrong; the text names each of them
            and what the task accepts.
    """
    contract = Contract(function)

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound, problems = contract.validate(args, kwargs)
        contract.refuse(problems)
        return function(*bound.args, **bound.kwargs)

    checked.contract = contract  # type: ignore[attr-defined]
    return checked
