"""Resolve a caller's path, and check that it stays under the roots. Standard library only.

The worker checks before a job is submitted, and the job checks again; both must agree.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..protocol import InputProblemError

#: The limits of Linux (PATH_MAX, NAME_MAX).
LIMIT_BYTES, NAME_LIMIT_BYTES = 4096, 255


def inside(text: str, parameter: str, roots: Sequence[str]) -> Path:
    """Return the path under the roots that a parameter names; a relative one is under the first.

    Raises:
        InputProblemError: not a path, or one that leads out of the roots once every link and ``..``
            is followed.
    """
    places = " or ".join(roots)
    try:
        length = len(os.fsencode(text))
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can contain
        length = 0
    if not length or "\0" in text or not text.strip():
        raise InputProblemError(
            "path_invalid", f"{parameter} {text!r} is not a path.", f"Give one under {places}."
        )
    if length > LIMIT_BYTES:
        raise InputProblemError(
            "path_invalid",
            f"{parameter} '{text[:60]}...' is {length} bytes long; a path has at most"
            f" {LIMIT_BYTES}.",
            f"Give one under {places}.",
        )
    longest = max((len(os.fsencode(part)) for part in Path(text).parts), default=0)
    if longest > NAME_LIMIT_BYTES:
        raise InputProblemError(
            "path_invalid",
            f"{parameter} '{text[:60]}...' has a name of {longest} bytes in it; a name has at most"
            f" {NAME_LIMIT_BYTES}.",
            "Give a shorter one.",
        )
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise InputProblemError(
            "path_invalid", f"{parameter} {text!r} is a URL.", f"Only files under {places}."
        )
    path = Path(os.path.normpath(Path(roots[0]) / text))
    require_inside(path, f"{parameter} {text!r}", roots)
    return path


def require_inside(path: Path, shown: str, roots: Sequence[str]) -> None:
    """Refuse a path that leads out of the roots.

    Args:
        path: the path.
        shown: its name in error messages.
        roots: folders that it must be in once every link and ``..`` is followed.

    Raises:
        InputProblemError: tells where it leads.
    """
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        raise InputProblemError(
            "path_outside_roots",
            f"{shown} leads to {real}, which is outside {' and '.join(roots)}.",
            "Copy the data there; a link that leads out is not followed.",
        )


def require_apart(path: Path, shown: str, folder: str) -> None:
    """Refuse a path below a folder, whichever name, link or mount leads there.

    Args:
        path: the path.
        shown: its name in error messages.
        folder: the folder.

    Raises:
        InputProblemError: the path leads there.
    """
    real = Path(os.path.realpath(path))
    try:
        kept = Path(folder).stat()
    except OSError:  # the folder does not exist, so nothing is below it
        return
    for parent in (real, *real.parents):
        try:
            found = parent.stat()
        except OSError:
            continue
        if os.path.samestat(found, kept):
            raise InputProblemError(
                "path_outside_roots",
                f"{shown} leads below {folder}, where models and what they are judged by are kept.",
                "Give a place among the datasets that is not below it.",
            )
