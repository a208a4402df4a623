"""Carry compressed layers from the builder to this machine's cache, and from there to each host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible adds a role's Python to the path only for modules, not for code on the control node.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "module_utils")]
from celray_layer_cache import LayerCache


class ShipError(Exception):
    """Layers that cannot be carried; the message is for the operator."""


def absent_layers(images: Iterable[Mapping[str, Any]], chains: Iterable[list[str]]) -> list[str]:
    """Return the layers that have to be sent for images, each once.

    An engine has a layer only together with all layers below it: the same files on another base
    have to be sent.

    Parameters:
        chains: the layers of each image that the engine has, from the lowest.
    """
    held = {tuple(chain[: end + 1]) for chain in chains for end in range(len(chain))}
    absent: dict[str, None] = {}
    for image in images:
        for end, layer in enumerate(image["layers"]):
            below = tuple(image["layers"][: end + 1])
            if below not in held:
                held.add(below)
                absent[layer] = None
    return list(absent)


class ActionModule(ActionBase):
    """Run on the builder, `do: keep`; then on each host, `do: ship`.

    Arguments: docker; cache, a directory of this machine; folder, for keep one of a builder that is
    another machine; images, the tags to keep or to ship; builder, for an error of ship.
    """

    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return result | {"changed": True}
        cache = LayerCache(self._task.args["cache"])
        self.variables = task_vars or {}
        try:
            return result | (
                self.keep(cache) if self._task.args["do"] == "keep" else self.ship(cache)
            )
        except ShipError as error:
            return result | {"failed": True, "msg": str(error)}

    def step(self, **args: Any) -> dict[str, Any]:
        """Run the module on the task's host.

        Raises:
            ShipError: it failed.
        """
        done: dict[str, Any] = self._execute_module(
            module_name="celray_layers",
            module_args={"docker": self._task.args["docker"], **args},
            task_vars=self.variables,
        )
        if done.get("failed"):
            raise ShipError(str(done.get("msg", "failed")))
        return done

    def keep(self, cache: LayerCache) -> dict[str, Any]:
        """Bring the builder's images into this machine's cache, each layer compressed once."""
        args = self._task.args
        here = self._connection.transport == "local"
        with cache.alone():
            folder = str(cache.folder) if here else args["folder"]
            # Another deployment from this machine may have kept them while this one waited.
            images = sorted(set(args["images"]) - cache.tags())
            if not images:
                return {"changed": False}
            have = sorted(cache.layers())
            kept = self.step(do="keep", images=images, folder=folder, have=have)
            if not here:
                self.fetch(cache, folder, kept["made"])
                self.step(do="drop", folder=folder)
            cache.put(kept["images"])
            removed = cache.tidy()
        return {"changed": True, "kept": sorted(kept["images"]), "removed": removed}

    def fetch(self, cache: LayerCache, folder: str, made: Mapping[str, int]) -> None:
        for layer, size in made.items():
            path = cache.layer(layer)
            partial = path.with_suffix(".partial")
            there = self._connection._shell.join_path(folder, path.name)
            self._connection.fetch_file(there, str(partial))
            if (found := partial.stat().st_size) != size:
                raise ShipError(f"of layer {layer}, {found} of {size} bytes came from the builder")
            os.replace(partial, path)

    def ship(self, cache: LayerCache) -> dict[str, Any]:
        """Send this host the layers that it lacks, and load its images."""
        seen = self.step(do="look")
        wanted = sorted(set(self._task.args["images"]) - set(seen["tags"]))
        if not wanted:
            return {"changed": False}
        records = {tag: cache.get(tag) for tag in wanted}
        if gone := [tag for tag, record in records.items() if not record]:
            raise ShipError(
                f"{', '.join(gone)}: not in {cache.folder}, because the build host "
                f"({self._task.args['builder']}) made none; its error is above, or run it again"
            )
        images = [record for record in records.values() if record]
        layers = absent_layers(images, seen["chains"])
        folder = self._make_tmp_path()
        size = 0
        for layer in layers:
            path = cache.layer(layer)
            size += path.stat().st_size
            self._connection.put_file(
                str(path), self._connection._shell.join_path(folder, path.name)
            )
        self.step(do="load", images=images, sent=layers, folder=folder)
        what = f"{len(layers)} layer{'' if len(layers) == 1 else 's'}, {size / 1e6:.1f} MB"
        line = f"  {self.variables['inventory_hostname']} was sent {what} of {', '.join(wanted)}\n"
        return {"changed": True, "sent": layers, "bytes": size, "diff": {"prepared": line}}
