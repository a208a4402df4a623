"""``aggregate_data``: summaries of many sources, and aggregates by group over all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from typing import Any

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import pyarrow as pa
import pyarrow.parquet as pq

from . import byte_ranges, cluster, csv_blocks, csv_files, csv_plan, formula_engine, partials
from .csv_blocks import Form
from .csv_output import Output
from .expressions import NUMERIC, Kind
from .job import Reporter
from .process_csv import RANGE_BYTES, sample
from .protocol import InputProblemError, JobRequest
from .reading import MISSING
from .sources import Source, require_column, require_distinct, resolve

TASK = "tasks.data_tasks.aggregate_data"

#: Rows of a Parquet file that are in memory at a time.
BATCH_ROWS = 100_000
MAX_PASSES = 5


@dataclass(frozen=True)
class Wanted:
    """What is asked of each file: groups by ``keys``, and these columns (None for all)."""

    keys: tuple[str, ...]
    columns: tuple[str, ...] | None


@dataclass(frozen=True)
class Summary:
    """One file, or one source: its columns' types, its partial aggregates, and those by group."""

    rows: int
    kinds: dict[str, Kind]
    whole: pl.DataFrame
    groups: pl.DataFrame | None


# -- on every CPU ----------------------------------------------------------------------------------


def summarise(wanted: Wanted, item: tuple[str, Path]) -> Summary:
    """Read one file, part by part.

    Raises:
        InputProblemError: it is damaged, has no rows, or lacks a column that was asked for.
    """
    source, path = item
    for schema in _schemas(path):
        made = _with(wanted, source, path, schema)
        if isinstance(made, Summary):
            return made
        schema.update(made)
    message = f"{path}: the types of its columns changed in every pass"
    raise RuntimeError(message)


def _schemas(path: Path) -> Iterator[dict[str, pl.DataType]]:
    """Give what is known of a file's types, again after each change; nothing for Parquet."""
    schema: dict[str, pl.DataType] = {}
    if path.suffix.lower() != ".parquet":
        head = csv_files.read_head(path, "none") or b""
        file = csv_files.look(path, ",", "none", head)
        form = Form({}, frozenset(), tuple(MISSING))
        schema |= csv_blocks.infer(sample(file, ",", head), file.columns, form)
    for _ in range(MAX_PASSES):
        yield schema


def _with(
    wanted: Wanted, source: str, path: Path, schema: dict[str, pl.DataType]
) -> Summary | dict[str, pl.DataType]:
    """Summarise a file; or give the types that its values need beyond ``schema``."""
    kinds: dict[str, Kind] = {}
    rows = 0
    wholes: list[pl.DataFrame] = []
    groups: list[pl.DataFrame] = []
    needed: dict[str, list[pl.DataType]] = {}
    parts = _csv_parts(path, schema, needed) if schema else _parquet_parts(path)
    for frame in parts:
        if needed:
            continue
        if not kinds:
            kinds = formula_engine.kinds(frame.schema)
            for name in (*wanted.keys, *(wanted.columns or ())):
                require_column(name, frame.columns, "group_by or aggregations", source)
        rows += frame.height
        frame = frame.with_columns(  # noqa: PLW2901
            pl.col(name).fill_nan(None) for name, t in frame.schema.items() if t.is_float()
        )
        wholes.append(partials.partial(frame, (), kinds))
        if wanted.keys:
            columns = {name: kinds[name] for name in wanted.columns or kinds}
            groups.append(partials.partial(frame, wanted.keys, columns))
            if len(groups) > 16:  # noqa: PLR2004 - so that they do not pile up
                groups = [_together(groups, wanted.keys, kinds, columns)]
    if needed:
        return {name: csv_blocks.join([schema[name], *types]) for name, types in needed.items()}
    if not rows:
        raise InputProblemError("file_empty", f"{path} has no rows.", "Check how it was exported.")
    columns = {name: kinds[name] for name in wanted.columns or kinds}
    return Summary(
        rows,
        kinds,
        partials.merge(wholes, {}, kinds),
        _together(groups, wanted.keys, kinds, columns) if groups else None,
    )


def _together(
    groups: Sequence[pl.DataFrame],
    keys: Sequence[str],
    kinds: dict[str, Kind],
    columns: dict[str, Kind],
) -> pl.DataFrame:
    return partials.merge(groups, {key: kinds[key] for key in keys}, columns)


def _csv_parts(
    path: Path, schema: dict[str, pl.DataType], needed: dict[str, list[pl.DataType]]
) -> Iterator[pl.DataFrame]:
    head = csv_files.read_head(path, "none") or b""
    file = csv_files.look(path, ",", "none", head)
    form = Form(dict(schema), frozenset(), tuple(MISSING))
    size, rows = path.stat().st_size, 0
    count = max(1, -(-(size - file.data_start) // RANGE_BYTES))
    start = file.data_start
    for bounds in byte_ranges.split(file.data_start, size, count):
        piece = byte_ranges.read(path, bounds, form.byte, start)
        start = piece.end
        block = csv_blocks.parse(piece, form)
        if not piece.closed:
            what = f"{path}: a quote is opened and never closed."
            raise InputProblemError("quote_open", what, "Double it or remove it.")
        if block.rejects:
            first = block.rejects[0]
            where = f"{path}, row {rows + first.row + 1}"
            raise InputProblemError("row_invalid", f"{where}: {first.reason}.")
        for name, dtype in block.needed.items():
            needed.setdefault(name, []).append(dtype)
        rows += block.rows
        yield block.frame


def _parquet_parts(path: Path) -> Iterator[pl.DataFrame]:
    try:
        with pq.ParquetFile(path) as file:
            require_distinct(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield pl.DataFrame(pa.Table.from_batches([batch]))
    except (pa.ArrowException, OSError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise InputProblemError(
            "file_damaged",
            f"{path} cannot be read as Parquet: {first}.",
            "Write it again, or give it the suffix of what it is.",
        ) from None


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
    target = csv_files.output_file(parameters["output_path"], "output_path", roots)
    found = {name: resolve(name, roots) for name in parameters["data_sources"]}
    files = [(name, file) for name, source in found.items() for file in source.files]
    taken = [csv_plan.fingerprint(file) for _, file in files]
    output = Output(target, request, [str(sorted(known.items())) for known in taken])
    output.require_allowed(*(file for _, file in files), overwrite=parameters["overwrite"])
    if (known := output.finished()) is not None:
        return {**known, "reused": True}
    aggregations = parameters["aggregations"]
    wanted = Wanted(
        tuple(parameters["group_by"]), tuple(aggregations) if aggregations is not None else None
    )
    cluster.connect()
    made: dict[int, Summary] = {}
    reporter.progress("aggregating", 0, len(files), "files")
    for number, summary in cluster.each(bind(summarise, wanted), files):
        made[number] = summary
        reporter.progress("aggregating", len(made), len(files), "files")
    sources = _by_source(found, files, made)
    for (_, file), known_file in zip(files, taken, strict=True):
        csv_plan.require_unchanged(file, known_file)
    table, mismatches, warnings = _tables(sources, wanted, aggregations)
    with output.folder():
        output.write(table)
        result = {
            "status": "success",
            "total_rows": sum(summary.rows for summary in sources.values()),
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


def _by_source(
    found: dict[str, Source], files: Sequence[tuple[str, Path]], made: dict[int, Summary]
) -> dict[str, Summary]:
    """Put the files of each source together; they must have the same columns."""
    sources = {}
    for name in found:
        parts = [made[i] for i, (source, _) in enumerate(files) if source == name]
        paths = [path for source, path in files if source == name]
        kinds, clashing = partials.shared([part.kinds for part in parts])
        for path, part in zip(paths, parts, strict=True):
            if set(part.kinds) != set(parts[0].kinds) or clashing:
                odd = sorted(set(part.kinds) ^ set(parts[0].kinds)) or clashing
                raise InputProblemError(
                    "columns_differ",
                    f"{path} does not go with {paths[0]}: they differ in {odd}.",
                    "Name files of different columns as sources of their own.",
                )
        groups = [part.groups for part in parts if part.groups is not None]
        keys = [name for name in groups[0].columns if name in kinds] if groups else []
        columns = {n: k for n, k in kinds.items() if groups and f"{n}\0count" in groups[0].columns}
        sources[name] = Summary(
            sum(part.rows for part in parts),
            kinds,
            partials.merge([part.whole for part in parts], {}, kinds),
            _together(groups, keys, kinds, columns) if groups else None,
        )
    return sources


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
        types = {source: summary.kinds.get(needed[0]) for source, summary in sources.items()}
        raise InputProblemError(
            "columns_differ",
            f"Column {needed[0]!r} has not one type in all sources: {types}.",
            "Correct the sources, or leave the column out.",
        )
    functions = _functions(kinds, wanted, aggregations)
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
                f"Of such a column there are {', '.join(partials.ANY_KIND)}.",
            )
    return aggregations


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
            if summary.kinds.get(column, kind) != kind
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
            **{what: None if what not in found else float(found[what] or 0) if what == "sum"
               else found[what] for what in numbers},
            **{what: None if found[what] is None else str(found[what]) for what in ("min", "max")},
        }
        for source, summary in sources.items()
        for name, found in describe(summary).items()
    ]  # fmt: skip
    floats = {name: pl.Float64() for name in numbers}
    return pl.DataFrame(rows, schema_overrides=floats, infer_schema_length=None)
