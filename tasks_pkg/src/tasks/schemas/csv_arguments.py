"""Add the CSV format options as keyword arguments to a task."""

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field

from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.schemas.common import CsvWritten, checked

R = TypeVar("R")

#: The docstring entry that stands for all of these arguments.
_CSV = re.compile(r"\n {8}csv: .*(?:\n {12}.*)*")


def csv_arguments(*without: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the keys of :class:`tasks.schemas.common.CsvWritten` to a task as keyword arguments.

    The task's own ``**csv`` parameter receives them as the keys of a ``CsvWritten``. A key that the
    task names as its own parameter keeps its place.

    Args:
        without: keys that have no meaning for this task.
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
    """Return the CSV options for a task's job; an argument of None is left out.

    Args:
        name: the task's name, for errors.
        given: the arguments by name.

    Raises:
        InvalidArgumentsError: two of the arguments contradict each other.
    """
    known = {key: value for key, value in given.items() if value is not None or key == "quote"}
    return checked(CsvWritten, known, name).options()
