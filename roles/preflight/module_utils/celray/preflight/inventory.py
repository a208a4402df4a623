"""Check the inventory as a whole, as far as possible without the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from celray import REPO

from . import catalogue, packages, variables
from .problem import Problem
from .schedule import check_schedule


def check_services(args: Mapping[str, Any], placed: Callable[[], Any]) -> list[Problem]:
    """Return what is wrong with the workers, the task packages and the schedule.

    Parameters:
        args: the action's arguments.
        placed: returns the workers that this host is to run; not asked of a wrong catalogue.
    """
    workers = args["workers"]
    fields = variables.read_fields(REPO / "tasks_pkg/src/tasks/settings.py")
    settings = variables.check_task_settings(args["task_settings"], fields)
    wrong = catalogue.check_catalogue(workers)
    if wrong:
        return settings + wrong
    routes = catalogue.read_routes(REPO / "tasks_pkg/src/tasks/routes.py")
    queues = {queue for worker in workers for queue in worker["queues"]}
    problems = settings + catalogue.check_routes(workers, routes)
    problems += catalogue.check_nodes(workers)
    problems += catalogue.check_overrides(args["overrides"], workers)
    found, schedule = packages.check(
        args["packages"], Path(args["packages_base"]), queues, set(routes)
    )
    theirs = packages.tasks_of(args["packages"], args["schedule"], schedule)
    problems += found
    problems += check_schedule(args["schedule"], routes | theirs, queues, schedule)
    names = placed()
    if "celery_worker" in args["groups"]:
        problems += catalogue.check_cpus(workers, names, args["host"])
    return problems + catalogue.check_placement(names, workers)


def check_groups(host: str, groups: Iterable[str], known: Iterable[str]) -> list[Problem]:
    """Return a problem where no group gives a host something to do."""
    if list(groups):
        return []
    return [
        Problem(
            f"host {host} has no service",
            "the inventory's groups",
            f"put it into one of {', '.join(known)}",
        )
    ]


def check_names(names: Iterable[str], given: Iterable[str]) -> list[Problem]:
    """Return unknown variables, and those that an inventory must not set.

    Parameters:
        names: all variables of the host.
        given: those that the inventory and the command line set.
    """
    roles = REPO / "roles"
    known, prefixes = variables.known_variables(roles), variables.prefixes_of(roles)
    problems = variables.check_variables(names, known, prefixes)
    return problems + variables.check_derived(given, variables.derived_variables(roles))
