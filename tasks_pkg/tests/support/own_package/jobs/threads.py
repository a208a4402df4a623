"""Says how many threads a job's process begins for XGBoost, when it asks for some."""

from pathlib import Path
from typing import Any

import numpy as np
from ray_jobs.job import Reporter
from ray_jobs.protocol import JobRequest
from ray_jobs.training.boosting import Matrix, grow

THREADS = Path("/proc/self/task")


def main(request: JobRequest, _reporter: Reporter) -> dict[str, Any]:
    """Grow a tree."""
    drawn = np.random.default_rng(1).normal(size=(10_000, 3)).astype(np.float32)
    matrix = Matrix(drawn[:, :2], drawn[:, 2], ["a", "b"], ["q", "q"])
    before = len(list(THREADS.iterdir()))
    grow(matrix, {"tree_method": "hist", "nthread": request.parameters["threads"]}, 1, tell=False)
    return {"begun": len(list(THREADS.iterdir())) - before}
