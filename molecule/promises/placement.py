"""What the scenario `cluster` places where."""

from __future__ import annotations

#: Containers by host (molecule.yml, operator/).
PLACED = {
    "worker-1": {"celery-worker-ml", "celery-worker-data", "celery-worker-default"},
    "worker-2": {"celery-worker-data", "celery-worker-default", "ray-node"},
    "ray": {"ray-head"},
    "broker": {"redis-celery", "celery-beat", "flower"},
}
