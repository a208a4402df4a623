"""The cache of the machine that deploys: images as compressed layers, each once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Long enough for several inventories that are deployed in turns.
DAYS_KEPT = 7


class LayerCache:
    """Layers by digest, and for each image a record of its config and layers.

    Parameters:
        cache: the directory images_cache_dir; the layers have one of their own in it.
    """

    def __init__(self, cache: str) -> None:
        self.folder = Path(cache).expanduser() / "layers"
        self.records = self.folder / "images"

    def layer(self, name: str) -> Path:
        """Return where a layer's file is (celray_layers, layer_file)."""
        return self.folder / f"{name.removeprefix('sha256:')}.tar.gz"

    def record(self, tag: str) -> Path:
        return self.records / f"{hashlib.sha256(tag.encode()).hexdigest()[:32]}.json"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the cache against other deployments from this machine, which tidy it as well."""
        self.records.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return a record; nothing if it, or a layer of it, is missing or damaged."""
        try:
            record = json.loads(path.read_text())
            whole = all(self.layer(layer).is_file() for layer in record["layers"])
            return {key: record[key] for key in ("tag", "config", "layers")} if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def tags(self) -> set[str]:
        """Return the images that can be sent from here."""
        found = (self.read(path) for path in self.records.glob("*.json"))
        return {record["tag"] for record in found if record}

    def layers(self) -> set[str]:
        """Return the layers that are here."""
        return {f"sha256:{path.name.removesuffix('.tar.gz')}" for path in self.folder.glob("*.gz")}

    def get(self, tag: str) -> dict[str, Any] | None:
        """Return an image's record, which is kept longer by this; nothing if it is not here."""
        path = self.record(tag)
        record = self.read(path)
        if record:
            os.utime(path)
        return record

    def put(self, images: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the records of images whose layers are here."""
        for tag, image in images.items():
            path = self.record(tag)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps({**image, "tag": tag}))
            partial.rename(path)

    def tidy(self) -> list[str]:
        """Remove images that no deploy used for a week, and layers of no image; return these."""
        oldest = time.time() - DAYS_KEPT * 24 * 3600
        layers: set[Path] = set()
        for path in sorted(self.records.iterdir()):
            record = self.read(path)
            if record and path.stat().st_mtime >= oldest:
                layers |= {self.layer(layer) for layer in record["layers"]}
            else:
                path.unlink(missing_ok=True)
        # Of a transfer that was killed.
        for partial in self.folder.glob("*.partial"):
            partial.unlink()
        removed = sorted({*self.folder.glob("*.gz")} - layers)
        for path in removed:
            path.unlink(missing_ok=True)
        return [path.name.removesuffix(".tar.gz") for path in removed]
