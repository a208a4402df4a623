"""Images taken apart and put together again by a real engine, and a real registry."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import debian
import pytest
from celray_layer_cache import LayerCache
from engine import docker
from parts import load, run_module

pytestmark = pytest.mark.engine

LAYERS = "roles/images/library/celray_layers.py"
IMAGE = "roles/images/library/celray_image.py"
carrier: Any = load("roles/images/action_plugins/celray_layers.py")
PREFIX = f"ship-tests-{os.getpid()}"
ONE, TWO = f"{PREFIX}/one:1", f"{PREFIX}/two:1"


def remove(*tags: str) -> None:
    subprocess.run(["docker", "rmi", "--force", *tags], capture_output=True, check=False)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Two images on one base; no other image of this engine has a layer of theirs."""
    base = f"{PREFIX}/base:1"
    with tarfile.open(tmp_path / "base.tar", "w") as tar:
        entry = tarfile.TarInfo("base")
        entry.size = 3_000_000
        tar.addfile(entry, BytesIO(os.urandom(1_500_000) + bytes(1_500_000)))
    docker("import", str(tmp_path / "base.tar"), base)
    for tag in (ONE, TWO):
        context = tmp_path / tag.partition("/")[2]
        context.mkdir()
        (context / "Dockerfile").write_text(f'FROM {base}\nCOPY above /above\nCMD ["/above"]\n')
        (context / "above").write_bytes(os.urandom(500_000))
        docker("build", "--quiet", "--tag", tag, str(context))
    yield {
        tag: docker("image", "inspect", "--format", "{{.Id}}", tag).strip() for tag in (ONE, TWO)
    }
    remove(ONE, TWO, base)


def step(**args: Any) -> dict[str, Any]:
    done = run_module(LAYERS, {"docker": "docker", **args})
    assert not done.get("failed"), done
    return done


def kept(folder: Path) -> LayerCache:
    """Keep both images' layers, as the builder and this machine do."""
    cache = LayerCache(str(folder))
    with cache.alone():
        made = step(do="keep", folder=str(cache.folder), images=[ONE, TWO])
        cache.put(made["images"])
    return cache


def ship(cache: LayerCache, *tags: str) -> list[str]:
    """Load images as a host does; return the layers that were sent."""
    records = [record for tag in tags if (record := cache.get(tag))]
    sent: list[str] = carrier.absent_layers(records, step(do="look")["chains"])
    step(do="load", folder=str(cache.folder), images=records, sent=sent)
    return sent


def test_each_layer_is_kept_once_and_sent_to_an_engine_that_lacks_it(
    images: dict[str, str], tmp_path: Path
) -> None:
    cache = kept(tmp_path)
    records = {tag: cache.get(tag) or {} for tag in images}
    one, two = (records[tag]["layers"] for tag in (ONE, TWO))
    assert one[0] == two[0]
    assert cache.layers() == {*one, *two}

    # An engine that has all of it is sent nothing.
    assert ship(cache, ONE, TWO) == []

    # One that has the base is sent what lies above.
    remove(ONE)
    assert ship(cache, ONE) == one[1:]
    assert docker("image", "inspect", "--format", "{{.Id}}", ONE).strip() == images[ONE]

    # One that has nothing is sent each layer once, and then has the same images.
    remove(ONE, TWO, f"{PREFIX}/base:1")
    assert ship(cache, ONE, TWO) == [*one, two[1]]
    for tag, number in images.items():
        assert docker("image", "inspect", "--format", "{{.Id}}", tag).strip() == number
        assert docker("image", "inspect", "--format", "{{.Config.Cmd}}", tag).strip() == "[/above]"

    # Saved again, they are the same files.
    before = {path.name: path.read_bytes() for path in cache.folder.glob("*.gz")}
    again = kept(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.folder.glob("*.gz")} == before


def test_a_layer_that_went_in_the_meantime_is_named(images: dict[str, str], tmp_path: Path) -> None:
    cache = kept(tmp_path)
    remove(*images, f"{PREFIX}/base:1")
    record = cache.get(ONE) or {}
    sent = record["layers"][1:]
    args = {"docker": "docker", "folder": str(cache.folder), "images": [record], "sent": sent}
    loaded = run_module(LAYERS, {"do": "load", **args})
    assert f"docker load of {ONE}: open " in loaded["msg"]
    assert record["layers"][0][7:] in loaded["msg"]


# --- a registry -----------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's registry on a free port; engines take it without TLS, because it is local."""
    program = next(debian.unpacked("docker-registry").glob("**/bin/docker-registry"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(settings))
    with (tmp_path / "registry.log").open("w") as log:
        argv = [str(program), "serve", str(tmp_path / "registry.yml")]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                with urlopen(f"http://{address}/v2/"):
                    break
            except OSError:
                assert process.poll() is None, (tmp_path / "registry.log").read_text()
                time.sleep(0.1)
        yield f"{address}/celray"
    finally:
        process.terminate()
        process.wait()


def test_hosts_pull_from_a_registry_what_the_builder_has_pushed(
    images: dict[str, str], registry: str
) -> None:
    both = {"docker": "docker", "registry": registry, "images": [ONE, TWO]}

    def absent() -> list[str]:
        found: list[str] = run_module(IMAGE, {"do": "absent", **both}, check=True)["absent"]
        return found

    assert absent() == [ONE, TWO]
    assert run_module(IMAGE, {"do": "push", **both, "images": [ONE]})["changed"] is True
    assert absent() == [TWO]
    run_module(IMAGE, {"do": "push", **both, "images": [TWO]})
    assert absent() == []

    remove(*images, f"{PREFIX}/base:1")
    pulled = run_module(IMAGE, {"do": "pull", **both})
    assert pulled["pulled"] == [ONE, TWO]
    for tag, number in images.items():
        assert docker("image", "inspect", "--format", "{{.Id}}", tag).strip() == number
    # No second tag stays, which nothing would remove.
    assert registry not in docker("images", "--format", "{{.Repository}}")
    assert run_module(IMAGE, {"do": "pull", **both})["changed"] is False


def test_a_registry_that_does_not_answer_is_one_line() -> None:
    args = {"docker": "docker", "registry": "127.0.0.1:1/celray", "images": [ONE]}
    asked = run_module(IMAGE, {"do": "absent", **args})
    assert asked["failed"]
    assert asked["msg"].startswith("images_registry: 127.0.0.1:1/celray does not answer ")
    assert "connection refused" in asked["msg"]
    assert "remove images_registry" in asked["msg"]
    assert "\n" not in asked["msg"]
