"""Images are shipped by content: a layer is compressed once, and sent to a host that lacks it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celray_layer_cache import DAYS_KEPT, LayerCache
from hypothesis import given
from hypothesis import strategies as st
from parts import load, run_module

MODULE = "roles/images/library/celray_layers.py"
layers: Any = load(MODULE)
carrier: Any = load("roles/images/action_plugins/celray_layers.py")


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image(tag: str, *contents: bytes) -> dict[str, Any]:
    """An image's record, of layers with these contents."""
    names = [digest(content) for content in contents]
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": names}})
    return {"tag": tag, "config": config, "layers": names}


def members(archive: bytes) -> dict[str, bytes]:
    """The files of an archive, in their order."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = {entry.name: tar.extractfile(entry) for entry in tar if entry.isfile()}
        return {name: file.read() for name, file in found.items() if file}


# --- from docker save to layers -------------------------------------------------------------------

Form = Callable[[Path, dict[str, dict[str, Any]], dict[str, bytes]], None]


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def of_engine_20(path: Path, images: dict[str, dict[str, Any]], contents: dict[str, bytes]) -> None:
    """What engine 20.10 saves: a folder for each layer; one that is there twice is a link."""
    manifest = []
    with tarfile.open(path, "w") as tar:
        at: dict[str, str] = {}
        for tag, made in images.items():
            names = []
            for number, layer in enumerate(made["layers"]):
                name = f"{hashlib.sha256(f'{tag}{number}'.encode()).hexdigest()}/layer.tar"
                if layer in at:
                    link = tarfile.TarInfo(name)
                    link.type, link.linkname = tarfile.SYMTYPE, f"../{at[layer]}"
                    tar.addfile(link)
                else:
                    add(tar, name, contents[layer])
                at.setdefault(layer, name)
                names.append(name)
            config = f"{hashlib.sha256(made['config'].encode()).hexdigest()}.json"
            add(tar, config, made["config"].encode())
            manifest.append({"Config": config, "RepoTags": [tag], "Layers": names})
        add(tar, "manifest.json", json.dumps(manifest).encode())


def of_newer_engines(
    path: Path,
    images: dict[str, dict[str, Any]],
    contents: dict[str, bytes],
    pack: Callable[[bytes], bytes] = bytes,
) -> None:
    """What engines save since version 25: blobs by their digest, in an OCI layout."""
    manifest = []
    with tarfile.open(path, "w") as tar:
        for layer in {layer for made in images.values() for layer in made["layers"]}:
            blob = pack(contents[layer])
            add(tar, f"blobs/sha256/{digest(blob)[7:]}", blob)
        for tag, made in images.items():
            config = f"blobs/sha256/{digest(made['config'].encode())[7:]}"
            add(tar, config, made["config"].encode())
            names = [f"blobs/sha256/{digest(pack(contents[x]))[7:]}" for x in made["layers"]]
            manifest.append({"Config": config, "RepoTags": [tag], "Layers": names})
        add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add(tar, "manifest.json", json.dumps(manifest).encode())


def of_the_containerd_store(
    path: Path, images: dict[str, dict[str, Any]], contents: dict[str, bytes]
) -> None:
    """The same of an engine that keeps its layers compressed."""
    of_newer_engines(path, images, contents, lambda content: gzip.compress(content, mtime=0))


BASE, DEPS, RAY = b"base" * 5000, b"deps" * 3000, os.urandom(20_000)
CONTENTS = {digest(content): content for content in (BASE, DEPS, RAY)}
IMAGES = {
    "celray/worker-deps:1": image("celray/worker-deps:1", BASE, DEPS),
    "celray/ray:1": image("celray/ray:1", BASE, RAY),
}


@pytest.fixture
def engine(tmp_path: Path) -> Callable[[Form], str]:
    """Make a client whose `save` writes an archive of this form, and notes what it was asked."""

    def make(form: Form) -> str:
        saved = tmp_path / "saved.tar"
        form(saved, IMAGES, CONTENTS)
        client = tmp_path / "docker"
        client.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncp {saved} "$3"\n')
        client.chmod(0o755)
        return str(client)

    return make


def keep(client: str, folder: Path, have: list[str], images: list[str]) -> dict[str, Any]:
    args = {"do": "keep", "docker": client, "folder": str(folder), "have": have, "images": images}
    return run_module(MODULE, args)


@pytest.mark.parametrize("form", [of_engine_20, of_newer_engines, of_the_containerd_store])
def test_every_form_of_docker_save_becomes_the_same_layers(
    form: Form, engine: Callable[[Form], str], tmp_path: Path
) -> None:
    folder = tmp_path / "layers"
    kept = keep(engine(form), folder, [], sorted(IMAGES))
    assert kept["images"] == {
        tag: {key: made[key] for key in ("config", "layers")} for tag, made in IMAGES.items()
    }
    files = {path.name: gzip.decompress(path.read_bytes()) for path in folder.iterdir()}
    assert files == {f"{layer[7:]}.tar.gz": content for layer, content in CONTENTS.items()}
    assert kept["made"] == {
        layer: (folder / f"{layer[7:]}.tar.gz").stat().st_size for layer in CONTENTS
    }
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    # Each image is saved once, all of them by one call.
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_a_layer_that_is_there_is_not_compressed_again(
    engine: Callable[[Form], str], tmp_path: Path
) -> None:
    folder = tmp_path / "layers"
    folder.mkdir()
    there = folder / f"{digest(DEPS)[7:]}.tar.gz"
    there.write_bytes(b"as an earlier run left it")
    (folder / "save-killed").mkdir()
    kept = keep(engine(of_engine_20), folder, [digest(BASE)], sorted(IMAGES))
    assert set(kept["made"]) == {digest(DEPS), digest(RAY)}
    assert there.read_bytes() == b"as an earlier run left it"
    assert sorted(folder.iterdir()) == sorted(
        folder / f"{digest(content)[7:]}.tar.gz" for content in (DEPS, RAY)
    )


def test_a_layer_that_is_not_what_its_name_says_is_not_kept(
    engine: Callable[[Form], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONTENTS, digest(RAY), b"other files")
    kept = keep(engine(of_engine_20), tmp_path / "layers", [], ["celray/ray:1"])
    assert kept["failed"]
    assert f"wrote {digest(b'other files')} for layer {digest(RAY)}" in kept["msg"]
    assert [path.name for path in (tmp_path / "layers").iterdir()] == [f"{digest(BASE)[7:]}.tar.gz"]


def test_an_image_that_docker_save_left_out_is_named(
    engine: Callable[[Form], str], tmp_path: Path
) -> None:
    kept = keep(engine(of_engine_20), tmp_path / "layers", [], ["celray/ray:1", "celray/redis:1"])
    assert kept["msg"] == "docker save wrote no image celray/redis:1"


def test_an_archive_of_an_unknown_form_is_one_error(
    engine: Callable[[Form], str], tmp_path: Path
) -> None:
    def nothing(path: Path, *_: Any) -> None:
        with tarfile.open(path, "w") as tar:
            add(tar, "oci-layout", b"{}")

    kept = keep(engine(nothing), tmp_path / "layers", [], ["celray/ray:1"])
    assert kept["msg"] == "docker save wrote no manifest.json: this engine is not known"


@given(st.binary(max_size=300), st.integers(1, 90))
def test_a_layer_in_any_number_of_parts_is_one_gzip_file(content: bytes, part: int) -> None:
    before, layers.PART_BYTES = layers.PART_BYTES, part
    try:
        packed, again, copied = io.BytesIO(), io.BytesIO(), io.BytesIO()
        assert layers.compress(io.BytesIO(content), packed) == digest(content)
        layers.compress(io.BytesIO(content), again)
        assert packed.getvalue() == again.getvalue(), "the same layer is the same file"
        if content:
            assert gzip.decompress(packed.getvalue()) == content
            packed.seek(0)
            assert layers.copy_compressed(packed, copied) == digest(content)
            assert copied.getvalue() == packed.getvalue()
    finally:
        layers.PART_BYTES = before


# --- from layers to docker load -------------------------------------------------------------------


def test_an_archive_holds_manifest_configs_and_the_sent_layers_byte_for_byte(
    tmp_path: Path,
) -> None:
    for layer, content in CONTENTS.items():
        (tmp_path / f"{layer[7:]}.tar.gz").write_bytes(gzip.compress(content, mtime=0))
    made, again = io.BytesIO(), io.BytesIO()
    layers.write_archive(made, IMAGES.values(), [digest(DEPS), digest(RAY)], str(tmp_path))
    layers.write_archive(again, IMAGES.values(), [digest(DEPS), digest(RAY)], str(tmp_path))
    assert made.getvalue() == again.getvalue()
    files = members(made.getvalue())
    configs = {digest(x["config"].encode())[7:] + ".json": x["config"] for x in IMAGES.values()}
    assert list(files) == [
        *configs,
        f"{digest(DEPS)[7:]}.tar.gz",
        f"{digest(RAY)[7:]}.tar.gz",
        "manifest.json",
    ]
    assert {name: files[name].decode() for name in configs} == configs, "an id is a config's digest"
    assert gzip.decompress(files[f"{digest(RAY)[7:]}.tar.gz"]) == RAY
    assert json.loads(files["manifest.json"]) == [
        {
            "Config": config,
            "RepoTags": [made["tag"]],
            "Layers": [f"{layer[7:]}.tar.gz" for layer in made["layers"]],
        }
        for config, made in zip(configs, IMAGES.values(), strict=True)
    ]


def test_a_loader_that_ends_early_is_quoted(tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text(
        "#!/bin/sh\ncase $1 in load) echo no space left on device >&2; exit 1;; esac\n"
    )
    client.chmod(0o755)
    (tmp_path / f"{digest(RAY)[7:]}.tar.gz").write_bytes(os.urandom(3_000_000))
    args = {
        "do": "load",
        "docker": str(client),
        "folder": str(tmp_path),
        "images": [IMAGES["celray/ray:1"]],
        "sent": [digest(RAY)],
    }
    loaded = run_module(MODULE, args)
    assert loaded["msg"] == "docker load of celray/ray:1: no space left on device"


A, B, C = (digest(name) for name in (b"a", b"b", b"c"))


@pytest.mark.parametrize(
    ("chains", "absent"),
    [
        ([], [A, B, C]),
        ([[A]], [B, C]),
        ([[A, B]], [C]),
        ([[A, B], [A, C]], []),
        # The same files on another base are another layer for the engine.
        ([[B], [C]], [A, B, C]),
        ([[C, A, B]], [A, B, C]),
    ],
)
def test_what_is_sent_is_what_the_engine_lacks_in_that_order(
    chains: list[list[str]], absent: list[str]
) -> None:
    images = [image("one", b"a", b"b"), image("two", b"a", b"c")]
    assert carrier.absent_layers(images, chains) == absent


def test_the_engine_tells_the_layers_of_all_its_images(tmp_path: Path) -> None:
    client = tmp_path / "docker"
    client.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "words = sys.argv[1:]\n"
        "if words[:2] == ['images', '-aq']: print('2\\n1\\n2')\n"
        "elif words[0] == 'images': print('celray/ray:1 sha256:1')\n"
        "elif words[0] == 'info': print(open(sys.argv[0] + '.status').read())\n"
        f"else: print('{json.dumps([A, B])}'); print('null')\n"
    )
    client.chmod(0o755)
    status = tmp_path / "docker.status"
    status.write_text('[["Backing Filesystem","extfs"]]')
    args = {"do": "look", "docker": str(client)}
    looked = run_module(MODULE, args, check=True)
    assert (looked["tags"], looked["chains"]) == (["celray/ray:1"], [[], [A, B]])

    # This store refuses an archive that leaves layers out, so it is sent all of them.
    status.write_text('[["driver-type","io.containerd.snapshotter.v1"]]')
    assert run_module(MODULE, args)["chains"] == []


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    """A cache with both images."""
    made = LayerCache(str(tmp_path))
    with made.alone():
        for layer in CONTENTS:
            made.layer(layer).write_bytes(b"layer")
        made.put(IMAGES)
    return made


def age(path: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))


def test_the_cache_gives_what_it_was_given(cache: LayerCache) -> None:
    assert cache.tags() == set(IMAGES)
    assert cache.layers() == set(CONTENTS)
    assert cache.get("celray/ray:1") == IMAGES["celray/ray:1"]
    assert cache.get("celray/ray:2") is None
    assert LayerCache(str(cache.folder / "nowhere")).tags() == set()


def test_an_image_whose_layer_was_removed_is_not_in_the_cache(cache: LayerCache) -> None:
    cache.layer(digest(RAY)).unlink()
    assert cache.tags() == {"celray/worker-deps:1"}
    cache.record("celray/worker-deps:1").write_text("{")
    assert cache.tags() == set()


def test_layers_of_no_image_are_removed_and_shared_ones_stay(cache: LayerCache) -> None:
    age(cache.record("celray/ray:1"), DAYS_KEPT - 1)
    assert cache.tidy() == []
    age(cache.record("celray/ray:1"), DAYS_KEPT + 1)
    partial = cache.folder / "killed.tar.partial"
    partial.touch()
    assert cache.tidy() == [digest(RAY)[7:]]
    assert cache.tags() == {"celray/worker-deps:1"}
    assert cache.layers() == {digest(BASE), digest(DEPS)}
    assert not partial.exists()


def test_an_image_that_is_sent_is_kept_for_another_week(cache: LayerCache) -> None:
    age(cache.record("celray/ray:1"), DAYS_KEPT + 1)
    assert cache.get("celray/ray:1")
    assert cache.tidy() == []
