"""A Celery worker as the manual's first page makes it: the yardstick for ``ping``.

Runs inside the deployed worker image, so that Python, libraries and container are the same and only
the settings differ. The URLs come from a mounted file, never from the environment.
"""

from pathlib import Path

from celery import Celery

BROKER, BACKEND = Path("/run/bench/urls").read_text(encoding="utf-8").split()
app = Celery("stock", broker=BROKER, backend=BACKEND)


@app.task(name="stock.ping")  # type: ignore[untyped-decorator]  # celery has no types
def ping() -> dict[str, str]:
    """Answer with something of a real answer's shape."""
    return {"status": "pong", "worker": "stock"}
