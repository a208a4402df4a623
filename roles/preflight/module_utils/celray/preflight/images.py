"""Check where images come from."""

from __future__ import annotations

import re
from typing import Any

from .problem import Problem

#: A host, a port and folders, as an image's name begins. Without a dot or a port, the engine takes
#: the first part for a folder of a registry of its own choice.
PLACE = re.compile(
    r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|(?:[A-Za-z0-9-]+|\[[0-9a-fA-F:]+\])(?=:\d))"
    r"(?::\d{1,5})?"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
)


def check_registry(registry: Any) -> list[Problem]:
    """Return a problem if images_registry is neither empty nor a registry's name."""
    if registry == "" or (isinstance(registry, str) and PLACE.fullmatch(registry)):
        return []
    return [
        Problem(
            f"images_registry is {registry!r}, which names no registry",
            "images_registry (your inventory)",
            "write its host and port and a folder, such as registry.example:5000/celray, without "
            "https:// and without a tag; empty sends images over SSH",
        )
    ]
