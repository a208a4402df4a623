"""An operator's mistake in the inventory: one problem with the value, its source, a way out."""

from __future__ import annotations

from typing import Any

import pytest
from celray.preflight.catalogue import (
    check_catalogue,
    check_cpus,
    check_nodes,
    check_overrides,
    check_placement,
    check_routes,
    read_routes,
)
from celray.preflight.problem import report
from celray.preflight.schedule import check_schedule
from celray.preflight.variables import (
    check_derived,
    check_task_settings,
    check_variables,
    derived_variables,
    known_variables,
    prefixes_of,
    read_fields,
)
from hypothesis import given
from hypothesis import strategies as st
from parts import REPO, load, variables

catalogue: Any = load("roles/celray/filter_plugins/celray_catalogue.py")
PREFIXES = prefixes_of(REPO / "roles")
ROUTES = {"tasks.ml": "ml", "tasks.ping": "default"}


def worker(**settings: Any) -> dict[str, Any]:
    return {"name": "ml", "queues": ["ml"], "concurrency": 2, "memory": "1g", **settings}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in worker().items() if name != key}


CATALOGUES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a misspelt key": (
        [{**without("queues"), "queue": ["ml"], "queues": ["ml"]}],
        ("worker ml", "'queue'", "did you mean queues?"),
    ),
    "a missing key": ([without("memory")], ("worker ml lacks 'memory'", "add memory")),
    "a missing name": ([without("name")], ("worker number 1 lacks 'name'",)),
    "a worker listed twice": ([worker(), worker()], ("worker ml is listed 2 times",)),
    "concurrency 0": ([worker(concurrency=0)], ("concurrency is 0", "at least 1")),
    "concurrency in words": ([worker(concurrency="2")], ("concurrency is '2'", "whole number")),
    "concurrency true": ([worker(concurrency=True)], ("concurrency is True",)),
    "no queue": ([worker(queues=[])], ("queues is []", "at least one queue")),
    "a queue without a name": ([worker(queues=[""])], ("queues is ['']",)),
    "queues as a text": ([worker(queues="ml")], ("queues is 'ml'", "a list")),
    "a name that is no container's": ([worker(name="Ml_1")], ("'Ml_1'", "lower-case")),
    "a name of the wrong kind": ([worker(name=["ml"])], ("name is ['ml']",)),
    "a memory that is no size": ([worker(memory="lots")], ("'lots'", "512m or 4g")),
    "an image that moves": ([worker(image="example/gpu:latest")], ("other than latest",)),
    "an image without a tag": ([worker(image="example/gpu")], ("'example/gpu' has no tag",)),
    "packages as a text": ([worker(packages="gdal-bin")], ("packages is 'gdal-bin'", "a list")),
    "packages with options": ([worker(packages=["--force"])], ("['--force']", "Debian packages")),
    "a misspelt extra": ([worker(package=["a"])], ("'package'", "did you mean packages?")),
    "a process for no task": ([worker(tasks_per_child=0)], ("tasks_per_child is 0",)),
    "a process of no size": ([worker(memory_per_child="2 GB")], ("memory_per_child is '2 GB'",)),
    "CPUs upside down": ([worker(cpuset="0..3")], ("cpuset is '0..3'", "0,2,4-7")),
    "CPUs as a number": ([worker(cpuset=3)], ("cpuset is 3, not a text",)),
    "a worker that is no mapping": (["ml"], ("worker number 1 is 'ml'",)),
    "an empty catalogue": ([], ("the catalogue is []",)),
    "a catalogue of the wrong kind": (5, ("the catalogue is 5", "a list of workers")),
}


def the_one(problems: list[Any], *words: str) -> None:
    """There is one problem, it says all of this, and it is complete."""
    assert len(problems) == 1, [str(problem) for problem in problems]
    (problem,) = problems
    assert problem.what
    assert problem.source
    assert problem.fix
    for word in words:
        assert word in str(problem)


@pytest.mark.parametrize("mistake", CATALOGUES)
def test_a_wrong_catalogue_is_one_named_problem(mistake: str) -> None:
    workers, words = CATALOGUES[mistake]
    the_one(check_catalogue(workers), "celery_workers", *words)


def test_a_worker_may_have_an_image_of_its_own_and_more_packages() -> None:
    own = worker(image="registry.example:5000/gpu/python:3.11-cuda", packages=["gdal-bin"])
    assert check_catalogue([own]) == []
    pinned = worker(image="example/gpu@sha256:" + 64 * "0")
    assert check_catalogue([pinned]) == []


@pytest.mark.parametrize(
    ("cpuset", "fits"), [("0-3", True), ("3", True), ("0,4", False), ("2-9", False)]
)
def test_a_worker_is_pinned_to_cpus_that_its_host_has(cpuset: str, fits: bool) -> None:
    pinned = [worker(name="ml", cpuset=cpuset), worker(name="elsewhere", cpuset="900")]
    assert check_catalogue(pinned) == []
    found = check_cpus(pinned, ["ml"], {"hostname": "east", "cpus": 4})
    assert (found == []) == fits
    assert fits or "east has the CPUs 0-3" in found[0].what


def test_every_mistake_is_shown_at_once() -> None:
    problems = check_catalogue([worker(concurrency=0), worker(name="data", memory="x")])
    assert len(problems) == 2
    told = report(problems)
    assert told.startswith("preflight found 2 problems; nothing has been changed.")
    assert "\n  1. " in told
    assert "\n  2. " in told


def test_a_routed_queue_that_nobody_consumes_is_named_with_its_task() -> None:
    problems = check_routes([worker(queues=["ml", "defaults"])], ROUTES)
    the_one(problems, "tasks.ping", "'default'", "did you mean defaults?", "routes.py")


def test_the_shipped_catalogue_schedule_and_routes_fit_together() -> None:
    defaults = variables("celray", "defaults")
    routes = read_routes(REPO / "tasks_pkg/src/tasks/routes.py")
    workers = defaults["celery_workers"]
    queues = {queue for worker in workers for queue in worker["queues"]}
    assert routes
    assert check_catalogue(workers) == []
    assert check_routes(workers, routes) == []
    assert check_schedule(defaults["celery_beat_schedule"], routes, queues) == []
    assert "celery" in queues, "where a client that names no queue lands"


SCHEDULES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no task": ([{"name": "a", "every_seconds": 1}], ("lacks name or task",)),
    "a task that does not exist": (
        [{"name": "a", "task": "tasks.pong", "every_seconds": 1}],
        ("schedule a", "tasks.pong", "did you mean tasks.ping?"),
    ),
    "no time": ([{"name": "a", "task": "tasks.ml"}], ("every_seconds or cron, exactly one",)),
    "two times": (
        [{"name": "a", "task": "tasks.ml", "every_seconds": 1, "cron": "* * * * *"}],
        ("exactly one",),
    ),
    "neither run nor skip": (
        [{"name": "a", "task": "tasks.ml", "every_seconds": 1, "missed": "later"}],
        ("missed is 'later'", "run, skip"),
    ),
    "a misspelt key": (
        [{"name": "a", "task": "tasks.ml", "every_seconds": 1, "queues": "ml"}],
        ("'queues'", "did you mean queue?"),
    ),
    "a queue that nobody consumes": (
        [{"name": "a", "task": "tasks.ml", "every_seconds": 1, "queue": "gpu"}],
        ("'gpu'", "default, ml"),
    ),
    "a queue of the wrong kind": (
        [{"name": "a", "task": "tasks.ml", "every_seconds": 1, "queue": ["ml"]}],
        ("['ml']",),
    ),
    "no list": ({"a": 1}, ("not a list",)),
}


@pytest.mark.parametrize("mistake", SCHEDULES)
def test_a_wrong_schedule_is_one_named_problem(mistake: str) -> None:
    schedule, words = SCHEDULES[mistake]
    problems = check_schedule(schedule, ROUTES, {"ml", "default"})
    the_one(problems, "celery_beat_schedule", *words)


def test_a_host_that_is_to_run_an_unknown_worker_is_told_so() -> None:
    assert check_placement(["ml"], [worker()]) == []
    problems = check_placement(["ml", "mll"], [worker()])
    the_one(problems, "celray_worker_names", "'mll'", "did you mean ml?")


BOTH = {"autoscale": [1, 2]}
SIZES = {
    "both sizes": ([worker(**BOTH)], ("has both concurrency and autoscale",)),
    "bounds upside down": ([{**without("concurrency"), "autoscale": [4, 2]}], ("[4, 2]",)),
    "one bound": ([{**without("concurrency"), "autoscale": [4]}], ("autoscale is [4]",)),
    "no process at all": ([{**without("concurrency"), "autoscale": [0, 4]}], ("[0, 4]",)),
    "no replica": ([worker(replicas=0)], ("replicas is 0",)),
    "replicas in words": ([worker(replicas="2")], ("replicas is '2'", "whole number")),
}


@pytest.mark.parametrize("mistake", SIZES)
def test_a_wrong_size_is_one_named_problem(mistake: str) -> None:
    workers, words = SIZES[mistake]
    the_one(check_catalogue(workers), "celery_workers", *words)


def test_bounds_and_replicas_are_fine() -> None:
    scaled = {**without("concurrency"), "autoscale": [3, 10], "replicas": 2}
    assert check_catalogue([scaled]) == []
    assert check_nodes([scaled]) == []


def test_a_replica_that_would_have_another_workers_name_is_refused() -> None:
    problems = check_nodes([worker(replicas=2), worker(name="ml-2")])
    the_one(problems, "replica 2 of worker ml has the name of worker ml-2")


def test_an_override_of_no_worker_is_named() -> None:
    assert check_overrides({"ml": {"concurrency": 8}}, [worker()]) == []
    problems = check_overrides({"mll": {"concurrency": 8}}, [worker()])
    the_one(problems, "no worker 'mll'", "did you mean ml?", "worker_overrides.yml")
    the_one(check_overrides({"ml": 8}, [worker()]), "worker ml are 8")
    the_one(check_overrides([], [worker()]), "worker_overrides.yml")


def test_what_scale_has_set_wins_and_replaces_bounds() -> None:
    bounded = {**without("concurrency"), "autoscale": [1, 4]}
    overrides = {"ml": {"concurrency": 8, "replicas": 3}}
    (scaled,) = catalogue.celray_overridden([bounded], overrides)
    assert scaled == worker(concurrency=8, replicas=3)
    assert catalogue.celray_nodes([scaled]) == ["ml", "ml-2", "ml-3"]
    # What preflight has to name must reach it.
    malformed: list[Any] = [5, ["ml"], [{"name": ["ml"]}], [{}]]
    for wrong in malformed:
        assert catalogue.celray_which_hold(wrong, {"ml": {"concurrency": 8}}, {}) == []
    assert catalogue.celray_which_hold([worker()], 5, {}) == []
    assert catalogue.celray_overridden(5, {}) == 5
    assert catalogue.celray_overridden(["ml"], {"ml": {}}) == ["ml"]
    assert catalogue.celray_nodes([5, {"queues": []}, worker(replicas="x")]) == ["ml"]


VALUES = st.sampled_from([1, 2, 8])
SIZED = st.one_of(
    VALUES.map(lambda n: {"concurrency": n}),
    VALUES.map(lambda n: {"autoscale": [1, n]}),
)
COPIES: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}), VALUES.map(lambda n: {"replicas": n})
)


WORKERS = st.tuples(SIZED, COPIES).map(lambda two: {**without("concurrency"), **two[0], **two[1]})
CHOICES = st.fixed_dictionaries({}, optional={"concurrency": VALUES, "replicas": VALUES})


@given(WORKERS, WORKERS, CHOICES)
def test_scale_holds_until_the_catalogue_is_edited_and_preflight_says_which(
    before: dict[str, Any], after: dict[str, Any], scaled: dict[str, Any]
) -> None:
    """Every worker as it was when it was scaled, and as it is now."""
    was = catalogue.celray_scaled_from([before], "ml")
    (now,) = catalogue.celray_overridden([after], {"ml": scaled}, was)
    told = catalogue.celray_which_hold([after], {"ml": scaled}, was)
    expected = 0
    for key, keys in (("concurrency", ("concurrency", "autoscale")), ("replicas", ("replicas",))):
        given_now = {name: after[name] for name in keys if name in after}
        if key not in scaled:
            assert {name: now[name] for name in keys if name in now} == given_now
            continue
        unedited = all(before.get(name) == after.get(name) for name in keys)
        holds = {key: scaled[key]} if unedited else given_now
        assert {name: now[name] for name in keys if name in now} == holds
        if given_now != {key: scaled[key]}:
            expected += 1
            holder = "make scale holds" if unedited else "celery_workers holds"
            assert any(f"{key} {scaled[key]}" in line and holder in line for line in told)
    assert len(told) == expected
    # Scaled once more, in another key: what the edit has replaced does not come back.
    kept = catalogue.celray_still_holding({"ml": scaled}, [after], was)
    again = catalogue.celray_scaled_from([after], "ml")
    assert catalogue.celray_overridden([after], kept, again) == [now]


def test_what_scale_has_set_before_it_kept_what_it_scaled_from_goes_on_holding() -> None:
    (scaled,) = catalogue.celray_overridden([worker()], {"ml": {"concurrency": 8}}, {})
    assert scaled["concurrency"] == 8
    (told,) = catalogue.celray_which_hold([worker()], {"ml": {"concurrency": 8}}, {})
    assert "concurrency 8 of make scale holds, not concurrency 2 of celery_workers" in told
    assert "worker_overrides.yml" in told


def test_a_variable_that_nothing_reads_is_a_typo() -> None:
    known = known_variables(REPO / "roles")
    problems = check_variables(["celray_port_flowr", "my_own", "celray_home"], known, PREFIXES)
    the_one(problems, "celray_port_flowr", "did you mean celray_port_flower?", "inventory")


def test_a_setting_that_no_task_reads_is_a_typo() -> None:
    """A worker's environment may hold anything: there it would be ignored."""
    fields = read_fields(REPO / "tasks_pkg/src/tasks/settings.py")
    given = {"result_expire_seconds": 60, "max_deliveries": 5, "mlflow_tracking_uri": "http://m"}
    problems = check_task_settings(given, fields)
    the_one(problems, "'result_expire_seconds'", "did you mean result_expires_seconds?", "settings")
    the_one(check_task_settings("none", fields), "'none', not a mapping", "{name: value}")
    with pytest.raises(ValueError, match="no class Settings"):
        read_fields(REPO / "tasks_pkg/src/tasks/routes.py")


def test_a_group_of_the_inventory_is_no_typo() -> None:
    """Groups and registered results are variables of a host too."""
    known = known_variables(REPO / "roles")
    ours = ["host_facts", "host_facts_resources", "secrets_store"]
    assert check_variables(ours, known, PREFIXES) == []


def test_a_variable_that_follows_from_others_cannot_be_set() -> None:
    derived = derived_variables(REPO / "roles")
    assert derived == set(variables("celray", "vars"))
    assert not derived & variables("celray", "defaults").keys()
    assert derived <= known_variables(REPO / "roles")
    problems = check_derived(["celray_home", "celray_docker"], derived)
    the_one(problems, "variable celray_docker", "cannot be set", "roles/celray/vars/main.yml")


def test_a_variable_of_an_undefined_purpose_is_found_for_every_role() -> None:
    known = known_variables(REPO / "roles")
    typos = ["redis_memry", "ray_cpu", "flower_maxtasks", "images_sources", "secrets_fille"]
    found = {problem.what.split()[1] for problem in check_variables(typos, known, PREFIXES)}
    assert found == set(typos)
