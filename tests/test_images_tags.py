"""An image's tag says what is in it: it changes with the content, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from celray import task_packages as packages
from parts import REPO, load

images: Any = load("roles/images/action_plugins/celray_images.py")
contexts: Any = load("roles/images/action_plugins/celray_image.py")
DEFAULTS = yaml.safe_load((REPO / "roles/images/defaults/main.yml").read_text())
NOTHING = packages.Plan({}, [], [])
SETTINGS = {
    "plan": NOTHING,
    "upstream": DEFAULTS["images_upstream"],
    "distro": DEFAULTS["images_distro"],
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what goes into the images, in a place with an unlucky name."""
    copy = tmp_path / "home/.pycharm/tasks_pkg"
    copy.mkdir(parents=True)
    for recipe in REPO.glob("tasks_pkg/*.Dockerfile"):
        shutil.copy(recipe, copy)
    shutil.copytree(REPO / "tasks_pkg/requirements", copy / "requirements")
    (copy / "src/tasks/ray_jobs").mkdir(parents=True)
    (copy / "src/tasks/app.py").write_text("app = 1\n")
    (copy / "src/tasks/ray_jobs/job.py").write_text("job = 1\n")
    monkeypatch.setattr(images, "PACKAGE", copy)
    original = images.code_version
    monkeypatch.setattr(images, "code_version", lambda: original(copy / "src/tasks"))
    return copy


def tags(source: str = "distro", **changes: Any) -> dict[str, str]:
    found: dict[str, str] = images.images_for(source, SETTINGS | changes)
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_a_change_in_one_task_file_changes_the_worker_image_alone(package: Path) -> None:
    before = tags()
    (package / "src/tasks/app.py").write_text("app = 2\n")
    assert changed(before, tags()) == {"worker"}


def test_a_script_that_runs_in_redis_is_code_too(package: Path) -> None:
    before = tags()
    (package / "src/tasks/broker/lua").mkdir(parents=True)
    (package / "src/tasks/broker/lua/fetch.lua").write_text("return 1\n")
    assert changed(before, tags()) == {"worker"}


def test_a_renamed_task_file_is_a_change(package: Path) -> None:
    before = tags()
    (package / "src/tasks/app.py").rename(package / "src/tasks/other.py")
    assert changed(before, tags()) == {"worker"}


def test_what_python_compiled_is_no_content(package: Path) -> None:
    before = tags()
    cache = package / "src/tasks/__pycache__"
    cache.mkdir()
    (cache / "app.cpython-311.pyc").write_bytes(b"compiled")
    (package / "src/tasks/old.pyc").write_bytes(b"compiled")
    assert tags() == before


@pytest.mark.parametrize(
    ("name", "touched"),
    [
        ("worker.Dockerfile", {"worker_deps", "worker"}),
        ("requirements/worker.lock", {"worker_deps", "worker"}),
        ("requirements/ray.lock", {"ray"}),
        ("ray.Dockerfile", {"ray"}),
        ("code.Dockerfile", {"worker"}),
        ("requirements/worker.in", set()),
    ],
)
def test_a_changed_input_changes_the_images_that_hold_it(
    package: Path, name: str, touched: set[str]
) -> None:
    before = tags()
    with (package / name).open("a") as handle:
        handle.write("# changed\n")
    assert changed(before, tags()) == touched


@pytest.mark.usefixtures("package")
def test_a_package_more_in_the_base_changes_everything_built_on_it() -> None:
    distro = SETTINGS["distro"]
    more = {**distro, "base_packages": [*distro["base_packages"], "tzdata"]}
    assert changed(tags(), tags(distro=more)) == {"base", "worker_deps", "worker", "ray"}


@pytest.mark.usefixtures("package")
def test_the_two_sources_never_share_a_tag() -> None:
    assert changed(tags("distro"), tags("registry")) == set(tags())


@pytest.mark.usefixtures("package")
def test_an_edit_in_a_task_package_changes_the_layer_of_code_alone() -> None:
    before = tags(plan=packages.Plan({"words": "1"}, [], []))
    assert changed(before, tags(plan=packages.Plan({"words": "2"}, [], []))) == {"worker"}


@pytest.mark.usefixtures("package")
def test_what_packages_require_lies_between_dependencies_and_code() -> None:
    without, found = tags(), tags(plan=packages.Plan({}, ["httpx"], ["geopandas"]))
    assert changed(without, found) == {"worker", "ray"}
    assert found["ray_deps"] == without["ray"]
    assert set(found) - set(without) == {"worker_extra", "ray_deps"}
    assert images.laid_on_the_host(without) == {"worker"}
    assert images.laid_on_the_host(found) == {"worker", "worker_extra", "ray"}
    more = tags(plan=packages.Plan({}, ["httpx", "rich"], ["geopandas"]))
    assert changed(found, more) == {"worker_extra", "worker"}


GIS = {"name": "gis", "queues": ["gis"], "packages": ["gdal-bin"]}
OWN = {"name": "gpu", "queues": ["gpu"], "image": "example/cuda-python:3.11"}


@pytest.mark.usefixtures("package")
def test_a_worker_with_packages_has_a_chain_of_its_own_and_the_others_stay() -> None:
    plan = packages.Plan({}, ["httpx"], [])
    without, found = tags(plan=plan), tags(plan=plan, workers=[GIS])
    assert changed(without, found) == set()
    assert set(found) - set(without) == {
        f"{part}_gis" for part in ("base", "worker_deps", "worker_extra", "worker")
    }
    assert len(set(found.values())) == len(found)
    (step,) = images.own_images("distro", SETTINGS | {"plan": plan, "workers": [GIS]}, found)
    assert "gdal-bin" in step["bootstrap"]
    assert step["apt"] == "", "a bootstrapped base needs no network in a build"


@pytest.mark.usefixtures("package")
def test_a_workers_own_image_is_its_base_and_is_pulled() -> None:
    settings = SETTINGS | {"workers": [{**OWN, "packages": ["libgomp1"]}]}
    (step,) = images.own_images("distro", settings, tags())
    assert step["base"] == step["pull"] == "example/cuda-python:3.11"
    assert (step["bootstrap"], step["apt"]) == ([], "libgomp1")


@pytest.mark.usefixtures("package")
def test_layers_are_built_above_what_they_stand_on() -> None:
    found = tags(plan=packages.Plan({}, ["httpx"], ["rich"]), workers=[GIS])
    steps = images.layers(found, [name for name in found if name != "redis"])
    above = {step["image"]: step["above"] for kind in steps.values() for step in kind}
    assert above == {
        found["ray"]: found["ray_deps"],
        found["worker_extra"]: found["worker_deps"],
        found["worker_extra_gis"]: found["worker_deps_gis"],
        found["worker"]: found["worker_extra"],
        found["worker_gis"]: found["worker_extra_gis"],
    }
    plain = images.layers(tags(workers=[GIS]), ["worker", "worker_gis"])
    assert [step["above"] for step in plain["code"]] == [
        tags()["worker_deps"],
        tags(workers=[GIS])["worker_deps_gis"],
    ]


def test_parts_cannot_run_into_each_other() -> None:
    assert images.digest("ab", "c") != images.digest("a", "bc")


def test_auto_stays_with_the_source_that_the_host_has() -> None:
    candidates = {
        source: {name: f"{source}/{name}" for name in ("redis", "ray", "worker_deps")}
        for source in ("registry", "distro")
    }
    names = ("redis", "ray", "worker_deps", "worker")
    there = dict.fromkeys(candidates["distro"].values())
    assert images.choose("auto", {}, candidates, names) == ""
    assert images.choose("auto", there, candidates, names) == "distro"
    assert images.choose("registry", {}, candidates, names) == "registry"


def test_a_host_is_not_asked_for_images_that_it_does_not_need() -> None:
    candidates = {
        source: {name: f"{source}/{name}" for name in ("redis", "ray", "worker_deps")}
        for source in ("registry", "distro")
    }
    there = {"distro/worker_deps": ""}
    assert images.choose("auto", there, candidates, ("worker_deps", "worker")) == "distro"


def test_a_build_context_holds_our_files_by_name_and_nothing_compiled(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = package / "src/tasks/__pycache__"
    cache.mkdir()
    (cache / "app.cpython-311.pyc").write_bytes(b"\xff")
    monkeypatch.setattr(contexts, "REPO", package)
    found = contexts.context_from({"Dockerfile": "code.Dockerfile", "tasks": "src/tasks"})
    assert set(found) == {"Dockerfile", "tasks/app.py", "tasks/ray_jobs/job.py"}
    assert found["tasks/app.py"] == "app = 1\n"


def test_every_upstream_image_is_pinned_and_has_our_python() -> None:
    for image in DEFAULTS["images_upstream"].values():
        assert ":" in image
        assert not image.endswith(":latest")
    assert DEFAULTS["images_upstream"]["base"].startswith(f"python:{DEFAULTS['images_python']}.")
