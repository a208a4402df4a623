"""Of all hosts of a run, one makes the images, from one source, and only what some host lacks."""

from __future__ import annotations

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from celray import task_packages as packages
from celray_layer_cache import LayerCache
from hypothesis import given
from hypothesis import strategies as st
from parts import REPO, Played, load, play

images: Any = load("roles/images/action_plugins/celray_images.py")
layers: Any = load("roles/images/library/celray_layers.py")
run: Any = load("roles/images/action_plugins/celray_images_run.py")
DEFAULTS = yaml.safe_load((REPO / "roles/images/defaults/main.yml").read_text())
SETTINGS: dict[str, Any] = {
    "plan": packages.Plan({}, [], []),
    "upstream": DEFAULTS["images_upstream"],
    "distro": DEFAULTS["images_distro"],
}
ALL = ("redis", "ray", "worker_deps", "worker")


def host(
    needed: tuple[str, ...] = ALL,
    has: tuple[str, ...] = (),
    *,
    source: str = "distro",
    engine: bool = True,
    local: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """What celray_images finds on a host that needs some images and has some, by their names."""
    settings = SETTINGS | changes
    candidates = {each: images.images_for(each, settings) for each in images.SOURCES}
    tags = candidates[source or "distro"]
    own = images.own_images(source or "distro", settings, tags)
    names = [*needed, *(f"worker_deps_{step['worker']}" for step in own)]
    missing = [name for name in names if name not in has]
    return {
        "source": source,
        "images": tags,
        "missing": missing,
        "own": [step for step in own if f"worker_deps_{step['worker']}" in missing],
        "bootstrap": images.bootstrapped(settings["distro"], tags, own),
        "shipped": [name for name in missing if name not in images.laid_on_the_host(tags)],
        "has": sorted(images.shipped_of(candidates) & {tags[name] for name in has}),
        "engine": engine,
        "local": local,
    }


TAGS = host()["images"]
BIG = {TAGS[name] for name in ("redis", "ray", "worker_deps")}


def chosen(
    found: dict[str, dict[str, Any]], cached: set[str] | None = None, *, engine: bool = False
) -> Any:
    return run.choose(found, cached or set(), engine=engine)


def test_this_machine_builds_if_it_has_an_engine_and_one_host_lends_its_tasks() -> None:
    found = {"a": host(has=ALL), "b": host(), "c": host()}
    made = chosen(found, engine=True)
    assert (made["builder"], made["leader"]) == ("localhost", "b")
    assert set(made["make"]) == set(made["keep"]) == BIG


def test_without_an_engine_here_the_host_that_has_most_of_it_builds() -> None:
    found = {
        "a": host(),
        "b": host(has=("worker_deps",)),
        "c": host(has=("worker_deps", "ray")),
        "d": host(has=("ray", "worker_deps")),
    }
    made = chosen(found)
    assert (made["builder"], made["leader"]) == ("c", "c")
    assert chosen({"a": host(), "b": host()})["builder"] == "a", "of equal ones the first"


def test_a_host_with_the_base_image_comes_before_one_without() -> None:
    assert chosen({"a": host(), "b": host(has=("base",))})["builder"] == "b"


def test_a_host_without_an_engine_builds_only_where_none_has_one() -> None:
    assert chosen({"a": host(engine=False), "b": host()})["builder"] == "b"
    bare = {name: host(engine=False) for name in "ab"}
    assert chosen(bare)["builder"] == "a", "a check before the engine is installed"


def test_this_machine_as_a_host_builds_and_is_sent_nothing() -> None:
    made = chosen({"a": host(), "here": host(local=True)}, engine=True)
    assert (made["builder"], made["leader"]) == ("here", "here")
    alone = chosen({"here": host(local=True)}, engine=True)
    assert alone["make"]
    assert alone["keep"] == [], "no layer is written where nobody is sent any"


def test_what_the_builder_alone_lacks_is_not_kept() -> None:
    made = chosen({"a": host(), "b": host(needed=("redis",))})
    assert made["builder"] == "a"
    assert made["keep"] == [TAGS["redis"]]


def test_what_this_machine_has_kept_needs_no_builder() -> None:
    found = {"a": host(has=ALL), "b": host()}
    assert chosen(found, BIG)["make"] == []
    assert chosen(found, BIG - {TAGS["ray"]})["make"] == [TAGS["ray"]]


def test_nothing_is_made_where_no_host_lacks_anything() -> None:
    made = chosen({name: host(has=ALL) for name in "ab"}, engine=True)
    assert (made["make"], made["needed"], made["recipes"]) == ([], [], {})
    assert run.said(made, {}, "", "") == ""


def test_a_host_that_decides_now_follows_those_that_have_images() -> None:
    found = {"a": host(source=""), "b": host(has=ALL, source="registry")}
    made = chosen(found)
    assert (made["undecided"], made["source"]) == (True, "registry")
    assert chosen({"a": host(source="")})["source"] == "", "a registry has to be asked"


# --- the steps ------------------------------------------------------------------------------------

GIS = {"name": "gis", "queues": ["gis"], "packages": ["gdal-bin"]}
GPU = {"name": "gpu", "queues": ["gpu"], "image": "example/cuda-python:3.11"}


def steps(found: dict[str, Any], has: set[str], *make: str) -> Any:
    made = run.recipes({"a": found})
    return run.steps(made, [found["images"][name] for name in make], has)


def test_an_image_is_made_with_those_below_it_and_no_other() -> None:
    left = steps(host(), set(), "worker_deps")
    assert set(left["bootstrap"]) == {TAGS["base"]}
    assert left["builds"] == [
        {"image": TAGS["worker_deps"], "name": "worker", "base": TAGS["base"]}
    ]
    assert (left["wheels"], left["pull"], left["own"]) == (["worker"], [], [])
    assert set(steps(host(), set(), "redis")["bootstrap"]) == {TAGS["redis"]}


def test_what_the_builder_has_costs_no_step() -> None:
    nothing: dict[str, Any] = {"bootstrap": {}, "pull": [], "builds": [], "wheels": [], "own": []}
    assert steps(host(), {TAGS["worker_deps"]}, "worker_deps") == nothing
    assert steps(host(), {TAGS["base"]}, "ray")["bootstrap"] == {}


def test_upstream_images_are_pulled() -> None:
    found = host(source="registry")
    left = steps(found, set(), "redis", "ray")
    assert set(left["pull"]) == {found["images"]["redis"], found["images"]["base"]}
    assert left["bootstrap"] == {}


def test_a_layer_of_packages_above_ray_is_no_image_of_the_builder() -> None:
    found = host(needed=("ray_deps", "ray"), plan=packages.Plan({}, [], ["rich"]))
    assert found["shipped"] == ["ray_deps"]
    (build,) = steps(found, set(), "ray_deps")["builds"]
    assert (build["name"], build["image"]) == ("ray", found["images"]["ray_deps"])


def test_a_workers_own_image_is_made_after_what_it_copies_from() -> None:
    found = host(needed=("worker_deps",), workers=[GIS, GPU])
    tags = found["images"]
    left = steps(found, set(), "worker_deps_gis", "worker_deps_gpu")
    assert set(left["bootstrap"]) == {tags["base"], tags["base_gis"]}
    assert [build["image"] for build in left["builds"]] == [tags["worker_deps"]]
    assert {step["worker"] for step in left["own"]} == {"gis", "gpu"}
    assert {step["worker_deps"] for step in left["own"]} == {tags["worker_deps"]}


NAMES = st.sets(st.sampled_from(["base", *ALL])).map(tuple)


@given(
    found=st.dictionaries(
        st.sampled_from("abcd"),
        st.builds(host, NAMES, NAMES, source=st.sampled_from(images.SOURCES), local=st.booleans()),
        min_size=1,
    ),
    engine=st.booleans(),
    cached=st.sets(st.sampled_from(sorted(BIG))),
)
def test_whatever_hosts_lack_is_cached_or_made_and_kept(
    found: dict[str, dict[str, Any]], engine: bool, cached: set[str]
) -> None:
    made = chosen(found, cached, engine=engine)
    left = run.steps(made["recipes"], made["make"], set())
    results = {*left["bootstrap"], *left["pull"], *(build["image"] for build in left["builds"])}
    assert set(made["make"]) <= results
    for name, each in found.items():
        lacks = run.lacking(each)
        if name != made["builder"]:
            assert lacks <= cached | set(made["keep"])
        assert lacks <= cached | set(made["make"])
    assert made["leader"] in found
    assert made["builder"] in (made["leader"], "localhost")


# --- the role -------------------------------------------------------------------------------------

CLIENT = """#!/bin/sh
echo "$0 $@" >> {asked}
case $1 in
  images) test "$2" = -aq || cat "$0.images";;
  info) echo {kind};;
  context) echo unix:///engine;;
  save) cp "$0.saved" "$3";;
  load) cat > "$0.loaded"
    if test -e "$0.full"; then echo no space left on device >&2; exit 1; fi
    echo "{redis} sha256:1" >> "$0.images";;
esac
"""
CONNECTION = """
from ansible.plugins.connection.local import Connection as Local
DOCUMENTATION = "name: celray_no_machine\\nshort_description: a host without a machine behind it"
class Connection(Local):
    transport = "celray_no_machine"
"""


class Fleet:
    """Hosts whose engines are programs, reached by a connection that is not `local`.

    Parameters:
        folder: the hosts' and this machine's.
        kind: the kind of machine that the engine here runs images of; empty: no engine.
        has: what `docker images` prints, by host.
    """

    def __init__(self, folder: Path, kind: str, **has: str) -> None:
        self.folder, self.cache = folder, LayerCache(str(folder / "cache"))
        (folder / "tools").mkdir()
        self.client(folder / "tools/docker", kind)
        hosts = {}
        for name, tags in has.items():
            self.client(folder / name, "")
            (folder / f"{name}.images").write_text(tags)
            engine = {"path": str(folder / name), "access": "direct"}
            facts = {"home": str(folder), "uid": 0, "machine": "x86_64", "engine": engine}
            hosts[name] = {"ansible_connection": "celray_no_machine", "host_facts": facts}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        (folder / "connection_plugins").mkdir()
        (folder / "connection_plugins/celray_no_machine.py").write_text(CONNECTION)

    def client(self, path: Path, kind: str) -> None:
        """Write an engine's client."""
        text = CLIENT.format(asked=self.folder / "asked", kind=kind, redis=TAGS["redis"])
        path.write_text(text)
        path.chmod(0o755)

    def keep(self, *names: str) -> None:
        """Put images into this machine's cache."""
        with self.cache.alone():
            self.cache.put({TAGS[name]: {"config": "{}", "layers": []} for name in names})

    def can_save(self, host: str) -> str:
        """Give a host's engine an image of one layer to save; return the layer."""
        folder = self.folder / "made"
        folder.mkdir()
        with (folder / "layer").open("wb") as file:
            layer = layers.compress(BytesIO(b"files"), file)
        (folder / "layer").rename(layers.layer_file(str(folder), layer))
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [layer]}})
        image = {"tag": TAGS["redis"], "config": config, "layers": [layer]}
        with (self.folder / f"{host}.saved").open("wb") as file:
            layers.write_archive(file, [image], [layer], str(folder))
        return str(layer)

    def asked(self) -> list[str]:
        """What engines were asked, by whom."""
        return (self.folder / "asked").read_text().splitlines()

    def play(self, needed: list[str], *arguments: str, **settings: Any) -> Played:
        """Get the hosts the images that they need, and go on."""
        variables = {
            "images_source": "distro",
            "images_needed": needed,
            "images_cache_dir": str(self.cache.folder.parent),
            **settings,
        }
        go_on = {
            "name": "Go on",
            "ansible.builtin.debug": {"msg": "{{ inventory_hostname }} goes on"},
        }
        book = {
            "hosts": "all",
            "gather_facts": False,
            "roles": [{"role": "images"}],
            "vars": variables,
            "tasks": [go_on],
        }
        (self.folder / "book.yml").write_text(yaml.safe_dump([book]))
        return play(
            str(self.folder / "book.yml"),
            *("-i", str(self.folder / "hosts.yml"), *arguments),
            ANSIBLE_CONNECTION_PLUGINS=str(self.folder / "connection_plugins"),
            PATH=f"{self.folder}/tools:/usr/bin:/bin",
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cached", "words"),
    [
        ("x86_64", [], "Images: distro, built on this machine."),
        ("aarch64", [], "Images: distro, built on second."),
        ("", ["redis", "worker_deps"], "Images: distro, from this machine's cache."),
    ],
)
def test_a_check_says_once_for_all_hosts_who_would_build(
    kind: str, cached: list[str], words: str, tmp_path: Path
) -> None:
    has = f"{TAGS['worker_deps']} sha256:1\n"
    fleet = Fleet(tmp_path, kind, first="", second=has, third="")
    fleet.keep(*cached)
    played = fleet.play(["redis", "worker_deps", "worker"], "--check")
    assert played.code == 0, played.output
    assert played.output.count("Images: ") == 1
    assert words in played.output
    assert played.output.count(f"+ {TAGS['redis']:<37} build") == 3
    assert {line.split()[1] for line in fleet.asked()} <= {"images", "info", "context"}


@pytest.mark.slow
def test_a_host_that_cannot_be_sent_its_images_keeps_no_other_from_going_on(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "", first="", second="", third=f"{TAGS['redis']} sha256:1\n")
    fleet.keep("redis")
    record = fleet.cache.record(TAGS["redis"])
    os.utime(record, (0, 0))
    (tmp_path / "first.full").touch()
    played = fleet.play(["redis"])
    assert played.code != 0
    assert f"docker load of {TAGS['redis']}: no space left on device" in played.output
    assert "second was sent 0 layers" in played.output
    going_on = [line.split()[0] for line in played.output.splitlines() if "goes on" in line]
    assert sorted(going_on) == ["second", "third"]
    assert record.stat().st_mtime > 0, "it is kept longer, because this run used it"
    # A second run sends nothing to those that have all.
    (tmp_path / "first.full").unlink()
    again = fleet.play(["redis"])
    assert again.code == 0, again.output
    assert again.output.count("was sent") == 1
    assert "first was sent" in again.output


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [("only",), ("first", "second")])
def test_hosts_that_lack_nothing_need_nobody(hosts: tuple[str, ...], tmp_path: Path) -> None:
    """A second deploy to one host looked for its builder."""
    fleet = Fleet(tmp_path, "x86_64", **dict.fromkeys(hosts, f"{TAGS['redis']} sha256:1\n"))
    played = fleet.play(["redis"])
    assert played.code == 0, played.output
    assert played.output.count("goes on") == len(hosts)
    assert "Images: " not in played.output


@pytest.mark.slow
def test_a_hosts_images_reach_the_others_by_this_machine_and_leave_nothing_there(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, "", first="", second=f"{TAGS['redis']} sha256:1\n", third="")
    layer = fleet.can_save("second")
    played = fleet.play(["redis"])
    assert played.code == 0, played.output
    assert "Images: distro, built on second." in played.output
    assert fleet.cache.layers() == {layer}
    assert fleet.cache.tags() == {TAGS["redis"]}
    for host in ("first", "third"):
        assert f"{host} was sent 1 layer, 0.0 MB of {TAGS['redis']}" in played.output
        with tarfile.open(tmp_path / f"{host}.loaded") as archive:
            assert f"{layer[7:]}.tar.gz" in archive.getnames()
    saved = [line for line in fleet.asked() if " save " in line]
    assert [line.split()[0] for line in saved] == [str(tmp_path / "second")]
    assert not (tmp_path / ".cache/celray/layers").exists()
    # What is kept here needs no builder.
    (tmp_path / "third.images").write_text("")
    again = fleet.play(["redis"])
    assert "Images: distro, from this machine's cache." in again.output
    assert "third was sent 1 layer" in again.output


@pytest.mark.slow
def test_what_keeps_the_builder_from_building_is_said_once_and_ends_the_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "x86_64", first="", second="", third="")
    played = fleet.play(["redis"], images_registry="127.0.0.1:1/celray")
    assert played.code != 0
    assert played.output.count("FAILED") == 1
    assert "images_registry: 127.0.0.1:1/celray does not answer" in played.output
    assert "goes on" not in played.output
