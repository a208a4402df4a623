"""``python -m ray_jobs rollback``: use an earlier version of a registered model again."""

import json
from pathlib import Path
from typing import Any

from ..files import write_json
from ..job import Reporter
from ..model import signature
from ..model.predictor import verify
from ..protocol import InputProblemError, JobRequest
from ..requests import RollbackRequest
from . import change as registry_change
from .versions import Registry

FOLDER = "rollbacks"
INTENT = "rollback.json"
TASK = "tasks.ml_tasks.rollback_model"


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Change the version in use.

    The intent is recorded first, and then its completion. So a job that replaces a killed one
    neither goes back one more version nor undoes a later change.

    Raises:
        InputProblemError: there is no version to go back to, or another version was promoted since
            this rollback began.
    """
    asked = RollbackRequest.of(request)
    change = registry_change.begin(request, asked.mlflow_uri, TASK, FOLDER, reporter.run_dir)
    if (known := change.finished()) is not None:
        return known
    kept, name = change.kept, asked.name
    intent = Path(request.runs_dir) / request.run / INTENT
    with kept.lock(lambda: reporter.progress("waiting", 0, 1, "versions are being compared")):
        meant: dict[str, Any]
        try:
            meant = json.loads(intent.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before, after = registry_change.way_back(kept, name, asked.version)
            verify(signature.find(after.model_path, request.models_dir))
            meant = {"from": before.number, "to": after.number, "done": False}
            write_json(intent, meant)
        state = kept.state(name)
        if not meant.get("done"):
            _do(meant, state.champion, name, kept)
            write_json(intent, {**meant, "done": True})
    now = state.version(meant["to"])
    result = {
        "status": "success",
        "name": name,
        "version": meant["to"],
        "model_path": now.model_path if now else None,
        "previous_version": meant["from"],
        "registry": kept.where,
        "manifest_path": str(change.manifest_path),
    }
    return {**change.report(result), "reused": False}


def _do(meant: dict[str, Any], champion: int | None, name: str, kept: Registry) -> None:
    if champion == meant["from"]:
        kept.use(name, meant["to"])
    elif champion != meant["to"]:
        raise InputProblemError(
            "version_in_use",
            f"Model {name!r} has version {champion} in use, which was put to use since this"
            f" rollback from version {meant['from']} to {meant['to']} began; it was left there.",
            "Roll back again if you still want to.",
        )
