"""Read a dataset into memory with polars, and compute the fingerprints of its files."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from ..accounting import Rejected, Rejects
from ..csv import byte_ranges
from ..csv import files as csv_files
from ..csv import notes as csv_notes
from ..csv import parsing as csv_parsing
from ..csv import plan as csv_plan
from ..csv import text as csv_text
from ..csv.dialect import CsvOptions
from ..csv.notes import Note, Notes
from ..csv.parsing import Form, Reject
from ..files import sha256
from ..inputs.sources import Source, passed_over, require_column
from ..protocol import InputProblemError
from . import hive
from . import parquet as parquet_tables
from .memory import Growth

#: What a CSV file looks like of which nobody has said anything.
PLAIN = csv_plan.said(CsvOptions())
#: The words for a missing value in it, besides the empty field.
MISSING = list(csv_files.MISSING)

#: How much of a file is read at once.
BLOCK_BYTES = 8 << 20
#: The most passes: whole numbers, numbers, text each widen a type; and a column may start out
#: empty.
MAX_PASSES = 5
_SHOWN = 80
_TIME = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?$"


@dataclass(frozen=True)
class Fingerprint:
    """What one input file was when it was read.

    ``sha256`` is its content's; where its folders' names hold columns, that of both.
    """

    path: str
    bytes: int
    modified_ns: int
    sha256: str

    def as_json(self) -> dict[str, str | int]:
        """Return the fields by name."""
        return asdict(self)


def fingerprints(source: Source) -> list[Fingerprint]:
    """Digest every file of ``source`` by its content."""

    def take(file: Path, keys: Mapping[str, str | None]) -> Fingerprint:
        status = file.stat()
        digest = sha256(file)
        if keys:
            digest = hashlib.sha256(json.dumps([digest, keys]).encode()).hexdigest()
        return Fingerprint(str(file), status.st_size, status.st_mtime_ns, digest)

    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run meanwhile
        return list(pool.map(take, source.files, source.keys or [{}] * len(source.files)))


def require_unchanged(taken: list[Fingerprint]) -> None:
    """Refuse files that were written to while they were read.

    Raises:
        InputProblemError: names the first such file.
    """
    for fingerprint in taken:
        status = Path(fingerprint.path).stat()
        if (status.st_size, status.st_mtime_ns) != (fingerprint.bytes, fingerprint.modified_ns):
            raise InputProblemError(
                "dataset_changing",
                f"{fingerprint.path} was written to while it was being read.",
                "Copy it under another name and rename it when it is complete.",
            )


def read(  # noqa: PLR0913 - what to read, how, and what to tell of it
    source: Source,
    text: Collection[str] = (),
    warnings: list[str] | None = None,
    said: Form = PLAIN,
    *,
    rejected: Rejected | None = None,
    growth: Growth | None = None,
) -> pl.DataFrame:
    """Read all files of ``source``, in their order, into one table.

    Text is stripped of surrounding blanks; what is then empty is missing.

    Args:
        source: the files.
        text: columns of a CSV file that are text even where they look like numbers.
        warnings: where to put what the caller should know of how values were read.
        said: what the caller said of how CSV is written (:func:`csv.plan.said`).
        rejected: takes the bad rows, where these are to be put aside.
        growth: of the memory that this job needs; by default that of this table.

    Raises:
        InputProblemError: a file that is damaged or larger than memory, or whose columns are not
            those of the first.
    """
    noted: list[Note] = []
    rejected = Rejected() if rejected is None else rejected
    growth = Growth() if growth is None else growth
    unread: dict[str, str] = {}
    keys = hive.keys(source, said, text)
    own = hive.without(said, keys.columns)
    frames = []
    for file in source.files:
        if source.format == "csv":
            one = _read_csv(file, text, own, growth)
            noted += one.notes
            rejected.add(file, one.frame.height, one.rejects)
            frames.append(one.frame)
        else:
            frames.append(_read_parquet(file, unread))
            rejected.add(file, frames[-1].height)
    for file, frame in zip(source.files, frames, strict=True):
        source.columns(file, frame.columns)
    # What polars cannot read in one file is left out of all.
    frames = [frame.drop(unread, strict=False) for frame in frames]
    names = frames[0].columns
    for file, frame in zip(source.files, frames, strict=True):
        if sorted(frame.columns) != sorted(names):
            added = sorted(set(frame.columns) - set(names))
            lacking = sorted(set(names) - set(frame.columns))
            raise InputProblemError(
                "columns_differ",
                f"{file} has not the columns of {source.files[0]}: it lacks {lacking or 'none'}"
                f" and adds {added or 'none'}.",
                "Give every part the same header.",
            )
    if source.format == "csv":
        frames = _with_text_as_written(source.files, frames, text, own, growth)
    if warnings is not None:
        warnings += [*rejected.said(), *passed_over(source.files), *csv_notes.said(noted)]
        warnings += [f"column {n!r} was left out: it is of type {t}" for n, t in unread.items()]
    if keys.width:
        frames = [hive.added(frame, keys.slice(number, 1)) for number, frame in enumerate(frames)]
        names = [*names, *keys.columns]
    return _join(source.files, [frame.select(names) for frame in frames], said.missing)


def _with_text_as_written(
    files: Sequence[Path],
    frames: list[pl.DataFrame],
    text: Collection[str],
    said: Form,
    growth: Growth,
) -> list[pl.DataFrame]:
    """Read again those files that hold only numbers, or the like, where another holds text.

    Else the same label would be ``007`` in one part and 7 in another.
    """
    if len(frames) == 1:
        return frames
    mixed = [name for name in frames[0].columns if _is_mixed(_kinds(frames, name))]
    return [
        _read_csv(file, [*text, *mixed], said, growth).frame
        if any(f[m].dtype != pl.String for m in mixed)
        else f
        for file, f in zip(files, frames, strict=True)
    ]


def _kinds(frames: list[pl.DataFrame], name: str) -> dict[pl.DataType, int]:
    """Return the types that a column has, each with the number of the last table that has it.

    A CSV column without a value looks like text, and does not count.
    """
    # Not by their schema, which polars makes anew of all columns whenever it is asked for.
    columns = [frame[name] for frame in frames]
    return {c.dtype: i for i, c in enumerate(columns) if c.null_count() < len(c)}


def _is_mixed(kinds: dict[pl.DataType, int]) -> bool:
    return len(kinds) > 1 and pl.String() in kinds


def _join(
    files: Sequence[Path], frames: list[pl.DataFrame], missing: Sequence[str]
) -> pl.DataFrame:
    """Put tables below each other; a column that is text in one of them is text in all.

    Raises:
        InputProblemError: a column is of one kind here and of another there.
    """
    text = []
    for name in frames[0].columns if len(frames) > 1 else ():
        there = _kinds(frames, name)
        if _is_mixed(there):
            text.append(name)
            continue
        groups = {_group(kind): (kind, i) for kind, i in there.items()}
        if len(groups) > 1:
            (first, at), (other, beside) = list(groups.values())[:2]
            raise InputProblemError(
                "columns_differ",
                f"Column {name!r} is of type {first} in {files[at]} and {other} in"
                f" {files[beside]}.",
                "Write it in the same way in every part.",
            )
        empty = pl.lit(None).alias(name)
        frames = [f.with_columns(empty) if f[name].null_count() == len(f) else f for f in frames]
    names = frames[0].columns if len(frames) > 1 else ()
    fine = [name for name in names if _lose_nanoseconds(files, frames, name)]
    joined = pl.concat(
        [
            f.with_columns(
                *(written(f[name]) for name in text),
                *(_with_nanoseconds(f[name]) for name in fine),
            )
            for f in frames
        ],
        how="vertical_relaxed",
    )
    words = [name for name, kind in joined.schema.items() if kind == pl.String]
    if not words:
        return joined
    stripped = pl.col(words).str.strip_chars()
    return joined.with_columns(stripped).with_columns(
        pl.when(pl.col(name).is_in([*missing, ""])).then(None).otherwise(pl.col(name)).alias(name)
        for name in words
    )


def _lose_nanoseconds(files: Sequence[Path], frames: list[pl.DataFrame], name: str) -> bool:
    """Return whether times have nanoseconds in one table, and polars would take them away.

    Raises:
        InputProblemError: there are times in another that would have no room for them.
    """
    types = {frame[name].dtype for frame in frames} - {pl.Null()}
    units = {dtype.time_unit for dtype in types if isinstance(dtype, pl.Datetime)}
    if len(types) == 1 or "ns" not in units:
        return False
    for file, frame in zip(files, frames, strict=True):
        try:
            _with_nanoseconds(frame[name])
        except pl.exceptions.InvalidOperationError:
            raise InputProblemError(
                "columns_differ",
                f"Column {name!r} holds times to the nanosecond, and in {file} times before 1677 or"
                " after 2262, which have no nanoseconds.",
                "Round it to microseconds in every part.",
            ) from None
    return True


def _with_nanoseconds(times: pl.Series) -> pl.Series:
    zone = times.dtype.time_zone if isinstance(times.dtype, pl.Datetime) else None
    return times.cast(pl.Datetime("ns", zone))


def written(column: pl.Series) -> pl.Series:
    """Return a column as text; a whole number is written alike, whatever stands beside it."""
    if column.dtype == pl.Time:  # a cast would cut off what is less than a second
        return column.dt.to_string("%H:%M:%S%.f")
    if not column.dtype.is_float():
        return column.cast(pl.String)
    # Beside a fraction or a missing value, whole numbers are stored as floats.
    return column.fill_nan(None).cast(pl.String).str.strip_suffix(".0")


def _group(kind: pl.DataType) -> str:
    """Name what a type goes together with."""
    if kind.is_numeric() or kind == pl.Boolean:
        return "number"
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        return f"moment in {kind.time_zone}"
    return "moment" if isinstance(kind, (pl.Date, pl.Datetime)) else str(kind)


@dataclass
class _File:
    """A CSV file as a table.

    Attributes:
        frame: its sound rows.
        notes: what the caller should know of how values were read.
        rejects: the numbers of its other rows, from 0, and the first of them.
    """

    frame: pl.DataFrame
    notes: list[Note]
    rejects: Rejects


def _read_csv(file: Path, text: Collection[str], said: Form, growth: Growth) -> _File:
    """Read a file with the reader of ``process_large_csv``: the same rows, the same values."""
    head, sample = csv_text.begin(file, said.written, "dataset_path")
    for name in said.schema:
        require_column(name, head.columns, "schema", str(file))
    said.require_formats(head.columns, str(file))
    declared = {**said.schema, **{n: pl.String() for n in head.columns if n in text}}
    form = replace(said, schema=declared, declared=frozenset(declared)).of(head.written)
    form = csv_parsing.fitted(sample, head.columns, form)
    for _ in range(MAX_PASSES):
        made = _Pass(head, form, growth)
        made.run()
        if not made.needed:
            break
        wider = {n: csv_parsing.join([form.schema[n], *types]) for n, types in made.needed.items()}
        form = replace(form, schema={**form.schema, **wider})
    else:
        message = f"{file}: the types of its columns changed in every pass"
        raise RuntimeError(message)
    made.rejects.require_few(file, made.rows)
    frame = pl.concat(made.frames) if made.frames else pl.DataFrame()
    if frame.is_empty():
        raise InputProblemError(
            "dataset_empty", f"{file} has a header and no rows.", "Check how it was exported."
        )
    # A column without a value looks like text, and does not count.
    frame = frame.with_columns(
        *(pl.col(n).cast(pl.String) for n, kind in form.schema.items() if kind == pl.Null),
        *(column for column in _times(frame) if column.name not in declared),
    )
    noted = [*csv_notes.of_file(head, said.written, form.written), *made.notes.all()]
    return _File(frame, noted, made.rejects)


class _Pass:
    """A file, read once.

    Args:
        head: what its first bytes show.
        form: what its records look like.
        growth: told of every piece that is kept.

    Attributes:
        frames: its pieces as tables; none where types do not fit.
        needed: the types that its values need then.
        rows: its rows.
        rejects: those that are put aside.
        notes: what the caller should know of how values were read.
    """

    def __init__(self, head: csv_files.CsvFile, form: Form, growth: Growth) -> None:
        self._head, self._form, self._growth = head, form, growth
        self.frames: list[pl.DataFrame] = []
        self.needed: dict[str, list[pl.DataType]] = {}
        self.rows = 0
        self.rejects = Rejects()
        self.notes = Notes(head.path.name)

    def run(self) -> None:
        """Read it.

        Raises:
            InputProblemError: names the first row that is not like the header, unless such rows
                are put aside; or there is no room for more.
        """
        path, before = self._head.path, self._growth.taken
        for piece in csv_text.pieces(self._head, BLOCK_BYTES, self._form.byte):
            if not piece.closed:
                raise byte_ranges.quote_open(path, piece.start + int(piece.toggles[-1]))
            block = csv_parsing.parse(piece, self._form, strict=not self._form.reject)
            if block.rejects and not self._form.reject:
                raise self._bad(block.rejects[0])
            self.rejects.add(block.rejects, self.rows)
            self.notes.add(block.notes, self.rows)
            self.rows += block.rows
            for name, dtype in block.needed.items():
                self.needed.setdefault(name, []).append(dtype)
            if self.needed:  # all is read again, and what is kept would be in its way
                self.frames.clear()
                self._growth.taken = before
            else:
                self.frames.append(block.frame)
                self._growth.take(path, block.frame)
        kept = sum(frame.height for frame in self.frames)
        if not self.needed and kept + len(self.rejects.rows) != self.rows:
            message = f"{path}: {self.rows} rows were read, and not as many kept or rejected"
            raise RuntimeError(message)

    def _bad(self, reject: Reject) -> InputProblemError:
        where = f"column {reject.column!r}: " if reject.column else ""
        return InputProblemError(
            "row_invalid",
            f"{self._head.path}, row {self.rows + reject.row + 1}: {where}{reject.reason}:"
            f" {_shown(reject.record)}.",
            "Correct the file, or have such rows put aside: bad_rows 'reject'.",
        )


def _shown(record: Sequence[str | None]) -> str:
    text = ",".join(value or "" for value in record)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _times(frame: pl.DataFrame) -> Iterator[pl.Series]:
    """Yield the columns of text of which every value is a time of day, as such."""
    for column in frame.select(pl.selectors.string()):
        # At once, for most columns.
        known = column.drop_nulls()
        if len(known) and re.match(_TIME, known[0]) and known.str.contains(_TIME).all():
            found = column.str.to_time("%H:%M:%S%.f", strict=False)
            if found.null_count() == column.null_count():
                yield found


def _read_parquet(file: Path, unread: dict[str, str]) -> pl.DataFrame:
    """Read a file; ``unread`` takes the columns of a type that polars lacks, and their types."""
    frame, unknown = parquet_tables.read(file)
    unread |= unknown
    return frame
