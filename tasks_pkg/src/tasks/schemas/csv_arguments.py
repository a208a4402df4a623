"""Gives a task whose arguments stand by themselves those of how CSV is written."""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field

from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.schemas.data import CsvWritten, checked

R = TypeVar("R")

#: What a docstring says of all of them together.
_CSV = re.compile(r"\n {8}csv: .*(?:\n {12}.*)*")


def csv_arguments(*without: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a task the arguments of :class:`tasks.schemas.data.CsvWritten` by keyword.

    The task takes them together: its own ``**csv`` is a ``CsvWritten``'s keys. Those that it names
    itself keep their place.

    Args:
        without: arguments that have no meaning to it.
    """

    def give(function: Callable[..., R]) -> Callable[..., R]:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = {}
        for name, field in CsvWritten.model_fields.items():
            called = field.alias or name
            if called in own.parameters or called in without:
                continue
            marks = (*field.metadata, Field(description=field.description))
            annotation: Any = Annotated[(field.annotation, *marks)]
            default = {} if called == "schema" else field.default
            kind = inspect.Parameter.KEYWORD_ONLY
            added[called] = inspect.Parameter(called, kind, default=default, annotation=annotation)

        @wraps(function)
        def task(*args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - the function's own
            return function(*args, **kwargs)

        task.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*named, *added.values()]
        )
        described = "".join(f"\n        {n}: {_described(p)}" for n, p in added.items())
        task.__doc__ = _CSV.sub(lambda _: described, function.__doc__ or "")
        annotations = dict(function.__annotations__)
        annotations.pop("csv", None)
        task.__annotations__ = annotations | {n: p.annotation for n, p in added.items()}
        return task

    return give


def _described(parameter: inspect.Parameter) -> str:
    return str(get_args(parameter.annotation)[-1].description)


def csv_options(name: str, given: dict[str, Any]) -> CsvOptions:
    """Return what a task's arguments say of CSV, for its job; None says nothing.

    Args:
        name: of the task, for errors.
        given: the arguments by name.

    Raises:
        InvalidArgumentsError: two of them do not go together.
    """
    known = {key: value for key, value in given.items() if value is not None or key == "quote"}
    return checked(CsvWritten, known, name).options()
