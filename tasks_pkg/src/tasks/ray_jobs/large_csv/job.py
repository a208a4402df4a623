"""``process_large_csv``: filter one large CSV file and add derived columns, range by range."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from .. import cluster
from ..csv import byte_ranges
from ..csv import files as csv_files
from ..csv import notes as csv_notes
from ..csv import parsing as csv_parsing
from ..csv import plan as csv_plan
from ..csv import text as csv_text
from ..csv.byte_ranges import Chain, Piece
from ..csv.notes import Note, Notes
from ..csv.plan import Plan
from ..formulas.engine import overflow
from ..job import Reporter
from ..protocol import InputProblemError, JobRequest
from ..requests import ProcessCsvRequest
from .output import Output, write_csv
from .plan import make

TASK = "tasks.data_tasks.process_large_csv"

#: The bytes in a range of the file; polars needs a few times as much to parse it. With 8 MiB, calls
#: took a tenth more processor time; with 16 MiB a job does not fit into 256 MiB.
RANGE_BYTES = 12 << 20
#: A smaller file is cut into this many ranges per CPU, none smaller than the least size.
RANGES_PER_CPU, LEAST_RANGE_BYTES = 4, 4 << 20
#: zstd's level; polars' default of 3 takes as long as parsing, for files a quarter smaller.
PARQUET_LEVEL = 1
#: The most passes over a file: a type can only widen, from empty over integer and float to text.
MAX_PASSES = 5


class Item(NamedTuple):
    """The work of one call: a range of the file to read, or a piece that was already read."""

    number: int
    bounds: tuple[int, int] | None
    start: int | None
    piece: Piece | None = None


@dataclass(frozen=True)
class Done:
    """The outcome of one range.

    Attributes:
        start, end: offsets of its records in the file.
        rows: the number of its records; ``written`` and ``rejected`` of them, the rest filtered
            out.
        part, rejects: the files that hold them; None if there are none.
        needed: see :class:`csv.parsing.Block`.
        problem: why the range failed: the error's kind and text.
        problem_row: the row in this range that is at fault.
        began: when the call began, by its host's clock.
        notes: see :class:`csv.parsing.Block`.
    """

    start: int
    end: int
    rows: int = 0
    written: int = 0
    rejected: int = 0
    part: Path | None = None
    rejects: Path | None = None
    needed: dict[str, pl.DataType] | None = None
    problem: tuple[str, str] | None = None
    problem_row: int | None = None
    began: float = 0.0
    notes: tuple[Note, ...] = ()


# -- on every CPU ----------------------------------------------------------------------------------


def work(plan: Plan, item: Item) -> Done:
    """Process one range; return an error, never raise it: its beginning was only guessed."""
    began = time.time()
    start = end = item.bounds[0] if item.bounds else 0
    try:
        piece = item.piece or byte_ranges.read(
            plan.path, cast("tuple[int, int]", item.bounds), plan.form.byte, item.start
        )
        start, end = piece.start, piece.end
        done = _block(plan, item.number, piece)
    except InputProblemError as error:
        start = start if item.start is None else item.start
        done = Done(start, end, problem=(error.kind, str(error)))
    return replace(done, began=began)


def _block(plan: Plan, number: int, piece: Piece) -> Done:
    here = Done(piece.start, piece.end)
    if not piece.closed:
        told = byte_ranges.quote_open(plan.path, piece.start + int(piece.toggles[-1]))
        return replace(here, problem=(told.kind, str(told)))
    block = csv_parsing.parse(piece, plan.form, strict=not plan.reject)
    here = replace(here, rows=block.rows, rejected=len(block.rejects), notes=tuple(block.notes))
    if block.needed:
        return replace(here, needed=block.needed)
    if block.rejects and not plan.reject:
        first = block.rejects[0]
        where = f"column {first.column!r}: " if first.column else ""
        hint = "Correct the file, or have such rows put aside: bad_rows 'reject'."
        problem = ("row_invalid", f"{where}{first.reason}. {hint}")
        return replace(here, problem=problem, problem_row=first.row)
    try:
        frame = plan.transformed(block.frame)
    except pl.exceptions.InvalidOperationError as error:
        told = overflow(error)
        return replace(here, problem=(told.kind, str(told)))
    part = rejects = None
    if frame.height:
        part = plan.folder / f"part-{number:06}"
        if plan.output_format == "parquet":
            frame.write_parquet(
                part, row_group_size=max(1, frame.height), compression_level=PARQUET_LEVEL
            )
        else:
            write_csv(frame, part, header=False)
    if block.rejects:
        rejects = plan.folder / f"rejects-{number:06}"
        pl.DataFrame([reject.as_row() for reject in block.rejects]).write_parquet(rejects)
    return replace(here, written=frame.height, part=part, rejects=rejects)


def range_count(length: int, wanted: int | None, cpus: int, longest: int | None = None) -> int:
    """Return the number of ranges for so many bytes: as wanted, or by the number of CPUs.

    No range is longer than ``longest`` (:data:`RANGE_BYTES`).
    """
    least = -(-length // (longest or RANGE_BYTES))
    if wanted:
        return max(least, wanted)
    count = max(least, min(RANGES_PER_CPU * cpus, -(-length // LEAST_RANGE_BYTES)))
    # A multiple of the CPUs, so that none runs out of work early.
    return count if count <= cpus else -(-count // cpus) * cpus


# -- the driver ------------------------------------------------------------------------------------


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Process the file, or return what an identical request wrote before."""
    reporter.progress("reading", 0, 1, "looking at the input file")
    asked = ProcessCsvRequest.of(request)
    roots = (request.datasets_dir, request.models_dir)
    path = csv_files.input_file(asked.file_path, "file_path", roots)
    target = csv_files.output_file(asked.output_path, "output_path", *roots)
    taken = csv_plan.fingerprint(path)
    output = Output(target, request, [json.dumps(taken)], overwrite=asked.overwrite)
    output.require_allowed(path)
    if (known := output.finished()) is not None:
        return {**known, "reused": True}
    file, sample = csv_text.begin(path, asked.csv.written, "file_path")
    with output.folder() as folder:
        plan = make(file, asked, folder, sample)
        run = Run(plan, file, output, reporter, asked.num_chunks)
        told = csv_notes.of_file(file, asked.csv.written, plan.form.written)
        run.warnings += csv_notes.said(told)
        result = run.run()
        csv_plan.require_unchanged(path, taken)
        reporter.progress("saving", 0, 1, str(target))
        return {**output.publish(TASK, result, [taken]), "reused": False}


class Run:
    """One request: all ranges, repeated with wider types where a value needs them."""

    def __init__(
        self,
        plan: Plan,
        file: csv_files.CsvFile,
        output: Output,
        reporter: Reporter,
        chunks: int | None,
    ) -> None:
        self.plan, self.file, self.output, self.reporter = plan, file, output, reporter
        self.warnings: list[str] = []
        self.size = file.path.stat().st_size
        self.chunks_wanted = chunks
        self.timings: dict[str, float] = {}

    def _ranges(self, cpus: int) -> list[tuple[int, int]]:
        length = self.size - self.file.data_start
        if self.file.is_stream or length <= 0:
            return []
        count = range_count(length, self.chunks_wanted, cpus)
        if self.chunks_wanted and count > self.chunks_wanted:
            self.warnings.append(
                f"num_chunks raised from {self.chunks_wanted} to {count}: a chunk has at most"
                f" {RANGE_BYTES >> 20} MiB, so that it fits any memory"
            )
        return byte_ranges.split(self.file.data_start, self.size, count)

    def run(self) -> dict[str, Any]:
        """Return the result."""
        started = time.monotonic()
        self.reporter.progress("waiting", 0, 1, "asking the cluster for CPUs")
        cluster.connect()
        self.timings["connect_seconds"] = time.monotonic() - started
        self.ranges = self._ranges(cluster.cpus())
        for _ in range(MAX_PASSES):
            needed = self._pass()
            if not needed:
                return self._result(started)
            self.plan = self.plan.widened(needed)
        message = f"the types of {sorted(needed)} changed in every pass"
        raise RuntimeError(message)

    def _items(self) -> Iterator[Item]:
        if not self.file.is_stream:
            for number, bounds in enumerate(self.ranges):
                yield Item(number, bounds, self.file.data_start if number == 0 else None)
            return
        pieces = csv_text.pieces(self.file, RANGE_BYTES, self.plan.form.byte)
        for number, piece in enumerate(pieces):
            yield Item(number, None, None, piece)

    def _pass(self) -> dict[str, list[pl.DataType]]:
        """Process all ranges once; return the types that its values need beyond the plan's."""
        needed: dict[str, list[pl.DataType]] = {}
        self.rows = self.written = self.rejected = self.chunks = 0
        self.notes = Notes(self.file.path.name)
        self.output.begin(self.plan)
        chain = Chain(self.file.data_start, self._again)
        total = len(self.ranges)
        called = time.time()
        first = float("inf")
        for number, done in cluster.each(partial(work, self.plan), self._items()):
            first = min(first, done.began)
            for verified in chain.add(number, done):
                self._take(verified, needed)
            what = f"chunks, {self.rows} rows read"
            self.reporter.progress("processing", self.chunks, max(total, self.chunks), what)
        # A host's clock may be off by more than a process takes to start.
        self.timings.setdefault("workers_seconds", max(0.0, first - called))
        return needed

    def _again(self, number: int, start: int) -> Done:
        return work(self.plan, Item(number, self.ranges[number], start))

    def _take(self, done: Done, needed: dict[str, list[pl.DataType]]) -> None:
        """Count one range, in the file's order, and append its part to the output."""
        if done.problem is not None:
            kind, text = done.problem
            if done.problem_row is not None:
                text = f"{self.file.path}, row {self.rows + done.problem_row + 1}: {text}"
            raise InputProblemError(kind, text)
        for name, dtype in (done.needed or {}).items():
            needed.setdefault(name, []).append(dtype)
        if not needed:
            self.output.append(done.part, done.rejects, self.rows)
        for part in (done.part, done.rejects):
            if part is not None:
                part.unlink(missing_ok=True)
        self.chunks += 1
        self.notes.add(done.notes, self.rows)
        self.rows += done.rows
        self.written += done.written
        self.rejected += done.rejected

    def _result(self, started: float) -> dict[str, Any]:
        self.output.end()
        if self.rows and self.rejected == self.rows:
            self.warnings.append("every row was rejected: the rejects file says why")
        self.warnings += csv_notes.said(self.notes.all())
        seconds = time.monotonic() - started
        return {
            "status": "success",
            "input_file": str(self.file.path),
            "output_file": str(self.output.path),
            "total_rows_processed": self.rows,
            "num_chunks": self.chunks,
            "rows_read": self.rows,
            "rows_written": self.written,
            "rows_filtered": self.rows - self.written - self.rejected,
            "rows_rejected": self.rejected,
            "rejects_file": str(self.output.rejects_path) if self.rejected else None,
            "columns": self.plan.output_columns(),
            "input_bytes": self.size,
            "warnings": self.warnings,
            "timings": {
                **{name: round(value, 3) for name, value in self.timings.items()},
                "work_seconds": round(seconds - sum(self.timings.values()), 3),
            },
            "manifest_path": str(self.output.manifest_path),
        }
