"""``aggregate_data``: summaries of many sources, and aggregates by group over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial as bind
from pathlib import Path
from typing import Any, cast

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import pyarrow as pa
import pyarrow.parquet as pq

from . import (
    byte_ranges,
    cluster,
    csv_blocks,
    csv_files,
    csv_input,
    csv_notes,
    csv_plan,
    formula_engine,
    partials,
)
from .accounting import account
from .byte_ranges import Chain, Piece
from .csv_blocks import Form
from .csv_files import FORMATS
from .csv_notes import Note, Notes
from .csv_output import Output
from .expressions import NUMERIC, Kind
from .job import Reporter
from .process_csv import RANGE_BYTES
from .protocol import InputProblemError, JobRequest
from .sources import Source, require_column, require_distinct, resolve

TASK = "tasks.data_tasks.aggregate_data"

#: Rows of a Parquet file that are in memory at a time.
BATCH_ROWS = 100_000
MAX_PASSES = 5
#: Summaries of parts that are kept before they are put together.
MOST_PARTS = 16
#: A CSV file is cut into ranges where it is more than so small a part of what each CPU has to do.
SHARES = 8


#: What a CSV file looks like of which nobody has said anything.
PLAIN = csv_plan.said({})


@dataclass(frozen=True)
class Wanted:
    """What is asked of each file: groups by ``keys``, and these columns (None for all).

    ``form`` is what CSV files look like, as far as the caller has said it; it may declare columns
    that a file does not have.
    """

    keys: tuple[str, ...]
    columns: tuple[str, ...] | None
    form: Form = PLAIN


@dataclass(frozen=True)
class Summary:
    """Some rows, a file or a source: its columns' types, its aggregates, and those by group."""

    rows: int
    kinds: dict[str, Kind]
    whole: pl.DataFrame
    groups: pl.DataFrame | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Item:
    """One call's work: a whole file, or a range of a large one.

    Attributes:
        source: what the caller named.
        path: the file.
        form: of a range: what the file's records look like.
        bounds: the range.
        first: where its first record begins, if that is known.
    """

    source: str
    path: Path
    form: Form | None = None
    bounds: tuple[int, int] | None = None
    first: int | None = None


@dataclass(frozen=True)
class Made:
    """What became of one range.

    Attributes:
        start, end: offsets of its records in the file.
        summary: of its records; None where there are none, or types do not fit.
        rows: its records.
        needed: see :class:`csv_blocks.Block`.
        problem: why it cannot be done; ``problem_row`` is the row in this range that is at fault.
        notes: see :class:`csv_blocks.Block`.
    """

    start: int
    end: int
    summary: Summary | None = None
    rows: int = 0
    needed: dict[str, pl.DataType] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    problem_row: int | None = None
    notes: tuple[Note, ...] = ()


# -- on every CPU ----------------------------------------------------------------------------------


def work(wanted: Wanted, item: Item) -> Summary | Made:
    """Do a whole file, or a range.

    Raises:
        InputProblemError: the file is damaged, has no rows, or lacks a column that was asked
            for. What is wrong with a range is told, not raised: its beginning was only guessed.
    """
    if item.form is None or item.bounds is None:
        return summarise(wanted, item.source, item.path)
    try:
        piece = byte_ranges.read(item.path, item.bounds, item.form.byte, item.first)
    except InputProblemError as error:
        start = item.bounds[0] if item.first is None else item.first
        return Made(start, start, problem=(error.kind, str(error)))
    return _made(wanted, item.source, item.path, item.form, piece)


def summarise(wanted: Wanted, source: str, path: Path) -> Summary:
    """Read one file, part by part.

    Raises:
        InputProblemError: it is damaged, has no rows, or lacks a column that was asked for.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _parquet(wanted, source, path)
        file, form = form_of(path, wanted.form)
        run = FileRun(wanted, source, file, form)
        for _ in range(MAX_PASSES):
            for piece in csv_input.pieces(file, RANGE_BYTES, form.byte):
                run.take(_made(wanted, source, path, run.form, piece))
            if run.ended():
                return run.summary()
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise InputProblemError("file_unfit", f"{path} cannot be aggregated: {first}.") from None
    message = f"{path}: the types of its columns changed in every pass"
    raise RuntimeError(message)


def form_of(path: Path, given: Form) -> tuple[csv_files.CsvFile, Form]:
    """Give what a CSV file's first bytes show, and what its records seem to look like.

    Args:
        path: the file.
        given: what the caller said of such files.
    """
    file, sample = csv_input.begin(path, given.written, "data_sources")
    declared = {name: dtype for name, dtype in given.schema.items() if name in file.columns}
    form = replace(given, schema=declared, declared=frozenset(declared)).of(file.written)
    return file, csv_blocks.fitted(sample, file.columns, form)


def _made(wanted: Wanted, source: str, path: Path, form: Form, piece: Piece) -> Made:
    here = Made(piece.start, piece.end)
    if not piece.closed:
        told = byte_ranges.quote_open(path, piece.start + int(piece.toggles[-1]))
        return replace(here, problem=(told.kind, str(told)))
    block = csv_blocks.parse(piece, form, strict=True)
    # What had no value so far has one here: whole numbers, which empty columns are parsed as.
    filled = {
        name: block.frame[name].dtype
        for name, dtype in form.schema.items()
        if dtype == pl.Null and block.frame[name].null_count() < block.frame.height
    }
    needed = {**filled, **block.needed}
    here = replace(here, rows=block.rows, needed=needed, notes=tuple(block.notes))
    if block.rejects:
        reject = block.rejects[0]
        where = f"column {reject.column!r}: " if reject.column else ""
        problem = ("row_invalid", f"{where}{reject.reason}")
        return replace(here, problem=problem, problem_row=reject.row)
    if needed or not block.rows:
        return here
    return replace(here, summary=_summary(wanted, source, block.frame, form.schema))


def _summary(
    wanted: Wanted, source: str, frame: pl.DataFrame, schema: Mapping[str, pl.DataType]
) -> Summary:
    """Aggregate some rows; ``schema`` has the type Null for a column without a value so far."""
    kinds = formula_engine.kinds(schema)
    for name in (*wanted.keys, *(wanted.columns or ())):
        require_column(name, frame.columns, "group_by or aggregations", source)
    frame = frame.with_columns(
        pl.col(name).fill_nan(None) for name, t in frame.schema.items() if t.is_float()
    )
    columns = {name: kinds[name] for name in wanted.columns or kinds}
    return Summary(
        frame.height,
        kinds,
        partials.partial(frame, (), kinds),
        partials.partial(frame, wanted.keys, columns) if wanted.keys else None,
    )


def _parquet(wanted: Wanted, source: str, path: Path) -> Summary:
    parts = Parts(wanted, path)
    try:
        with pq.ParquetFile(path) as file:
            require_distinct(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                frame = pl.DataFrame(pa.Table.from_batches([batch]))
                _require_plain(path, frame.schema)
                parts.add(_summary(wanted, source, frame, frame.schema))
    except (pa.ArrowException, OSError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise InputProblemError(
            "file_damaged",
            f"{path} cannot be read as Parquet: {first}.",
            "Write it again, or give it the suffix of what it is.",
        ) from None
    return parts.summary()


def _require_plain(path: Path, schema: Mapping[str, pl.DataType]) -> None:
    """Refuse columns of what is neither a number nor a moment nor text.

    Raises:
        InputProblemError: names the column and its type.
    """
    for name, kind in schema.items():
        if kind.is_nested() or kind == pl.Binary:
            raise InputProblemError(
                "column_type",
                f"{path}: column {name!r} is of type {kind}, which cannot be aggregated.",
                "Write it as text, or leave it out.",
            )


class Parts:
    """Summaries of one file's parts, put together as they come, so that they do not pile up.

    Args:
        wanted: what is asked of the file.
        path: the file.
    """

    def __init__(self, wanted: Wanted, path: Path) -> None:
        self.wanted, self.path = wanted, path
        self.parts: list[Summary] = []

    def add(self, part: Summary) -> None:
        """Take the next part."""
        self.parts.append(part)
        if len(self.parts) > MOST_PARTS:
            self.parts = [self._together()]

    def summary(self) -> Summary:
        """Give the file's.

        Raises:
            InputProblemError: there was no row.
        """
        if not self.parts:
            hint = "Check how it was exported."
            raise InputProblemError("file_empty", f"{self.path} has no rows.", hint)
        return self._together()

    def _together(self) -> Summary:
        kinds, _ = partials.shared([part.kinds for part in self.parts])
        return _merged(self.parts, kinds, self.wanted)


def _merged(parts: Sequence[Summary], kinds: dict[str, Kind], wanted: Wanted) -> Summary:
    """Put summaries together whose columns have ``kinds`` in all of them."""
    groups = [part.groups for part in parts if part.groups is not None]
    columns = {name: kinds[name] for name in wanted.columns or kinds}
    keys = {key: kinds[key] for key in wanted.keys}
    return Summary(
        sum(part.rows for part in parts),
        kinds,
        partials.merge([part.whole for part in parts], {}, kinds),
        partials.merge(groups, keys, columns) if groups else None,
    )


class FileRun:
    """One CSV file: its parts in their order, again with wider types where a value needs them.

    Args:
        wanted: what is asked of the file.
        source: what the caller named.
        file: the file.
        form: what its records seem to look like.
    """

    def __init__(self, wanted: Wanted, source: str, file: csv_files.CsvFile, form: Form) -> None:
        self.wanted, self.source, self.path, self.form = wanted, source, file.path, form
        self.told = csv_notes.of_file(file.path, file.told, wanted.form.written, form.written)
        self._begin()

    def _begin(self) -> None:
        self.parts = Parts(self.wanted, self.path)
        self.rows = 0
        self.notes = Notes(self.path.name)
        self.needed: dict[str, list[pl.DataType]] = {}

    def take(self, made: Made) -> None:
        """Take the next part of the file.

        Raises:
            InputProblemError: what is wrong with it.
        """
        if made.problem is not None:
            kind, text = made.problem
            if made.problem_row is not None:
                text = f"{self.path}, row {self.rows + made.problem_row + 1}: {text}."
            raise InputProblemError(kind, text)
        self.notes.add(made.notes, self.rows)
        self.rows += made.rows
        for name, dtype in made.needed.items():
            self.needed.setdefault(name, []).append(dtype)
        if made.summary is not None and not self.needed:
            self.parts.add(made.summary)

    def ended(self) -> bool:
        """Say whether that was all; else the form is wider now, and all is to be read again."""
        if not self.needed:
            return True
        wider = {
            name: csv_blocks.join([self.form.schema[name], *types])
            for name, types in self.needed.items()
        }
        self.form = replace(self.form, schema={**self.form.schema, **wider})
        self._begin()
        return False

    def summary(self) -> Summary:
        """Give the file's summary."""
        return replace(self.parts.summary(), notes=(*self.told, *self.notes.all()))


class Ranges(FileRun):
    """One large CSV file, as ranges that are read at once."""

    def __init__(self, wanted: Wanted, source: str, file: csv_files.CsvFile, form: Form) -> None:
        size = file.path.stat().st_size
        count = -(-(size - file.data_start) // RANGE_BYTES)
        self.start = file.data_start
        self.bounds = byte_ranges.split(file.data_start, size, count)
        super().__init__(wanted, source, file, form)

    def _begin(self) -> None:
        super()._begin()
        self.chain: Chain[Made] = Chain(self.start, self._again)

    def item(self, number: int, first: int | None = None) -> Item:
        """Give the work of one range."""
        first = self.start if number == 0 else first
        return Item(self.source, self.path, self.form, self.bounds[number], first)

    def _again(self, number: int, first: int) -> Made:
        made = work(self.wanted, self.item(number, first))
        return cast("Made", made)

    def add(self, number: int, made: Made) -> None:
        """Take one range, in whatever order."""
        for verified in self.chain.add(number, made):
            self.take(verified)


# -- the driver ------------------------------------------------------------------------------------


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Aggregate, or return what an identical request wrote before.

    Args:
        request: its parameters are those of ``tasks.data_tasks.aggregate_data``.
        reporter: told of every phase.

    Returns:
        The task's result, but for what only the submitter knows.
    """
    parameters = request.parameters
    reporter.progress("reading", 0, 1, "looking at the sources")
    roots = (request.datasets_dir, request.models_dir)
    target = csv_files.output_file(parameters["output_path"], "output_path", *roots)
    found = {
        name: resolve(name, roots, "data_sources", FORMATS) for name in parameters["data_sources"]
    }
    files = [(name, file) for name, source in found.items() for file in source.files]
    _require_once(files)
    taken = [csv_plan.fingerprint(file) for _, file in files]
    output = Output(target, request, [str(sorted(known.items())) for known in taken])
    output.require_allowed(*(file for _, file in files))
    if (known := output.finished()) is not None:
        return {**known, "reused": True}
    aggregations = parameters["aggregations"]
    said = csv_plan.said(parameters)
    wanted = Wanted(
        tuple(parameters["group_by"]),
        tuple(aggregations) if aggregations is not None else None,
        said,
    )
    _require_apart(wanted.keys, aggregations or {})
    reporter.progress("waiting", 0, 1, "asking the cluster for CPUs")
    cluster.connect()
    made = _all(wanted, files, reporter)
    sources = _by_source(found, files, made, wanted)
    columns = list(dict.fromkeys(name for summary in sources.values() for name in summary.kinds))
    for name in said.schema:
        require_column(name, columns, "schema", "any of the sources")
    said.require_formats(columns, "any of the sources")
    for (_, file), known_file in zip(files, taken, strict=True):
        csv_plan.require_unchanged(file, known_file)
    table, mismatches, warnings = _tables(sources, wanted, aggregations)
    warnings += csv_notes.said(note for at in sorted(made) for note in made[at].notes)
    with output.folder():
        output.write(table)
        result = {
            "status": "success",
            "total_rows": sum(summary.rows for summary in sources.values()),
            **account(
                sum(made[at].rows for at in range(len(files))),
                sum(summary.rows for summary in sources.values()),
                {},
            ),
            "num_sources": len(sources),
            "summaries": [
                {
                    "source": name,
                    "files": len(found[name].files),
                    "rows": summary.rows,
                    "columns": describe(summary),
                }
                for name, summary in sources.items()
            ],
            "mismatches": mismatches,
            "output_file": str(target),
            "output_rows": table.height,
            "warnings": warnings,
            "manifest_path": str(output.manifest_path),
        }
        return {**output.publish(TASK, result, taken), "reused": False}


def _require_once(files: Sequence[tuple[str, Path]]) -> None:
    """Refuse a file that would count twice.

    Raises:
        InputProblemError: names it as both sources have it.
    """
    seen: dict[Path, tuple[str, Path]] = {}
    for source, file in files:
        other, first = seen.setdefault(file.resolve(), (source, file))
        if (other, first) != (source, file):
            raise InputProblemError(
                "source_repeated",
                f"data_sources: {first} (of {other!r}) and {file} (of {source!r}) are one file.",
                "Name each file once, also in a folder or by a link.",
            )


def _all(
    wanted: Wanted, files: Sequence[tuple[str, Path]], reporter: Reporter
) -> dict[int, Summary]:
    """Do all files at once, and what would keep one CPU busy for long in ranges."""
    sizes = [path.stat().st_size for _, path in files]
    longest = max(RANGE_BYTES, sum(sizes) // (SHARES * cluster.cpus()))
    large = {}
    for index, (source, path) in enumerate(files):
        if path.suffix.lower() == ".csv" and sizes[index] > longest:
            file, form = form_of(path, wanted.form)
            if not file.is_stream:
                large[index] = Ranges(wanted, source, file, form)
    whole = [(index, 0, Item(*file)) for index, file in enumerate(files) if index not in large]
    made: dict[int, Summary] = {}
    waiting, items = dict(large), whole
    for _ in range(MAX_PASSES):
        items = items + [
            (index, number, run.item(number))
            for index, run in waiting.items()
            for number in range(len(run.bounds))
        ]
        calls = cluster.each(bind(work, wanted), (item for _, _, item in items))
        for done, (at, result) in enumerate(calls, 1):
            index, number, _ = items[at]
            if isinstance(result, Summary):
                made[index] = result
            else:
                large[index].add(number, result)
            reporter.progress("aggregating", done, len(items), "files and parts of files")
        made |= {index: run.summary() for index, run in waiting.items() if run.ended()}
        waiting, items = {index: run for index, run in waiting.items() if index not in made}, []
        if not waiting:
            return made
    message = f"the types of the columns of {[str(r.path) for r in waiting.values()]} changed"
    raise RuntimeError(message)


def _by_source(
    found: dict[str, Source],
    files: Sequence[tuple[str, Path]],
    made: dict[int, Summary],
    wanted: Wanted,
) -> dict[str, Summary]:
    """Put the files of each source together; they must have the same columns."""
    sources = {}
    for name in found:
        parts = {path: made[i] for i, (source, path) in enumerate(files) if source == name}
        (first, own), *others = parts.items()
        for path, part in others:
            if odd := sorted(set(part.kinds) ^ set(own.kinds)):
                raise InputProblemError(
                    "columns_differ",
                    f"{path} does not go with {first}: only one of them has {odd}.",
                    "Name files of different columns as sources of their own.",
                )
        kinds, clashing = partials.shared([part.kinds for part in parts.values()])
        if clashing:
            types = {str(path): part.kinds[clashing[0]] for path, part in parts.items()}
            raise InputProblemError(
                "columns_differ",
                f"Column {clashing[0]!r} has not one type in the files of {name!r}: {_few(types)}.",
                "Correct them, declare the column's type (schema), or name them as sources of their"
                " own.",
            )
        sources[name] = _merged(list(parts.values()), kinds, wanted)
    return sources


def _few(types: Mapping[str, Kind]) -> str:
    """Give one example of each type."""
    examples = {kind: name for name, kind in types.items()}
    return ", ".join(f"{kind} in {name}" for kind, name in examples.items())


def _tables(
    sources: dict[str, Summary], wanted: Wanted, aggregations: dict[str, list[str]] | None
) -> tuple[pl.DataFrame, list[dict[str, Any]], list[str]]:
    """Give the output, what does not match between sources, and what was left out for it."""
    kinds, clashing = partials.shared([summary.kinds for summary in sources.values()])
    mismatches = _mismatches(sources)
    if not wanted.keys and aggregations is None:
        return _summary_table(sources), mismatches, []
    needed = [name for name in (*wanted.keys, *(wanted.columns or ())) if name in clashing]
    if needed:
        types = {source: summary.kinds[needed[0]] for source, summary in sources.items()}
        raise InputProblemError(
            "columns_differ",
            f"Column {needed[0]!r} has not one type in all sources: {_few(types)}.",
            "Correct the sources, declare the column's type (schema), or leave it out.",
        )
    # A column without a value anywhere counts as one of whole numbers.
    kinds = {name: "integer" if kind == "missing" else kind for name, kind in kinds.items()}
    functions = _functions(kinds, wanted, aggregations)
    _require_apart(wanted.keys, functions)
    columns = {name: kinds[name] for name in functions}
    keys = {key: kinds[key] for key in wanted.keys}
    parts = [s.groups if wanted.keys else s.whole for s in sources.values()]
    merged = partials.merge([part for part in parts if part is not None], keys, columns)
    table = merged.select(
        *wanted.keys,
        partials.ROWS,
        *(
            partials.value(merged, name, what, kinds[name]).alias(f"{name}_{what}")
            for name, names in functions.items()
            for what in names
        ),
    )
    left = [
        f"column {name!r} was left out: it has not one type in all sources" for name in clashing
    ]
    return (table.sort(wanted.keys, nulls_last=True) if keys else table), mismatches, left


def _functions(
    kinds: dict[str, Kind], wanted: Wanted, aggregations: dict[str, list[str]] | None
) -> dict[str, list[str]]:
    if aggregations is None:
        every = ["count", "sum", "mean", "min", "max"]
        return {n: every for n, k in kinds.items() if k in NUMERIC and n not in wanted.keys}
    for name, names in aggregations.items():
        wrong = [what for what in names if kinds[name] not in NUMERIC]
        wrong = [what for what in wrong if what not in partials.ANY_KIND]
        if wrong:
            raise InputProblemError(
                "column_not_numeric",
                f"aggregations.{name}: {wrong[0]} needs numbers, and the column is {kinds[name]}.",
                f"Of such a column there are {', '.join(partials.ANY_KIND)}; where it is numbers in"
                f" all sources, say so: schema {{{name!r}: 'number'}}.",
            )
    return aggregations


def _require_apart(keys: Sequence[str], functions: Mapping[str, Sequence[str]]) -> None:
    """Refuse a key that has the name of another column of the output.

    Raises:
        InputProblemError: names both.
    """
    others = {partials.ROWS: "the number of rows of each group"}
    others |= {
        f"{n}_{what}": f"{what} of {n!r}" for n, names in functions.items() for what in names
    }
    for key in keys:
        if key in others:
            raise InputProblemError(
                "columns_repeated",
                f"group_by: column {key!r} and {others[key]} would have one name in the output.",
                "Rename the column in the sources, or leave one of the two out.",
            )


def _mismatches(sources: dict[str, Summary]) -> list[dict[str, Any]]:
    """Say by source how its columns differ from the first one's."""
    first = next(iter(sources.values())).kinds
    found = []
    for name, summary in sources.items():
        lacks = [column for column in first if column not in summary.kinds]
        adds = [column for column in summary.kinds if column not in first]
        types = {
            column: {"here": summary.kinds[column], "first": kind}
            for column, kind in first.items()
            if len({kind, summary.kinds.get(column, kind)} - {"missing"}) > 1
        }
        if lacks or adds or types:
            found.append({"source": name, "lacks": lacks, "adds": adds, "types": types})
    return found


def describe(summary: Summary) -> dict[str, dict[str, Any]]:
    """Give what is known of each column, in JSON types; dates as ISO text."""
    described = {}
    for name, kind in summary.kinds.items():
        functions = partials.FUNCTIONS if kind in NUMERIC else partials.ANY_KIND
        values = summary.whole.select(
            partials.value(summary.whole, name, what, kind).alias(what) for what in functions
        ).row(0, named=True)
        plain = {what: _json(value) for what, value in values.items()}
        described[name] = {"type": kind, "missing": summary.rows - plain["count"], **plain}
    return described


def _json(value: Any) -> Any:  # noqa: ANN401
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        return str(value)
    return value if not isinstance(value, str) or len(value) <= 200 else value[:200]  # noqa: PLR2004


def _summary_table(sources: dict[str, Summary]) -> pl.DataFrame:
    numbers = ("sum", "mean", "std")
    rows = [
        {
            "source": source,
            "rows": summary.rows,
            "column": name,
            "type": found["type"],
            "count": found["count"],
            "missing": found["missing"],
            **{what: None if found.get(what) is None else float(found[what]) for what in numbers},
            **{what: _text(found[what]) for what in ("min", "max")},
        }
        for source, summary in sources.items()
        for name, found in describe(summary).items()
    ]
    floats = {name: pl.Float64() for name in numbers}
    return pl.DataFrame(rows, schema_overrides=floats, infer_schema_length=None)


def _text(value: object) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
