"""``python -m ray_jobs rollback``: put an earlier version of a registered model to use again."""

import json
from pathlib import Path
from typing import Any

from . import registry, signature
from .files import write_json
from .job import Reporter
from .predictor import verify
from .protocol import JobRequest

FOLDER = "rollbacks"
INTENT = "rollback.json"
TASK = "tasks.ml_tasks.rollback_model"


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Change the version in use.

    What is meant is written down first: a job that takes the place of a killed one does not go
    back one more.

    Args:
        request: its parameters are ``name``, ``version`` and ``mlflow_uri``.
        reporter: told of the phase.

    Returns:
        The task's result, but for what only the submitter knows.
    """
    parameters = request.parameters
    change = registry.begin(request, TASK, FOLDER, reporter.run_dir)
    if (known := change.finished()) is not None:
        return known
    kept, name = change.kept, parameters["name"]
    intent = Path(request.runs_dir) / request.run / INTENT
    with kept.lock(lambda: reporter.progress("waiting", 0, 1, "a retraining is under way")):
        meant: dict[str, int]
        try:
            meant = json.loads(intent.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before, after = registry.way_back(kept, name, parameters["version"])
            verify(signature.find(after.model_path, request.models_dir))
            meant = {"from": before.number, "to": after.number}
            write_json(intent, meant)
        state = kept.state(name)
        if state.champion != meant["to"]:
            kept.use(name, meant["to"])
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
