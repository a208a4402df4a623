"""``process_new_data``: convert every file delivered to ``/datasets/new/`` to checked Parquet.

Processing reads the whole file, checks every row against the header, and decides the columns'
types. It writes ``/datasets/processed/<name>-<digest>.parquet`` with a manifest, and summarises the
columns. The same content is processed once, however often and under whatever names it is delivered.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from .. import artefacts
from ..accounting import First, require_few
from ..aggregation import job as aggregation_job
from ..csv import text as csv_text
from ..csv.dialect import CsvOptions
from ..files import sha256, write_json
from ..inputs import paths, sources
from ..job import Reporter
from ..large_csv import job as large_csv_job
from ..protocol import InputProblemError, JobRequest
from ..requests import InboxRequest, ProcessCsvRequest
from . import claims
from .claims import Inbox

TASK = "tasks.data_tasks.process_new_data"

#: The most files that one run takes; the next run takes the rest.
MOST_FILES = 500

NEW, PROCESSED = "new", "processed"

#: The suffix of the file with a failure's reason, and the extra bytes of its temporary name.
REASON, TEMPORARY_BYTES = ".reason.json", 16


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Take the delivered files, and process them one by one, each on all CPUs."""
    asked = InboxRequest.of(request)
    root = Path(request.datasets_dir)
    for name in (NEW, PROCESSED):
        paths.inside(name, "the folder", (request.datasets_dir, request.models_dir))
    inbox = Inbox(
        root / NEW,
        request.submission_id,
        asked.settle_seconds,
        asked.stale_seconds,
    )
    processed = root / PROCESSED
    # The name is the task's, not the attempt's: an attempt that replaces a lost one finds its
    # claim.
    manifest_path = processed / ".runs" / f"{request.run}.json"
    if (known := artefacts.finished(manifest_path)) is not None:
        return {**known, "reused": True}
    artefacts.require_writable(root / NEW, processed)
    run = _Run(request, asked.csv, processed, reporter)
    files: list[dict[str, Any]] = []
    with inbox.opened():
        taken, waiting = inbox.take(MOST_FILES)
        for number, path in enumerate(taken):
            reporter.progress("processing", number, len(taken), f"files; now {path.name}")
            files.append(_one(inbox, path, run))
    reporter.progress("processing", len(taken), len(taken), "files")
    waiting += [file["file"] for file in files if file["status"] == "waiting"]
    files = [file for file in files if file["status"] != "waiting"]
    counts = {
        status: sum(file["status"] == status for file in files)
        for status in ("done", "duplicate", "failed")
    }
    result = {
        "status": "success",
        "files": files,
        **counts,
        "waiting": waiting,
        "warnings": [
            f"{file['file']}: {text}"
            for file in files
            for text in ([file["reason"]] if file["reason"] else file.get("warnings", ()))
        ],
        "manifest_path": str(manifest_path),
        "reused": False,
    }
    manifest_path.parent.mkdir(exist_ok=True)
    manifest = {**artefacts.identity(request, TASK), "files": {}, "result": result}
    write_json(manifest_path, manifest)
    return result


@dataclass(frozen=True)
class _Run:
    """What all files of a run share.

    Attributes:
        request: the job's request.
        csv: the caller's CSV options.
        processed: the output folder.
        reporter: receives the progress of each file's job.
    """

    request: JobRequest
    csv: CsvOptions
    processed: Path
    reporter: Reporter


def _one(inbox: Inbox, path: Path, run: _Run) -> dict[str, Any]:
    """Process one claimed file, and move it to the folder of its outcome."""
    started = time.monotonic()
    report: dict[str, Any] = {"file": path.name, "reason": None, "output": None, "rows": None}
    try:
        digest = sha256(path)
    except PermissionError:
        reason = (
            f"{path.name} cannot be read by user {os.getuid()}."
            " Let that user read it (chmod a+r), and deliver it again."
        )
        return {**report, **_aside(inbox, path, "file_unreadable", reason)}
    report["sha256"] = digest
    key = _key(digest, path, run.csv)
    against = inbox.begin(key, path)
    if against is not None and against["state"] == "processing":
        return {**report, "status": "waiting"}  # the same content, by another run, just now
    if against is not None:
        claims.move(path, inbox.done)
        same = {name: against.get(name) for name in ("output", "rows")}
        return {**report, **same, "status": "duplicate", "of": against["file"]}
    try:
        made = _process(path, digest, run)
    except InputProblemError as error:
        reason = str(error).replace(str(path), path.name)
        inbox.conclude(key, {"state": "failed", "file": path.name, "reason": reason})
        return {**report, **_aside(inbox, path, error.kind, reason, digest)}
    except BaseException:
        inbox.release(key)  # the cluster failed or the job was stopped: the file stays delivered
        raise
    inbox.conclude(key, {"state": "done", "file": path.name, **made})
    claims.move(path, inbox.done)
    seconds = round(time.monotonic() - started, 3)
    return {**report, **made, "status": "done", "seconds": seconds}


def _key(digest: str, path: Path, options: CsvOptions) -> str:
    """Return the ledger's key of a content, which includes the given CSV options.

    So a file that was read wrongly can be delivered again with the right options.
    """
    said = options.given()
    if not said or path.suffix.lower() == ".parquet":
        return digest
    return hashlib.sha256(f"{digest} {json.dumps(said, sort_keys=True)}".encode()).hexdigest()


def _aside(
    inbox: Inbox, path: Path, kind: str, reason: str, digest: str | None = None
) -> dict[str, Any]:
    """Move an unusable file to the failed files, with the reason."""
    there = claims.move(path, inbox.failed)
    note = {"file": path.name, "sha256": digest, "kind": kind, "reason": reason}
    write_json(there.with_name(_reason_name(there.name)), note)
    return {"sha256": digest, "status": "failed", "reason": reason}


def _reason_name(name: str) -> str:
    limit = claims.NAME_LIMIT_BYTES - TEMPORARY_BYTES
    if len(os.fsencode(name + REASON)) <= limit:
        return name + REASON
    mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]  # for names with the same beginning
    return claims.fitting(name, f"-{mark}{REASON}", limit)


def _process(path: Path, digest: str, run: _Run) -> dict[str, Any]:
    """Write the Parquet file of one delivered file.

    Raises:
        InputProblemError: the file cannot be used.
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name.split(".")[0]).strip("-.")[:60] or "file"
    output = run.processed / f"{stem}-{_key(digest, path, run.csv)[:12]}.parquet"
    if path.stat().st_size == 0:
        raise InputProblemError("file_empty", f"{path.name} is empty (0 bytes).")
    warnings: list[str] = []
    rejected, rejects = 0, None
    if sources.require_format(path, "/datasets/new") == "parquet":
        summary = aggregation_job.summarise(
            aggregation_job.Wanted((), None), aggregation_job.Item(path.name, path)
        )
        temporary = output.with_name(f".{output.name}.{run.request.submission_id}.tmp")
        shutil.copyfile(path, temporary)
        temporary.replace(output)
        rows = summary.rows
        warnings += [
            f"column {name!r} was taken over as it is, and only counted: it {what}"
            for name, what in summary.odd.items()
        ]
    else:
        converted = _converted(path, output, run)
        rows, rejected = converted["rows_written"], converted["rows_rejected"]
        rejects = converted["rejects_file"]
        warnings = [*_put_aside(path, output, converted), *converted["warnings"]]
        summary = aggregation_job.summarise(
            aggregation_job.Wanted((), None), aggregation_job.Item(path.name, output)
        )
    manifest = {
        **artefacts.identity(run.request, TASK),
        "digest": digest,
        "inputs": [{"name": path.name, "sha256": digest, "bytes": path.stat().st_size}],
        "files": {
            file.name: {"sha256": sha256(file), "bytes": file.stat().st_size}
            for file in (output, *([Path(rejects)] if rejects else []))
        },
        "result": {
            "rows": rows,
            "rows_rejected": rejected,
            "columns": aggregation_job.describe(summary),
            "warnings": warnings,
        },
    }
    manifest_path = output.with_name(f"{output.name}.manifest.json")
    write_json(manifest_path, manifest)
    columns = len(summary.kinds)
    return {
        "output": str(output),
        "rows": rows,
        "rows_rejected": rejected,
        "rejects_file": rejects,
        "columns": columns,
        "warnings": warnings,
    }


def _put_aside(path: Path, output: Path, converted: dict[str, Any]) -> list[str]:
    """Report how many of a file's rows were rejected.

    Raises:
        InputProblemError: too many were; the output is removed.
    """
    if converted["rejects_file"] is None:
        return []
    rejects = Path(converted["rejects_file"])
    one = pl.read_csv(rejects, n_rows=1, infer_schema=False).row(0, named=True)
    rejected, read = converted["rows_rejected"], converted["rows_read"]
    first = First(int(one["row"]) - 1, one["column"] or "", one["reason"])
    try:
        require_few(path, rejected, read, first)
    except InputProblemError:
        for file in (Path(converted["manifest_path"]), output, rejects):
            file.unlink(missing_ok=True)
        raise
    reasons = f"with their reasons they are in {rejects}"
    return [f"{rejected} of {read} rows were rejected (bad_rows); {reasons}"]


def _converted(path: Path, output: Path, run: _Run) -> dict[str, Any]:
    """Convert a CSV file as ``process_large_csv`` does, and return its result."""
    written, schema = run.csv.written, run.csv.schema
    file, _ = csv_text.begin(path, written, "/datasets/new")
    # A delivery has files of many kinds: each is checked only for options that it can have.
    if isinstance(written.date_format, Mapping):
        own = {name: form for name, form in written.date_format.items() if name in file.columns}
        written = replace(written, date_format=own)
    asked = ProcessCsvRequest(
        filter=None,
        new_columns={},
        num_chunks=None,
        columns=None,
        overwrite=True,
        csv=replace(
            run.csv,
            schema={name: kind for name, kind in schema.items() if name in file.columns},
            written=written,
        ),
        bad_rows=run.csv.bad_rows or "fail",
        file_path=str(path),
        output_path=str(output),
    )
    inner = replace(run.request, parameters=asked.as_json())
    return large_csv_job.main(inner, run.reporter)
