"""Python that roles share: imported by action plugins and tests as the package `celray`."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).resolve().parents[4]
