"""Check whether a table fits into this process's memory, before and while it is read.

Otherwise the kernel would kill the job, and the caller would get no reason.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..csv import files as csv_files
from ..csv import text as csv_text
from ..inputs.sources import Source
from ..protocol import InputProblemError

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
#: Bytes per value: of a number in a table, and of a model's 32-bit input.
_TABLE_BYTES, _MODEL_BYTES = 8, 4
#: Bytes per string in polars, in addition to its characters.
_VIEW_BYTES = 16
_SAMPLE_BYTES = 1 << 20
#: This share of all memory must stay free: Ray begins to kill its processes at 90 %.
_SPARE_SHARE = 0.1
_GB = 1e9


class Memory(NamedTuple):
    """The total and free memory of this process's container or host, whichever has less free."""

    free: int
    total: int


def require(source: Source, *, model: bool = True) -> None:
    """Refuse a dataset that certainly does not fit.

    A compressed file counts with its compressed size, as a lower bound. :class:`Growth` checks the
    rest while the file is read.

    Args:
        source: the dataset's files.
        model: whether the table is also converted to a model's numbers.

    Raises:
        InputProblemError: names the memory that is needed and that is free.
    """
    needed, free = _needed(source, _MODEL_BYTES if model else 0), available()
    if free is not None and needed > free:
        others = " and its other parts" if len(source.files) > 1 else ""
        raise _too_large(f"{source.files[0]}{others} take about", needed, free, model=model)


class Growth:
    """Refuses a table that outgrows this process's memory while it is read.

    Args:
        model: whether the table is also converted to a model's numbers.
    """

    def __init__(self, *, model: bool = True) -> None:
        self._model = model
        self._free = available()
        #: The bytes of the tables so far, and the bytes that processing them needs in all.
        self.taken = (0, 0)

    def take(self, file: Path, frame: pl.DataFrame) -> None:
        """Count one more piece of a file.

        Raises:
            InputProblemError: the tables need more memory than was free at the beginning, or
                little memory is left.
        """
        memory = _memory()
        if memory is None or self._free is None:
            return
        words = frame.select(pl.selectors.string())
        # Of strings, polars counts the characters alone.
        views = frame.height * words.width * _VIEW_BYTES
        numbers = frame.height * (frame.width - words.width)
        size = int(frame.estimated_size()) + views
        # Strings are stripped at the end, when they exist twice for a moment.
        more = size + int(words.estimated_size()) + views
        more += numbers * (_MODEL_BYTES if self._model else 0)
        held, needed = self.taken[0] + size, self.taken[1] + more
        self.taken = (held, needed)
        if needed > self._free or memory.free < min(held, _SPARE_SHARE * memory.total):
            what = f"{file} is larger than memory: the part read so far takes about"
            raise _too_large(what, needed, min(self._free, held + memory.free), model=self._model)


def _too_large(what: str, needed: int, free: int, *, model: bool) -> InputProblemError:
    numbers = " and as the model's numbers" if model else ""
    return InputProblemError(
        "dataset_too_large",
        f"{what} {needed / _GB:.1f} GB of memory as a table{numbers}; this job has"
        f" {free / _GB:.1f} GB.",
        "Select rows and columns with process_large_csv, or give Ray more memory (ray_memory_mb).",
    )


def available() -> int | None:
    """Return the free bytes of this process's container or host, the lesser; None if not known."""
    memory = _memory()
    return None if memory is None else memory.free


def _memory() -> Memory | None:
    host = {name: value for name, _, value in (line.partition(":") for line in _lines(MEMINFO))}
    found = []
    if "MemAvailable" in host:
        free, total = (int(host[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal"))
        found.append(Memory(free, total))
    for limit, stat, kinds in (
        ("memory.max", "memory.stat", ("anon", "shmem")),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.stat",
            ("total_rss", "total_shmem"),
        ),
    ):
        if (most := _number(CGROUP / limit)) is not None:
            # Only these kinds count as used: the kernel frees the page cache on demand.
            used = dict(line.split() for line in _lines(CGROUP / stat))
            found.append(Memory(most - sum(int(used.get(kind, 0)) for kind in kinds), most))
    return min(found) if found else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    text = "".join(_lines(file))
    return int(text) if text.isdigit() else None  # "max" is no limit


def _needed(source: Source, model_bytes: int) -> int:
    of = _of_csv if source.format == "csv" else _of_parquet
    return sum(of(file, model_bytes) for file in source.files)


def _of_csv(file: Path, model_bytes: int) -> int:
    """Return an estimate by the first MB, as if all fields were numbers: text takes more."""
    with csv_text.unpacked(file, csv_files.compression_of(file, "dataset_path")) as stream:
        sample = stream.read(_SAMPLE_BYTES)
    lines = sample.decode("utf-8", "replace").replace("\0", "").splitlines(keepends=True)
    separator = max(",;\t|", key="".join(lines[:1]).count)
    try:
        fields = sum(len(record) for record in csv.reader(lines, delimiter=separator))
    except csv.Error:  # a field beyond csv's limit: text, with few fields per MB
        return 0
    share = fields / len(sample) if sample else 0.0
    return int(file.stat().st_size * share * (_TABLE_BYTES + model_bytes))


def _of_parquet(file: Path, model_bytes: int) -> int:
    try:
        found = pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        return 0  # the reader reports what is wrong
    needed = 0
    widths = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
    for place in range(found.num_columns):
        kind = found.schema.column(place).physical_type
        text = kind in {"BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"}
        width = _VIEW_BYTES if text else widths.get(kind, _TABLE_BYTES)
        needed += found.num_rows * (width + model_bytes)
    return needed
