"""What preflight passes, every container of the deployment takes."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks import catalogue_rules
from tasks.routes import ROUTES
from tasks.settings import Settings

PREFLIGHT = Path(__file__).parents[2] / "roles/preflight/module_utils"
OURS = sorted(set(ROUTES.values()))

NAMES = st.one_of(
    st.sampled_from(["ml", "data", "default", "", "a b", "ml\n", "-x", "ä", "gpu.fast", "*"]),
    st.text(max_size=5),
)
WORKERS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.one_of(st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True), NAMES),
            "queues": st.one_of(st.just(OURS), st.lists(NAMES, max_size=3)),
            "concurrency": st.just(1),
            "memory": st.just("1g"),
        }
    ),
    max_size=3,
)
TASKS = st.sampled_from(["geo.cut", "geo.*", "plain", "tasks.mine", "*", "celery.x"])
PACKAGES = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["geo", "geo_tools", "maps", "tasks", "x y"]),
            "source": st.just("index"),
            "version": st.just("1"),
            "queues": st.one_of(
                st.sampled_from(["ml", "data", "none"]),
                st.dictionaries(TASKS, st.sampled_from(["ml", "data"]), min_size=1, max_size=2),
            ),
        }
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def preflight() -> Iterator[Any]:
    if not PREFLIGHT.is_dir():
        pytest.skip("the package is tested outside its repository")
    sys.path.insert(0, str(PREFLIGHT))
    try:
        yield tuple(import_module(f"celray.preflight.{name}") for name in ("catalogue", "packages"))
    except ImportError as error:
        pytest.skip(f"preflight needs {error.name}")
    finally:
        sys.path.remove(str(PREFLIGHT))


@pytest.mark.slow
@settings(max_examples=500)
@given(workers=st.one_of(st.just([]), WORKERS), given_packages=PACKAGES)
def test_what_preflight_passes_starts(
    workers: list[dict[str, Any]],
    given_packages: list[dict[str, Any]],
    preflight: Any,  # noqa: ANN401 - two modules of the control node
) -> None:
    catalogue, packages = preflight
    every = [*workers, {"name": "all", "queues": OURS, "concurrency": 1, "memory": "1g"}]
    wrong = catalogue.check_catalogue(every)
    if not wrong:
        queues = {queue for worker in every for queue in worker["queues"]}
        wrong = catalogue.check_routes(every, ROUTES)
        for number, package in enumerate(given_packages, 1):
            wrong += packages.check_shape(package, number)
        if not wrong:
            wrong += packages.check_names(given_packages)
            for package in given_packages:
                wrong += packages.check_queues(package, queues, set(ROUTES))
    event("refused" if wrong else f"passed, with {len(given_packages)} packages")
    if wrong:
        return
    told: Any = [{"name": w["name"], "queues": w["queues"]} for w in every]
    theirs: Any = [{"name": p["name"], "queues": p["queues"]} for p in given_packages]
    redis = SecretStr("redis://127.0.0.1:1/0")
    Settings(
        broker_url=redis,
        result_backend_url=redis,
        redbeat_url=redis,
        workers=told,
        packages=theirs,
    )


def test_two_packages_that_declare_one_task_are_found() -> None:
    find: Callable[..., Any] = catalogue_rules.declared_twice
    assert find([("a", ["x.*", "y"]), ("b", ["y"])]) == [("y", "a", "b")]
    assert find([("a", ["x"]), ("b", ["y"])]) == []
