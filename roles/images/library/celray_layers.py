#!/usr/bin/python
"""Ship images by content: each layer compressed once, and only layers that a host lacks sent."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celray_layers
short_description: Take images apart into compressed layers, and load them from such layers
options:
  do:
    description: >-
      The step. look: which images and layers this engine has; keep: save images and compress their
      layers into the folder; load: load images from layers in the folder; drop: remove the folder.
    choices: [look, keep, load, drop]
    required: true
  docker: {description: The engine's client, type: str, required: true}
  folder: {description: "keep, load, drop: the directory of the layers", type: path}
  images:
    description: "keep: tags; load: for each image tag, config and layers"
    type: list
    elements: raw
    default: []
  have: {description: "keep: layers that need no file", type: list, elements: str, default: []}
  sent:
    description: "load: layers whose files are in the folder"
    type: list
    elements: str
    default: []
author: celray
"""

EXAMPLES = r"""
- name: See which layers the engine has
  celray_layers: {do: look, docker: docker}
"""

RETURN = r"""
tags: {description: "look: the tags that are there", returned: when looked, type: list}
chains:
  description: "look: the layers of every image, from the lowest; an archive may leave them out"
  returned: when looked
  type: list
images: {description: "keep: tag to config and layers", returned: when kept, type: dict}
made: {description: "keep: layer to the size of its file", returned: when kept, type: dict}
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, cast

from ansible.module_utils import celray_client  # type: ignore[attr-defined]  # our own
from ansible.module_utils.basic import AnsibleModule

StepError = celray_client.StepError

PART_BYTES = 4 << 20
#: Any engine reads gzip; engine 20.10 refuses zstd. Level 1 is the fastest: a deploy waits for it.
LEVEL = 1
#: How the directories begin in which a layer is not finished yet.
WORK = "save-"
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"


def layer_file(folder: str, layer: str) -> str:
    """Return where the file of a layer is kept; a layer's name is the digest of its content."""
    return os.path.join(folder, layer.removeprefix("sha256:") + ".tar.gz")


# --- which layers an engine has -------------------------------------------------------------------


def look(params: dict[str, Any]) -> dict[str, Any]:
    """Return this engine's tags, and the layers of each of its images."""
    docker = params["docker"]
    ids = sorted(set(celray_client.call(docker, "images", "-aq", "--no-trunc").split()))
    chains: list[list[str]] = []
    # The containerd image store does not load an archive that leaves layers out.
    status = celray_client.call(docker, "info", "--format", "{{json .DriverStatus}}")
    if ids and "io.containerd.snapshotter" not in status:
        rows = celray_client.call(
            docker, "image", "inspect", "--format", "{{json .RootFS.Layers}}", *ids
        ).splitlines()
        chains = [json.loads(row) or [] for row in rows]
    return {
        "changed": False,
        "tags": sorted(celray_client.list_images(docker)),
        "chains": sorted(chains),
    }


# --- from an engine to compressed layers ----------------------------------------------------------


def compressed(part: bytes) -> bytes:
    """Return a part as a gzip member without a time, so that the same layer is the same file."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(part) + packer.flush()


def parts_of(source: IO[bytes]) -> Iterator[bytes]:
    while part := source.read(PART_BYTES):
        yield part


def compress(source: IO[bytes], target: IO[bytes]) -> str:
    """Write a layer compressed; return the digest of its content.

    Its parts are compressed side by side: zlib lets go of Python's lock, and gzip members that
    follow each other are one gzip file.
    """
    content = hashlib.sha256()
    workers = os.cpu_count() or 1
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for part in parts_of(source):
            waiting.append(pool.submit(compressed, part))
            content.update(part)
            # Bounded, so that a large layer is not in memory as a whole.
            if len(waiting) > workers:
                target.write(waiting.popleft().result())
        for job in waiting:
            target.write(job.result())
    return "sha256:" + content.hexdigest()


def copy_compressed(source: IO[bytes], target: IO[bytes]) -> str:
    """Write a layer that is compressed already; return the digest of its content."""
    content = hashlib.sha256()
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for part in parts_of(source):
        target.write(part)
        rest = part
        while rest:
            content.update(unpacker.decompress(rest))
            rest = unpacker.unused_data
            if unpacker.eof:
                unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    return "sha256:" + content.hexdigest()


def keep_layer(archive: tarfile.TarFile, name: str, layer: str, work: str) -> str:
    """Write one layer of an archive compressed; return the file, which is in the work directory."""
    source = archive.extractfile(name)
    if source is None:
        raise StepError(f"docker save wrote no file {name} for layer {layer}")
    start = source.read(len(ZSTD))
    source.seek(0)
    if start == ZSTD:
        raise StepError(
            f"layer {layer} is compressed with zstd, which not every engine loads: build the image "
            "without (no compression=zstd), or use images_source: distro"
        )
    path = layer_file(work, layer)
    with open(path, "wb") as partial:
        # The containerd image store saves layers as it keeps them.
        write = copy_compressed if start.startswith(GZIP) else compress
        found = write(source, partial)
    if found != layer:
        raise StepError(f"docker save wrote {found} for layer {layer}: docker image rm it")
    return path


def described(archive: tarfile.TarFile) -> list[dict[str, Any]]:
    """Return tags, config and layers of each image in an archive of `docker save`."""

    def text(name: str) -> str:
        try:
            file = archive.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise StepError(f"docker save wrote no {name}: this engine is not known")
        return file.read().decode()

    found = []
    for image in json.loads(text("manifest.json")):
        config = text(image["Config"])
        layers = json.loads(config)["rootfs"]["diff_ids"]
        found.append(
            {
                "tags": image["RepoTags"] or [],
                "config": config,
                "layers": layers,
                "names": dict(zip(layers, image["Layers"], strict=True)),
            }
        )
    return found


def keep(params: dict[str, Any]) -> dict[str, Any]:
    """Save images once, and compress each of their layers that has no file yet."""
    folder, wanted = params["folder"], params["images"]
    os.makedirs(folder, exist_ok=True)
    # What a run left that was killed here.
    for name in os.listdir(folder):
        if name.startswith(WORK):
            shutil.rmtree(os.path.join(folder, name))
    images: dict[str, Any] = {}
    made: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=WORK) as work:
        saved = os.path.join(work, "images.tar")
        celray_client.call(params["docker"], "save", "-o", saved, *wanted)
        with tarfile.open(saved) as archive:
            for image in described(archive):
                tags = set(image["tags"]) & set(wanted)
                for layer in image["layers"] if tags else []:
                    if layer in params["have"]:
                        continue
                    path = layer_file(folder, layer)
                    if not os.path.exists(path):
                        os.rename(keep_layer(archive, image["names"][layer], layer, work), path)
                    made[layer] = os.path.getsize(path)
                for tag in tags:
                    images[tag] = {"config": image["config"], "layers": image["layers"]}
    if missing := sorted(set(wanted) - set(images)):
        raise StepError(f"docker save wrote no image {', '.join(missing)}")
    return {"changed": True, "images": images, "made": made}


# --- from compressed layers to an engine ----------------------------------------------------------


def add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    """Add a file to an archive, with nothing in it that depends on where it is written."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    archive.addfile(entry, content)


def write_archive(
    target: IO[bytes], images: Iterable[Mapping[str, Any]], sent: Iterable[str], folder: str
) -> None:
    """Write images as `docker load` reads them, with the sent layers alone.

    The engine decompresses each layer by itself, and takes a layer that it has without a file.
    """
    with tarfile.open(
        fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20
    ) as archive:
        manifest = []
        configs: dict[str, bytes] = {}
        for image in images:
            content = str(image["config"]).encode()
            name = hashlib.sha256(content).hexdigest() + ".json"
            configs[name] = content
            layers = [os.path.basename(layer_file(folder, layer)) for layer in image["layers"]]
            manifest.append({"Config": name, "RepoTags": [image["tag"]], "Layers": layers})
        for name, content in configs.items():
            add(archive, name, len(content), io.BytesIO(content))
        for layer in sent:
            path = layer_file(folder, layer)
            with open(path, "rb") as file:
                add(archive, os.path.basename(path), os.path.getsize(path), file)
        content = json.dumps(manifest).encode()
        add(archive, "manifest.json", len(content), io.BytesIO(content))


def load(params: dict[str, Any]) -> dict[str, Any]:
    """Load images from the layers in the folder and those that the engine has."""
    argv = [params["docker"], "load", "--quiet"]
    with tempfile.TemporaryFile() as said:
        loader = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=said, stderr=said)
        # A loader that ends early says why itself.
        with contextlib.suppress(BrokenPipeError), loader:
            write_archive(
                cast("IO[bytes]", loader.stdin), params["images"], params["sent"], params["folder"]
            )
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    tags = [image["tag"] for image in params["images"]]
    absent = sorted(set(tags) - set(celray_client.list_images(params["docker"])))
    if loader.returncode or absent:
        raise StepError(f"docker load of {', '.join(absent or tags)}: {words or 'no word'}")
    return {"changed": True}


def drop(params: dict[str, Any]) -> dict[str, Any]:
    there = os.path.isdir(params["folder"])
    shutil.rmtree(params["folder"], ignore_errors=True)
    return {"changed": there}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "do": {"choices": ["look", "keep", "load", "drop"], "required": True},
            "docker": {"type": "str", "required": True},
            "folder": {"type": "path"},
            "images": {"type": "list", "elements": "raw", "default": []},
            "have": {"type": "list", "elements": "str", "default": []},
            "sent": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    do = module.params["do"]
    if module.check_mode and do != "look":
        module.exit_json(changed=True)
    # Whoever fetches the layers may be another user than the one who reaches the engine.
    os.umask(0o022)
    try:
        module.exit_json(
            **{"look": look, "keep": keep, "load": load, "drop": drop}[do](module.params)
        )
    except StepError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
