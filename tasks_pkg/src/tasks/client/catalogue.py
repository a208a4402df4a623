"""The tasks that can be sent: names, queues, contracts, documentation."""

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from celery import Celery

from tasks.celery_config import TASK_MODULES
from tasks.client import docstrings
from tasks.client.errors import AmbiguousNameError, UnknownTaskError
from tasks.contracts import Contract, Untyped
from tasks.routes import ROUTES


@dataclass(frozen=True)
class Parameter:
    """One parameter, or a nested key; ``type`` and ``default`` are written for people."""

    name: str
    type: str
    required: bool
    default: Any = None
    doc: str = ""
    keys: tuple["Parameter", ...] = ()


@dataclass(frozen=True)
class TaskInfo:
    """A task; ``contract`` is None for a task that is not installed here."""

    name: str
    queue: str | None
    contract: Contract | None = field(default=None, repr=False)
    doc: docstrings.Docstring = field(default_factory=docstrings.Docstring)
    parameters: tuple[Parameter, ...] = ()
    result: tuple[Parameter, ...] = ()

    @property
    def short(self) -> str:
        """Return the last part of the name, which suffices if no other task ends with it."""
        return self.name.rpartition(".")[2]

    def as_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        return {
            "name": self.name,
            "queue": self.queue,
            "summary": self.doc.summary,
            "description": self.doc.text,
            "parameters": [asdict(parameter) for parameter in self.parameters],
            "returns": self.doc.returns,
            "result": [asdict(key) for key in self.result],
            "raises": self.doc.raises,
        }


@lru_cache(maxsize=1)
def installed() -> dict[str, TaskInfo]:
    """Return the installed tasks, celray's own and those of task packages, by name."""
    tasks = load(Celery("celray-catalogue", set_as_current=False))
    return {name: _describe(name, task) for name, task in sorted(tasks.items())}


def load(app: Celery) -> dict[str, Untyped]:
    """Register every installed task with ``app``, and return the tasks by name."""
    for module in TASK_MODULES:
        import_module(module)
    from tasks import plugins  # noqa: PLC0415 - with all settings of a worker, for who calls tasks

    for points in plugins.installed().values():
        for point in points:
            point.load()
    app.finalize()
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def _describe(name: str, task: Untyped) -> TaskInfo:
    contract = getattr(task.run, "contract", None) or Contract(task.run)
    doc = docstrings.parse(task.run.__doc__)
    parameters = []
    for parameter, given in contract.signature.parameters.items():
        if parameter == "self":
            continue
        required = given.default is given.empty
        schema = contract.schema(parameter)
        parameters.append(
            Parameter(
                parameter,
                _type(schema, schema),
                required,
                None if required else given.default,
                doc.parameters.get(parameter, ""),
                _keys(schema, schema),
            )
        )
    result = contract.result_schema()
    keys = _keys(result, result)
    return TaskInfo(name, ROUTES.get(name), contract, doc, tuple(parameters), keys)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _keys(schema: dict[str, Any], root: dict[str, Any]) -> tuple[Parameter, ...]:
    """Return the keys of an object, also of an optional one."""
    schema = _resolved(schema, root)
    for choice in schema.get("anyOf", ()):
        if keys := _keys(choice, root):
            return keys
    return tuple(
        Parameter(
            name,
            _type(found, root),
            name in schema.get("required", ()),
            found.get("default"),
            docstrings.parse(found.get("description")).summary,
            _keys(found, root),
        )
        for name, found in schema.get("properties", {}).items()
    )


_WORDS = {"null": "none", "string": "text", "integer": "whole number", "boolean": "true or false"}
_BOUNDS = (
    ("exclusiveMinimum", ">"),
    ("minimum", ">="),
    ("exclusiveMaximum", "<"),
    ("maximum", "<="),
)


def _type(schema: dict[str, Any], root: dict[str, Any]) -> str:
    """Describe in a few words what a JSON schema accepts."""
    schema = _resolved(schema, root)
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(choice, root) for choice in choices))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), root)}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        values = _type(inner, root) if isinstance(inner, dict) and inner else ""
        return f"object of {values}" if values else "object"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS if key in schema]
    return " ".join([_WORDS.get(kind, kind), *[", ".join(bounds)][: len(bounds)]])


def resolve(name: str, known: Iterable[str]) -> str:
    """Return the full name of a task from that name or from an unambiguous end of it.

    Raises:
        AmbiguousNameError: several tasks end with it.
        UnknownTaskError: no task does; the text names the nearest.
    """
    names = sorted(known)
    if name in names:
        return name
    found = [full for full in names if full.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{name!r} is the end of several tasks: {', '.join(found)}; give more of the name"
        raise AmbiguousNameError(message)
    ends = {full.rpartition(".")[2]: full for full in names}
    near = difflib.get_close_matches(name, [*ends, *names], n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(ends))}"
    message = f"no task is called {name!r}; {hint}"
    raise UnknownTaskError(message)
