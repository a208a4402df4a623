"""One task from end to end: Celery, queue, worker, Ray, artefacts, versions."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from tasks.client.connection import answering
from tasks.client.errors import ServiceUnavailableError
from tasks.submission.jobs import submission_id

if TYPE_CHECKING:
    from tasks.client.handle import Status
    from tasks.client.sync import Client

_TIMES = ("queue_seconds", "startup_seconds", "engine_seconds")
#: Keys of a result that name a file or a folder.
_PLACES = ("_path", "_file", "_dir")


def trace(client: "Client", status: "Status") -> dict[str, Any]:
    """Combine what Redis, the worker and Ray know of a task.

    A part that does not answer is left out and named in ``unknown``.
    """
    unknown: list[str] = []
    result = status.result if isinstance(status.result, dict) else {}
    running = _running(client, status)
    worker = status.worker or running.get("worker")
    job = _job(client, status, unknown)
    info = {}
    if worker:
        with answering(client.settings):
            info = client.workers(destination=[worker]).get(worker, {})
        if not info:
            unknown.append(f"worker {worker} does not answer now")
    return {
        "id": status.id,
        "name": status.name or running.get("name"),
        "state": status.state,
        "arguments": status.meta.get("kwargs") or running.get("kwargs"),
        "queue": {
            "name": status.queue or running.get("queue"),
            "position": status.position,
            "seconds": result.get("queue_seconds"),
        },
        "worker": {
            "node": worker,
            "pid": running.get("pid"),
            "started_at": running.get("started_at"),
            "retries": status.retries,
            "code_now": (info.get("versions") or {}).get("code"),
            "code_state": info.get("code_state"),
        },
        "ray": job,
        "times": {name: result[name] for name in _TIMES if result.get(name) is not None},
        "progress": status.progress,
        "finished_at": status.finished_at,
        "error": status.error,
        "artefacts": {
            name: value
            for name, value in result.items()
            if isinstance(value, str) and name.endswith(_PLACES)
        },
        "versions": {"client": _own_versions(), "worker": info.get("versions")},
        "unknown": unknown,
    }


def _running(client: "Client", status: "Status") -> dict[str, Any]:
    """Query the workers for a task that one of them has."""
    if status.finished or status.state == "WAITING":
        return {}
    with answering(client.settings), client.app.connection_for_write() as fresh:
        inspect = client.app.control.inspect(timeout=1.0, connection=fresh)
        replies = inspect.query_task(status.id) or {}
    for node, known in replies.items():
        for where, request in known.values():
            started = request.get("time_start") if where == "active" else None
            return {
                "worker": node,
                "name": request.get("name"),
                "kwargs": request.get("kwargs"),
                "queue": (request.get("delivery_info") or {}).get("routing_key"),
                "pid": request.get("worker_pid"),
                "started_at": _iso(started * 1000 if started else None),
            }
    return {}


def _job(client: "Client", status: "Status", unknown: list[str]) -> dict[str, Any] | None:
    if not client.jobs.configured:
        if status.ray_submission_id:
            unknown.append("RAY_ADDRESS is not in the credentials: nothing of the Ray job")
            return {"submission_id": status.ray_submission_id}
        return None
    name = status.ray_submission_id or submission_id(status.id)
    try:
        details = client.jobs.details(name)
    except ServiceUnavailableError as error:
        unknown.append(str(error))
        details = None
    if details is None:
        return {"submission_id": name} if status.ray_submission_id else None
    return {
        "submission_id": name,
        "status": details.get("status"),
        "started_at": _iso(details.get("start_time")),
        "ended_at": _iso(details.get("end_time")),
        "driver_node": details.get("driver_node_id"),
        "code": (details.get("metadata") or {}).get("celray_code_version"),
        "message": (details.get("message") or "").strip().splitlines()[-1:] or None,
    }


def _iso(milliseconds: float | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _own_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("tasks", "celery", "redis"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
