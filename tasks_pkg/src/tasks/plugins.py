"""Third-party task packages: found by an entry point, compared with their declaration.

A package names its modules of tasks in the entry-point group :data:`GROUP`. The inventory declares
the package and the queue of each of its tasks (``celery_packages``, here ``settings.packages``).
Installed and declared packages must agree: an undeclared task has no queue, and a declared task
that does not exist would be sent in vain.
"""

import warnings
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from weakref import WeakKeyDictionary

from celery import Celery
from celery.exceptions import DuplicateTaskNameWarning

from tasks.catalogue_rules import RESERVED, canonical
from tasks.credentials import ConfigurationError
from tasks.routes import ROUTES
from tasks.samples import Sample
from tasks.settings import PackageSpec, Settings

#: The entry-point group: ``[project.entry-points."celray.tasks"]``, any name = module of tasks.
GROUP = "celray.tasks"

#: Package name -> the tasks that it registered, for each app that has loaded its packages.
_REGISTERED: WeakKeyDictionary[Celery, dict[str, frozenset[str]]] = WeakKeyDictionary()

_WAY_OUT = "correct `celery_packages` in the inventory, or the package, and deploy again"


def installed() -> dict[str, list[EntryPoint]]:
    """Return the entry points of each installed distribution with tasks, by its name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        name = canonical(point.dist.name) if point.dist else point.name
        found.setdefault(name, []).append(point)
    return found


def load(app: Celery, settings: Settings) -> dict[str, frozenset[str]]:
    """Import every declared package's tasks, once per app; return their names by package.

    celray's own tasks must be imported before, so that a name collision is reported as the
    package's mistake.

    Raises:
        ConfigurationError: installed and declared packages differ, or a name is taken.
    """
    if app in _REGISTERED:
        return _REGISTERED[app]
    found = installed()
    declared = {spec.name: spec for spec in settings.packages}
    if more := sorted(set(found) - set(declared)):
        message = (
            f"package {more[0]} is installed, with tasks in {_modules(found[more[0]])}, and not "
            f"among the declared packages ({', '.join(declared) or 'none'}); {_WAY_OUT}"
        )
        raise ConfigurationError(message)
    app.finalize()  # from here on a decorator registers its task at once
    tasks: dict[str, frozenset[str]] = {}
    for name, spec in declared.items():
        if name not in found:
            message = (
                f"package {name} is declared, and nothing that is installed under that name has "
                f"an entry point in the group {GROUP!r}; {_WAY_OUT}"
            )
            raise ConfigurationError(message)
        before = set(app.tasks)
        for point in found[name]:
            _import(name, point)
        tasks[name] = frozenset(set(app.tasks) - before)
        _hold(spec, tasks[name])
    _REGISTERED[app] = tasks
    return tasks


def unregistered(app: Celery, settings: Settings) -> dict[str, str]:
    """Return the schedule's entries whose task no package registered, with the reason."""
    return {
        entry.name: f"it names task {entry.task!r}, which no package registers; {_WAY_OUT}"
        for entry in settings.schedule.entries
        if entry.task not in app.tasks
    }


def samples(settings: Settings) -> dict[str, Sample]:
    """Return the packages' safe samples: ``SAMPLES`` in a module that an entry point names.

    Only names that the package declares count, so that no package replaces another's sample.
    """
    found = installed()
    given: dict[str, Sample] = {}
    for spec in settings.packages:
        for point in found.get(spec.name, []):
            module = point.load()
            own = getattr(module, "SAMPLES", {}) if isinstance(module, ModuleType) else {}
            given |= {task: one for task, one in own.items() if spec.queue_of(task)}
    return given


def _import(name: str, point: EntryPoint) -> None:
    with warnings.catch_warnings():
        # Celery keeps the first of two tasks with one name, and warns.
        warnings.simplefilter("error", DuplicateTaskNameWarning)
        try:
            point.load()
        except DuplicateTaskNameWarning as error:
            # The first paragraphs of the error: the task's name, and the two functions.
            told = _one_line(error).partition("Every task")[0].strip()
            message = f"package {name}, {point.value}: {told} {_WAY_OUT}"
            raise ConfigurationError(message) from None
        except (Exception, SystemExit) as error:
            # A package may raise anything at import: the operator gets one line that names it.
            message = (
                f"package {name}: its module {point.value} cannot be imported: "
                f"{type(error).__name__}: {_one_line(error)}; {_WAY_OUT}"
            )
            raise ConfigurationError(message) from error


def _hold(spec: PackageSpec, registered: frozenset[str]) -> None:
    """Compare a package's registered tasks with those declared for it."""
    if ours := sorted(name for name in registered if name.startswith(RESERVED)):
        message = (
            f"package {spec.name} registers {ours[0]!r}; names that begin with "
            f"{' or '.join(map(repr, RESERVED))} are celray's and Celery's; {_WAY_OUT}"
        )
        raise ConfigurationError(message)
    undeclared = sorted(name for name in registered if spec.queue_of(name) is None)
    idle = sorted(
        pattern for pattern in spec.queues if not any(map(partial(_matches, pattern), registered))
    )
    if undeclared or idle:
        message = (
            f"package {spec.name}: what it registers and what its `queues` declare differ: only "
            f"registered {undeclared}, only declared {idle}; {_WAY_OUT}"
        )
        raise ConfigurationError(message)


def expected(settings: Settings, tasks: Mapping[str, Iterable[str]]) -> set[str]:
    """Return every task that a worker must have: celray's own and those of the loaded packages."""
    return set(ROUTES).union(*(tasks[spec.name] for spec in settings.packages))


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern)


def _modules(points: Iterable[EntryPoint]) -> str:
    return ", ".join(point.value for point in points)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
