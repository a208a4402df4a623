"""The choice between the generations of compose that a host has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def choose_compose(compose: Mapping[str, Any], wanted: str) -> dict[str, Any] | None:
    """Return the compose to use, None where the host has none that is wanted.

    Parameters:
        compose: what the host has, by generation.
        wanted: `auto` (v2 if it is there, otherwise v1), `v1` or `v2`.
    """
    order = ("v2", "v1") if wanted == "auto" else (wanted,)
    for generation in order:
        if generation in compose:
            return {"generation": generation, **compose[generation]}
    return None
