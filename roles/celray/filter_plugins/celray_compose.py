"""The generation of compose that a deployment uses, by preflight's own rule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[3]
# Ansible finds the Python of a role for modules alone, not for what runs on this machine.
sys.path[:0] = [str(REPO / "roles/preflight/module_utils")]
from celray.compose import choose_compose


class FilterModule:
    """Return the filter to Ansible."""

    def filters(self) -> dict[str, Any]:
        return {"celray_chosen_compose": choose_compose}
