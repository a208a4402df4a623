"""``aggregate_data``: summaries of many sources, and aggregates by group over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial as bind
from pathlib import Path
from typing import Any, cast

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from .. import cluster
from ..accounting import Rejected, Rejects, account
from ..csv import byte_ranges
from ..csv import files as csv_files
from ..csv import notes as csv_notes
from ..csv import parsing as csv_parsing
from ..csv import plan as csv_plan
from ..csv import text as csv_text
from ..csv.byte_ranges import Chain, Piece
from ..csv.dialect import CsvOptions
from ..csv.notes import Note, Notes
from ..csv.parsing import Form
from ..formulas import engine as formula_engine
from ..formulas.language import NUMERIC, Kind
from ..inputs.sources import Source, format_of, passed_over, require_column, resolve, uncompressed
from ..job import Reporter
from ..large_csv.job import RANGE_BYTES, range_count
from ..large_csv.output import Output
from ..protocol import InputProblemError, JobRequest
from ..requests import AggregateRequest
from ..tables import hive
from ..tables import parquet as parquet_tables
from . import partial_aggregates

TASK = "tasks.data_tasks.aggregate_data"

#: The number of rows of a Parquet file that are in memory at once.
BATCH_ROWS = 100_000
MAX_PASSES = 5
#: Integer types whose values all fit into a signed 64-bit integer.
_WITHIN = {pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32()}
#: The most summaries of parts that are held before they are merged.
MOST_PARTS = 16
#: A CSV file is cut into ranges if it is larger than this fraction (1/n) of one CPU's work.
SHARES_PER_CPU = 8
#: The factor by which ranges are longer if only some columns are parsed: these take less memory,
#: and each call costs a few milliseconds.
NARROW_FACTOR = 2

#: The suffixes that earlier releases read in a folder.
OLD_SUFFIXES = (".csv", ".csv.gz", ".csv.zst", ".csv.zstd", ".parquet")
#: The most column names in a warning.
SHOWN_NAMES = 10
#: The functions of a column of numbers if none are requested.
DEFAULT_FUNCTIONS = ("count", "sum", "mean", "min", "max")

#: The form of a CSV file without options from the caller.
PLAIN = csv_plan.said(CsvOptions())


@dataclass(frozen=True)
class Wanted:
    """What is requested of each file: groups by ``keys``, and functions of columns (None for all).

    ``form`` is the form of CSV files as far as the caller gave it; it may declare columns that a
    file does not have.
    """

    keys: tuple[str, ...]
    functions: Mapping[str, Sequence[str]] | None
    form: Form = PLAIN

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Return the columns to read; None for all."""
        if self.functions is None:
            return None
        return tuple(dict.fromkeys([*self.keys, *self.functions]))

    def of(self, kinds: Mapping[str, Kind]) -> Mapping[str, Sequence[str]]:
        """Return the functions requested of columns of these types, by group."""
        if self.functions is not None:
            return self.functions
        return {name: DEFAULT_FUNCTIONS for name, kind in kinds.items() if kind in NUMERIC}


@dataclass(frozen=True)
class Summary:
    """The types and aggregates of some rows, of a file, or of a source.

    Attributes:
        rows: the number of rows, without the bad ones.
        columns: all columns of the file or source.
        kinds: the types of the columns that were read.
        whole: the aggregates of all rows.
        groups: the aggregates by group.
        notes: see :class:`csv.parsing.Block`.
        odd: the real type of each column of the type ``other``.
        rejects: the bad rows of a file.
    """

    rows: int
    columns: tuple[str, ...]
    kinds: dict[str, Kind]
    whole: pl.DataFrame
    groups: pl.DataFrame | None
    notes: tuple[Note, ...] = ()
    odd: Mapping[str, str] = field(default_factory=dict)
    rejects: Rejects = field(default_factory=Rejects)


@dataclass(frozen=True)
class Item:
    """The work of one call: a whole file, or a range of a large one.

    Attributes:
        source: the source, as the caller named it.
        path: the file.
        known: the columns in its folders' names, as one row.
        form: for a range: what the file's records look like.
        bounds: the range; None: the whole file.
        first: the offset of the range's first record, if known.
    """

    source: str
    path: Path
    known: pl.DataFrame = field(default_factory=pl.DataFrame)
    form: Form | None = None
    bounds: tuple[int, int] | None = None
    first: int | None = None


@dataclass(frozen=True)
class Made:
    """The outcome of one range.

    Attributes:
        start, end: offsets of its records in the file.
        summary: the aggregates; None if there are no records, or a value does not fit its type.
        rows: the number of records.
        needed: see :class:`csv.parsing.Block`.
        problem: an error's kind and text, if there is one.
        problem_row: the row of the range that is at fault.
        notes: see :class:`csv.parsing.Block`.
        rejects: the bad rows.
    """

    start: int
    end: int
    summary: Summary | None = None
    rows: int = 0
    needed: dict[str, pl.DataType] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    problem_row: int | None = None
    notes: tuple[Note, ...] = ()
    rejects: Rejects = field(default_factory=Rejects)


# -- on every CPU ----------------------------------------------------------------------------------


def work(wanted: Wanted, item: Item) -> Summary | Made:
    """Aggregate a whole file, or a range.

    A problem with a range is returned, not raised: it may only mean that the range's beginning was
    guessed wrong.

    Raises:
        InputProblemError: the file is damaged, has no rows, or lacks a requested column.
    """
    if item.form is None or item.bounds is None:
        return summarise(wanted, item)
    try:
        piece = byte_ranges.read(item.path, item.bounds, item.form.byte, item.first)
    except InputProblemError as error:
        start = item.bounds[0] if item.first is None else item.first
        return Made(start, start, problem=(error.kind, str(error)))
    return _made(wanted, item, item.form, piece)


def summarise(wanted: Wanted, item: Item) -> Summary:
    """Aggregate one file, part by part.

    Raises:
        InputProblemError: it is damaged, has no rows, or lacks a requested column.
    """
    try:
        if item.path.suffix.lower() == ".parquet":
            return _parquet(wanted, item)
        file, form = form_of(item, wanted)
        run = FileRun(wanted, item, file, form)
        for _ in range(MAX_PASSES):
            for piece in csv_text.pieces(file, RANGE_BYTES, form.byte):
                run.take(_made(wanted, item, run.form, piece))
            if run.ended():
                return run.summary()
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise InputProblemError(
            "file_unfit", f"{item.path} cannot be aggregated: {first}."
        ) from None
    message = f"{item.path}: the types of its columns changed in every pass"
    raise RuntimeError(message)


def form_of(item: Item, wanted: Wanted) -> tuple[csv_files.CsvFile, Form]:
    """Return a CSV file as its beginning shows it, and the detected form of its records.

    Raises:
        InputProblemError: it lacks a requested column.
    """
    given = wanted.form
    file, sample = csv_text.begin(item.path, given.written, "data_sources")
    _require_asked(wanted, [*file.columns, *item.known.columns], item.source)
    declared = {name: dtype for name, dtype in given.schema.items() if name in file.columns}
    form = replace(given, schema=declared, declared=frozenset(declared)).of(file.written)
    if wanted.columns is not None:
        form = form.narrowed([n for n in wanted.columns if n in file.columns], file.columns)
    return file, csv_parsing.fitted(sample, file.columns, form)


def _require_asked(wanted: Wanted, columns: Sequence[str], source: str) -> None:
    for name in (*wanted.keys, *(wanted.functions or ())):
        require_column(name, columns, "group_by or aggregations", source)


def _made(wanted: Wanted, item: Item, form: Form, piece: Piece) -> Made:
    here = Made(piece.start, piece.end)
    if not piece.closed:
        told = byte_ranges.quote_open(item.path, piece.start + int(piece.toggles[-1]))
        return replace(here, problem=(told.kind, str(told)))
    block = csv_parsing.parse(piece, form, strict=not form.reject)
    # Columns that were empty so far and have a value here; empty columns are parsed as integers.
    filled = {
        name: block.frame[name].dtype
        for name, dtype in form.schema.items()
        if dtype == pl.Null and block.frame[name].null_count() < block.frame.height
    }
    needed = {**filled, **block.needed}
    here = replace(here, rows=block.rows, needed=needed, notes=tuple(block.notes))
    if block.rejects and form.reject:
        rejects = Rejects()
        rejects.add(block.rejects, 0)
        here = replace(here, rejects=rejects)
    elif block.rejects:
        reject = block.rejects[0]
        where = f"column {reject.column!r}: " if reject.column else ""
        hint = "Correct the file, or have such rows put aside: bad_rows 'reject'"
        problem = ("row_invalid", f"{where}{reject.reason}. {hint}")
        return replace(here, problem=problem, problem_row=reject.row)
    if needed or not block.frame.height:
        return here
    columns = (*form.schema, *item.known.columns)
    return replace(here, summary=_summary(wanted, item, block.frame, form.schema, columns))


def _summary(  # noqa: PLR0913, PLR0917 - the request, the rows, and what is known of them
    wanted: Wanted,
    item: Item,
    frame: pl.DataFrame,
    schema: Mapping[str, pl.DataType],
    columns: tuple[str, ...],
    odd: Mapping[str, str] | None = None,
) -> Summary:
    """Aggregate some rows.

    Args:
        wanted: the request.
        item: the file or range that the rows are from.
        frame: the rows.
        schema: the columns' types; Null for a column without a value so far.
        columns: all columns of the file.
        odd: the columns that can only be counted, with their real types.
    """
    asked = wanted.columns
    frame = hive.added(frame, item.known)
    kinds = formula_engine.kinds({**schema, **item.known.schema})
    kinds |= dict.fromkeys(odd or (), "other")
    kinds = {name: kind for name, kind in kinds.items() if asked is None or name in asked}
    frame = frame.with_columns(
        frame[name].fill_nan(None)
        for name in kinds
        if kinds[name] == "number" and frame[name].dtype.is_float()
    )
    functions = {name: what for name, what in wanted.of(kinds).items() if name in kinds}
    if not wanted.keys:
        whole = partial_aggregates.partial(frame, (), kinds)
        return Summary(frame.height, columns, kinds, whole, None, odd=odd or {})
    # For text columns that are only keys, the few groups are enough.
    named = {n: kinds[n] for n in wanted.keys if kinds[n] not in NUMERIC and n not in functions}
    rest = {name: kind for name, kind in kinds.items() if name not in named}
    whole, groups = partial_aggregates.both(frame, wanted.keys, rest, functions)
    if named:
        whole = pl.concat([whole, partial_aggregates.of_keys(groups, named)], how="horizontal")
    return Summary(frame.height, columns, kinds, whole, groups, odd=odd or {})


def _parquet(wanted: Wanted, item: Item) -> Summary:
    own = parquet_tables.names(item.path)
    columns = (*own, *item.known.columns)
    asked = wanted.columns
    read = None if asked is None else [name for name in own if name in asked] or [own[0]]
    parts = Parts(wanted, item.path)
    for frame, unknown in parquet_tables.parts(item.path, BATCH_ROWS, read):
        _require_asked(wanted, columns, item.source)
        odd = _odd(frame, unknown)
        if asked is not None:
            _require_plain(item.path, {name: what for name, what in odd.items() if name in asked})
        counted = frame.with_columns(
            # A cast to text would cut off fractions of a second.
            pl.selectors.time().dt.to_string("%H:%M:%S%.f")
        ).with_columns(
            pl.when(pl.col(name).is_not_null()).then(statement=True).alias(name) for name in odd
        )
        parts.add(_summary(wanted, item, counted, counted.schema, columns, odd))
    return parts.summary()


def _require_plain(path: Path, odd: Mapping[str, str]) -> None:
    """Refuse columns that can only be counted.

    Raises:
        InputProblemError: names the first such column, and its type.
    """
    for name, what in odd.items():
        raise InputProblemError(
            "column_type",
            f"{path}: column {name!r} {what}; it cannot be aggregated.",
            "Write it as text or as numbers, or leave it out of group_by and aggregations.",
        )


def _odd(frame: pl.DataFrame, unknown: Mapping[str, str]) -> dict[str, str]:
    """Return the real types of the columns that can only be counted."""
    odd = {name: f"is of type {kind}" for name, kind in unknown.items()}
    for name, dtype in frame.schema.items():
        if name in unknown:
            continue
        if dtype.is_nested() or dtype in {pl.Binary(), pl.Object()} or dtype == pl.Duration:
            odd[name] = f"is of type {dtype}"
        elif dtype.is_integer() and dtype not in _WITHIN:
            wide = frame[name].cast(pl.Int64, strict=False)
            lost = wide.is_null() & frame[name].is_not_null()
            if lost.any():
                value = frame[name].filter(lost)[0]
                odd[name] = f"holds {value}, beyond 64-bit whole numbers"
    return odd


class Parts:
    """Summaries of one file's parts, merged from time to time to limit their number.

    Args:
        wanted: the request.
        path: the file.
    """

    def __init__(self, wanted: Wanted, path: Path) -> None:
        self.wanted, self.path = wanted, path
        self.parts: list[Summary] = []

    def add(self, part: Summary) -> None:
        """Add the next part."""
        self.parts.append(part)
        if len(self.parts) > MOST_PARTS:
            self.parts = [self._together()]

    def summary(self) -> Summary:
        """Return the summary of all parts.

        Raises:
            InputProblemError: the file has no row.
        """
        if not self.parts:
            hint = "Check how it was exported."
            raise InputProblemError("file_empty", f"{self.path} has no rows.", hint)
        return self._together()

    def _together(self) -> Summary:
        kinds, _ = partial_aggregates.shared([part.kinds for part in self.parts])
        return _merged(self.parts, kinds, self.wanted)


def _merged(parts: Sequence[Summary], kinds: dict[str, Kind], wanted: Wanted) -> Summary:
    """Merge summaries whose columns have ``kinds`` in all of them."""
    groups = [part.groups for part in parts if part.groups is not None]
    functions = {name: what for name, what in wanted.of(kinds).items() if name in kinds}
    columns = {name: kinds[name] for name in functions}
    keys = {key: kinds[key] for key in wanted.keys}
    odd: dict[str, str] = {}
    for part in parts:
        odd = {**part.odd, **odd}
    return Summary(
        sum(part.rows for part in parts),
        parts[0].columns,
        kinds,
        partial_aggregates.merge([part.whole for part in parts], {}, kinds),
        partial_aggregates.merge(groups, keys, columns, functions) if groups else None,
        odd=odd,
    )


class FileRun:
    """One CSV file: its parts in order, repeated with wider types where a value needs them.

    Args:
        wanted: the request.
        item: the file.
        file: the file, as its beginning shows it.
        form: the detected form of its records.
    """

    def __init__(self, wanted: Wanted, item: Item, file: csv_files.CsvFile, form: Form) -> None:
        self.wanted, self.whole, self.form = wanted, item, form
        self.path = item.path
        self.told = csv_notes.of_file(file, wanted.form.written, form.written)
        self._begin()

    def _begin(self) -> None:
        self.parts = Parts(self.wanted, self.path)
        self.rows = 0
        self.rejects = Rejects()
        self.notes = Notes(self.path.name)
        self.needed: dict[str, list[pl.DataType]] = {}

    def take(self, made: Made) -> None:
        """Add the next part of the file.

        Raises:
            InputProblemError: the part has a problem.
        """
        if made.problem is not None:
            kind, text = made.problem
            if made.problem_row is not None:
                text = f"{self.path}, row {self.rows + made.problem_row + 1}: {text}."
            raise InputProblemError(kind, text)
        self.notes.add(made.notes, self.rows)
        self.rejects.join(made.rejects, self.rows)
        self.rows += made.rows
        for name, dtype in made.needed.items():
            self.needed.setdefault(name, []).append(dtype)
        if made.summary is not None and not self.needed:
            self.parts.add(made.summary)

    def ended(self) -> bool:
        """Return whether the file is complete; if not, widen its types for another pass."""
        if not self.needed:
            return True
        wider = {
            name: csv_parsing.join([self.form.schema[name], *types])
            for name, types in self.needed.items()
        }
        self.form = replace(self.form, schema={**self.form.schema, **wider})
        self._begin()
        return False

    def summary(self) -> Summary:
        """Return the file's summary.

        Raises:
            InputProblemError: it has no row, or too many bad ones.
        """
        self.rejects.require_few(self.path, self.rows)
        notes = (*self.told, *self.notes.all())
        return replace(self.parts.summary(), notes=notes, rejects=self.rejects)


class Ranges(FileRun):
    """One large CSV file, as ranges that are read in parallel."""

    def __init__(self, wanted: Wanted, item: Item, file: csv_files.CsvFile, form: Form) -> None:
        size = file.path.stat().st_size
        longest = RANGE_BYTES if form.only is None else NARROW_FACTOR * RANGE_BYTES
        count = range_count(size - file.data_start, None, cluster.cpus(), longest)
        self.start = file.data_start
        self.bounds = byte_ranges.split(file.data_start, size, count)
        super().__init__(wanted, item, file, form)

    def _begin(self) -> None:
        super()._begin()
        self.chain: Chain[Made] = Chain(self.start, self._again)

    def item(self, number: int, first: int | None = None) -> Item:
        """Return the work of one range."""
        first = self.start if number == 0 else first
        return replace(self.whole, form=self.form, bounds=self.bounds[number], first=first)

    def _again(self, number: int, first: int) -> Made:
        made = work(self.wanted, self.item(number, first))
        return cast("Made", made)

    def add(self, number: int, made: Made) -> None:
        """Take the result of one range; they may come in any order."""
        for verified in self.chain.add(number, made):
            self.take(verified)


# -- the driver ------------------------------------------------------------------------------------


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Aggregate, or return the result of an identical request."""
    asked = AggregateRequest.of(request)
    reporter.progress("reading", 0, 1, "looking at the sources")
    roots = (request.datasets_dir, request.models_dir)
    target = csv_files.output_file(asked.output_path, "output_path", *roots)
    found = {name: resolve(name, roots, "data_sources") for name in asked.data_sources}
    files = [(name, file) for name, source in found.items() for file in source.files]
    _require_once(files)
    taken = [csv_plan.fingerprint(file) for _, file in files]
    deciding = [str(sorted(known.items())) for known in taken]
    output = Output(target, request, deciding, overwrite=asked.overwrite)
    output.require_allowed(*(file for _, file in files))
    if (known := output.finished()) is not None:
        return {**known, "reused": True}
    aggregations = asked.aggregations
    said = csv_plan.said(asked.csv)
    wanted = Wanted(tuple(asked.group_by), aggregations, said)
    _require_apart(wanted.keys, aggregations or {})
    reporter.progress("waiting", 0, 1, "asking the cluster for CPUs")
    cluster.connect()
    items = _items(found, said)
    made = _all(wanted, items, reporter)
    warnings = _with_text_as_written(wanted, items, made, reporter)
    sources = _by_source(found, items, made, wanted)
    columns = list(dict.fromkeys(name for summary in sources.values() for name in summary.columns))
    for name in said.schema:
        require_column(name, columns, "schema", "any of the sources")
    said.require_formats(columns, "any of the sources")
    for (_, file), known_file in zip(files, taken, strict=True):
        csv_plan.require_unchanged(file, known_file)
    table, mismatches, left = _tables(sources, wanted, aggregations)
    warnings += left + _unread(columns, wanted)
    rejected = Rejected()
    for at, (_, file) in enumerate(files):
        rejected.add(file, made[at].rows, made[at].rejects)
    warnings += rejected.said()
    for source in found.values():
        warnings += passed_over(source.files, OLD_SUFFIXES)
    warnings += csv_notes.said(note for at in sorted(made) for note in made[at].notes)
    with output.folder():
        output.write(table)
        result = {
            "status": "success",
            "total_rows": sum(summary.rows for summary in sources.values()),
            **account(
                rejected.read, sum(summary.rows for summary in sources.values()), {}, rejected
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


def _items(found: Mapping[str, Source], said: Form) -> list[Item]:
    """Return the work of all files.

    Raises:
        InputProblemError: a value in a folder's name is not of its declared type.
    """
    items = []
    for name, source in found.items():
        keys = hive.keys(source, said)
        for number, file in enumerate(source.files):
            known = keys.slice(number, 1) if keys.width else keys
            items.append(Item(name, file, known))
    return items


def _unread(columns: Sequence[str], wanted: Wanted) -> list[str]:
    """Return a warning about the columns that were not read: earlier releases read all."""
    names = [name for name in columns if wanted.columns is not None and name not in wanted.columns]
    if not names:
        return []
    shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    said = (
        "summaries and mismatches hold only the requested columns, since no others are read now;"
        f" not read: {shown}. Without aggregations every column is summarised."
    )
    return [said]


def _require_once(files: Sequence[tuple[str, Path]]) -> None:
    """Refuse a file that would count twice.

    Raises:
        InputProblemError: names the file and both sources.
    """
    seen: dict[Path, tuple[str, Path]] = {}
    for source, file in files:
        other, first = seen.setdefault(file.resolve(), (source, file))
        if (other, first) != (source, file):
            raise InputProblemError(
                "source_repeated",
                f"data_sources: {first} (of {other!r}) and {file} (of {source!r}) are one file.",
                "Name each file once; a folder or a link may name it too.",
            )


def _all(wanted: Wanted, files: Sequence[Item], reporter: Reporter) -> dict[int, Summary]:
    """Aggregate all files in parallel; large ones in ranges, for an even load."""
    sizes = [file.path.stat().st_size for file in files]
    longest = max(RANGE_BYTES, sum(sizes) // (SHARES_PER_CPU * cluster.cpus()))
    large = {}
    for index, item in enumerate(files):
        if sizes[index] > longest and _is_plain(item.path):
            file, form = form_of(item, wanted)
            if not file.is_stream:
                large[index] = Ranges(wanted, item, file, form)
    whole = [(index, 0, item) for index, item in enumerate(files) if index not in large]
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


def _is_plain(path: Path) -> bool:
    return format_of(path) == "csv" and uncompressed(path) == path


def _with_text_as_written(
    wanted: Wanted, files: Sequence[Item], made: dict[int, Summary], reporter: Reporter
) -> list[str]:
    """Read CSV files again whose column is text in another file of the same source.

    Otherwise a code would be ``02494`` in one part and a number in another.

    Returns:
        Warnings: the columns that became text, and where.
    """
    again: dict[tuple[str, ...], list[int]] = {}
    warnings = []
    for source in dict.fromkeys(file.source for file in files):
        at = [i for i, file in enumerate(files) if file.source == source]
        if any(files[i].path.suffix.lower() == ".parquet" for i in at):
            continue
        _, clashing = partial_aggregates.shared([made[i].kinds for i in at])
        mixed = [name for name in clashing if any(made[i].kinds.get(name) == "text" for i in at)]
        for name in mixed:
            text = next(i for i in at if made[i].kinds.get(name) == "text")
            other = next(i for i in at if made[i].kinds.get(name) not in {"text", "missing", None})
            warnings.append(
                f"column {name!r} is text in all files of {source!r}: it is text in"
                f" {files[text].path.name}, and {made[other].kinds[name]} in"
                f" {files[other].path.name}. Where it is one type, declare it: schema."
            )
        for i in at:
            names = tuple(name for name in mixed if made[i].kinds.get(name) != "text")
            if names:
                again.setdefault(names, []).append(i)
    for names, at in again.items():
        schema = {**wanted.form.schema, **dict.fromkeys(names, pl.String())}
        form = replace(wanted.form, schema=schema, declared=frozenset(schema))
        read = _all(replace(wanted, form=form), [files[i] for i in at], reporter)
        for number, summary in read.items():
            made[at[number]] = replace(summary, notes=made[at[number]].notes)
    return warnings


def _by_source(
    found: dict[str, Source],
    files: Sequence[Item],
    made: dict[int, Summary],
    wanted: Wanted,
) -> dict[str, Summary]:
    """Merge the files of each source; they must have the same columns."""
    sources = {}
    for name in found:
        parts = {file.path: made[i] for i, file in enumerate(files) if file.source == name}
        (first, own), *others = parts.items()
        for path, part in others:
            if odd := sorted(set(part.columns) ^ set(own.columns)):
                raise InputProblemError(
                    "columns_differ",
                    f"{path} does not go with {first}: only one of them has {odd}.",
                    "Name files with different columns as separate sources.",
                )
        kinds, clashing = partial_aggregates.shared([part.kinds for part in parts.values()])
        if clashing:
            types = {str(path): part.kinds[clashing[0]] for path, part in parts.items()}
            raise InputProblemError(
                "columns_differ",
                f"Column {clashing[0]!r} has different types in the files of {name!r}:"
                f" {_few(types)}.",
                "Correct them, declare the column's type (schema), or name the files as separate"
                " sources.",
            )
        sources[name] = _merged(list(parts.values()), kinds, wanted)
    return sources


def _few(types: Mapping[str, Kind]) -> str:
    """Return one example of each type."""
    examples = {kind: name for name, kind in types.items()}
    return ", ".join(f"{kind} in {name}" for kind, name in examples.items())


def _tables(
    sources: dict[str, Summary], wanted: Wanted, aggregations: Mapping[str, Sequence[str]] | None
) -> tuple[pl.DataFrame, list[dict[str, Any]], list[str]]:
    """Return the output, the mismatches between sources, and warnings on columns left out."""
    kinds, clashing = partial_aggregates.shared([summary.kinds for summary in sources.values()])
    mismatches = _mismatches(sources)
    if not wanted.keys and aggregations is None:
        return _summary_table(sources), mismatches, _left_out(sources)
    needed = [name for name in (*wanted.keys, *(wanted.columns or ())) if name in clashing]
    if needed:
        types = {source: summary.kinds[needed[0]] for source, summary in sources.items()}
        raise InputProblemError(
            "columns_differ",
            f"Column {needed[0]!r} has different types in the sources: {_few(types)}.",
            "Correct the sources, declare the column's type (schema), or leave it out.",
        )
    # A column without any value counts as integers.
    kinds = {name: "integer" if kind == "missing" else kind for name, kind in kinds.items()}
    functions = _functions(kinds, wanted, aggregations)
    _require_apart(wanted.keys, functions)
    columns = {name: kinds[name] for name in functions}
    keys = {key: kinds[key] for key in wanted.keys}
    parts = [s.groups if wanted.keys else s.whole for s in sources.values()]
    there = [part for part in parts if part is not None]
    asked = functions if wanted.keys else None
    merged = partial_aggregates.merge(there, keys, columns, asked)
    table = merged.select(
        *wanted.keys,
        partial_aggregates.ROWS,
        *(
            partial_aggregates.value(merged, name, what, kinds[name]).alias(f"{name}_{what}")
            for name, names in functions.items()
            for what in names
        ),
    )
    left = [
        f"column {name!r} was left out: it has different types in the sources" for name in clashing
    ]
    if aggregations is None:
        left += _left_out(sources)
    return (table.sort(wanted.keys, nulls_last=True) if keys else table), mismatches, left


def _left_out(sources: Mapping[str, Summary]) -> list[str]:
    """Return warnings about the columns that are only counted."""
    return [
        f"column {name!r} was only counted: in {source!r} it {what}"
        for source, summary in sources.items()
        for name, what in summary.odd.items()
    ]


def _functions(
    kinds: dict[str, Kind], wanted: Wanted, aggregations: Mapping[str, Sequence[str]] | None
) -> Mapping[str, Sequence[str]]:
    if aggregations is None:
        every = list(DEFAULT_FUNCTIONS)
        return {n: every for n, k in kinds.items() if k in NUMERIC and n not in wanted.keys}
    for name, names in aggregations.items():
        wrong = [what for what in names if kinds[name] not in NUMERIC]
        wrong = [what for what in wrong if what not in partial_aggregates.ANY_KIND]
        if wrong:
            raise InputProblemError(
                "column_not_numeric",
                f"aggregations.{name}: {wrong[0]} needs numbers, and the column is {kinds[name]}.",
                f"Such a column has {', '.join(partial_aggregates.ANY_KIND)}; if it holds numbers"
                f" in all sources, declare it: schema {{{name!r}: 'number'}}.",
            )
    return aggregations


def _require_apart(keys: Sequence[str], functions: Mapping[str, Sequence[str]]) -> None:
    """Refuse a key with the name of another column of the output.

    Raises:
        InputProblemError: names both columns.
    """
    others = {partial_aggregates.ROWS: "the number of rows of each group"}
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
    """Return, for each source, how its columns differ from those of the first source."""
    first = next(iter(sources.values()))
    found = []
    for name, summary in sources.items():
        lacks = [column for column in first.columns if column not in summary.columns]
        adds = [column for column in summary.columns if column not in first.columns]
        types = {
            column: {"here": summary.kinds[column], "first": kind}
            for column, kind in first.kinds.items()
            if len({kind, summary.kinds.get(column, kind)} - {"missing"}) > 1
        }
        if lacks or adds or types:
            found.append({"source": name, "lacks": lacks, "adds": adds, "types": types})
    return found


def describe(summary: Summary) -> dict[str, dict[str, Any]]:
    """Return the type and the aggregates of each column, as JSON types; dates as ISO 8601."""
    described = {}
    for name, kind in summary.kinds.items():
        functions = partial_aggregates.of_kind(kind)
        found = summary.whole.select(
            partial_aggregates.value(summary.whole, name, what, kind).alias(what)
            for what in functions
        )
        # Python's times have no nanoseconds.
        fine = pl.selectors.datetime("ns").dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
        values = found.with_columns(fine).row(0, named=True)
        plain = {what: _json(value) for what, value in values.items()}
        described[name] = {"type": kind, "missing": summary.rows - plain["count"], **plain}
    return described


def _json(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Decimal):
        return float(value)
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
            **{what: _text(found.get(what)) for what in ("min", "max")},
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
