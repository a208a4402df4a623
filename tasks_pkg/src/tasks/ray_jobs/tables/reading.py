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

#: The form of a CSV file without options from the caller.
PLAIN = csv_plan.said(CsvOptions())
#: The texts that stand for a missing value by default.
MISSING = list(csv_files.MISSING)

#: The number of bytes of a file that are read at once.
BLOCK_BYTES = 8 << 20
#: The most passes over a file: a type can only widen, from empty over integer and float to text.
MAX_PASSES = 5
_SHOWN_CHARS = 80
_TIME = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?$"


@dataclass(frozen=True)
class Fingerprint:
    """What identifies an input file's content at the time when it was read.

    ``sha256`` is the digest of the content, and of the columns in its folders' names if there are
    any.
    """

    path: str
    bytes: int
    modified_ns: int
    sha256: str

    def as_json(self) -> dict[str, str | int]:
        """Return the fields by name."""
        return asdict(self)


def fingerprints(source: Source) -> list[Fingerprint]:
    """Return the fingerprint of every file of ``source``."""

    def take(file: Path, keys: Mapping[str, str | None]) -> Fingerprint:
        status = file.stat()
        digest = sha256(file)
        if keys:
            digest = hashlib.sha256(json.dumps([digest, keys]).encode()).hexdigest()
        return Fingerprint(str(file), status.st_size, status.st_mtime_ns, digest)

    with ThreadPoolExecutor() as pool:  # hashlib releases the GIL
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


def read(  # noqa: PLR0913 - what to read, how, and where to report
    source: Source,
    text: Collection[str] = (),
    warnings: list[str] | None = None,
    said: Form = PLAIN,
    *,
    rejected: Rejected | None = None,
    growth: Growth | None = None,
) -> pl.DataFrame:
    """Read all files of ``source``, in order, into one table.

    Text is stripped of surrounding blanks; an empty result is missing.

    Args:
        source: the files.
        text: columns of CSV files that are text even if they look like numbers.
        warnings: a list to which warnings on how values were read are added.
        said: the form of CSV by the caller's options (:func:`csv.plan.said`).
        rejected: collects the bad rows, if bad rows do not end the job.
        growth: counts the memory that this job needs; by default, the memory of this table.

    Raises:
        InputProblemError: a file is damaged or larger than memory, or its columns are not those of
            the first file.
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
    # A column that polars cannot read in one file is left out of all.
    frames = [frame.drop(unread, strict=False) for frame in frames]
    names = frames[0].columns
    for file, frame in zip(source.files, frames, strict=True):
        if sorted(frame.columns) != sorted(names):
            added = sorted(set(frame.columns) - set(names))
            lacking = sorted(set(names) - set(frame.columns))
            raise InputProblemError(
                "columns_differ",
                f"{file} does not have the columns of {source.files[0]}: it lacks"
                f" {lacking or 'none'} and adds {added or 'none'}.",
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
    """Read files again in which a column is not text, although it is text in another file.

    Otherwise the same label would be ``007`` in one part and 7 in another.
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
    """Return the types of a column, each with the index of the last table in which it occurs.

    A CSV column without a value is read as text, and does not count.
    """
    # Without `frame.schema`, which polars builds anew from all columns at each access.
    columns = [frame[name] for frame in frames]
    return {c.dtype: i for i, c in enumerate(columns) if c.null_count() < len(c)}


def _is_mixed(kinds: dict[pl.DataType, int]) -> bool:
    return len(kinds) > 1 and pl.String() in kinds


def _join(
    files: Sequence[Path], frames: list[pl.DataFrame], missing: Sequence[str]
) -> pl.DataFrame:
    """Return the concatenation of tables; a column that is text in one of them is text in all.

    Raises:
        InputProblemError: a column has types in two tables that do not go together.
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
    """Return whether polars would cut nanoseconds from the times of one table.

    Raises:
        InputProblemError: another table has times out of the range of nanoseconds.
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
    """Return a column as text; a whole number is written alike as an integer and as a float."""
    if column.dtype == pl.Time:  # a cast would cut off fractions of a second
        return column.dt.to_string("%H:%M:%S%.f")
    if not column.dtype.is_float():
        return column.cast(pl.String)
    # In a column with fractions or missing values, whole numbers are stored as floats.
    return column.fill_nan(None).cast(pl.String).str.strip_suffix(".0")


def _group(kind: pl.DataType) -> str:
    """Return the name of a type's group: types of one group can be concatenated."""
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
        rejects: the bad rows: their numbers from 0, and the reasons of the first.
    """

    frame: pl.DataFrame
    notes: list[Note]
    rejects: Rejects


def _read_csv(file: Path, text: Collection[str], said: Form, growth: Growth) -> _File:
    """Read a file as ``process_large_csv`` does, so that both get the same rows and values."""
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
    # A column without a value becomes text.
    frame = frame.with_columns(
        *(pl.col(n).cast(pl.String) for n, kind in form.schema.items() if kind == pl.Null),
        *(column for column in _times(frame) if column.name not in declared),
    )
    noted = [*csv_notes.of_file(head, said.written, form.written), *made.notes.all()]
    return _File(frame, noted, made.rejects)


class _Pass:
    """One pass over a file.

    Args:
        head: the file, as its beginning shows it.
        form: what its records look like.
        growth: counts every piece that is kept.

    Attributes:
        frames: the pieces as tables; empty if a value did not fit its column's type.
        needed: in that case, the types that the values need, by column.
        rows: the number of rows.
        rejects: the bad rows.
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
        """Read the file.

        Raises:
            InputProblemError: a row does not fit, and bad rows are not rejected; or the memory is
                full.
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
            if self.needed:  # a second pass will read all again, and needs the memory
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
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


def _times(frame: pl.DataFrame) -> Iterator[pl.Series]:
    """Yield the text columns in which every value is a time of day, as times."""
    for column in frame.select(pl.selectors.string()):
        # The first value rules out most columns.
        known = column.drop_nulls()
        if len(known) and re.match(_TIME, known[0]) and known.str.contains(_TIME).all():
            found = column.str.to_time("%H:%M:%S%.f", strict=False)
            if found.null_count() == column.null_count():
                yield found


def _read_parquet(file: Path, unread: dict[str, str]) -> pl.DataFrame:
    """Read a file; columns whose type polars lacks go to ``unread``, with their types."""
    frame, unknown = parquet_tables.read(file)
    unread |= unknown
    return frame
