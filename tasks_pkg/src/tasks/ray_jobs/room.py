"""Whether a table has room in this process's memory, before it is read.

Else the kernel ends the job in the middle, and nobody is told why.
"""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .protocol import InputProblemError
from .sources import Source

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
#: A value as a table's number, and as the model's.
_TABLE_BYTES, _MODEL_BYTES = 8, 4
#: What polars takes for a text beside its characters.
_VIEW_BYTES = 16
_SAMPLE_BYTES = 1 << 20
_GB = 1e9


def require(source: Source) -> None:
    """Refuse a dataset that certainly does not fit.

    Raises:
        InputProblemError: says how much it takes and how much there is.
    """
    needed, free = _needed(source), available()
    if free is None or needed <= free:
        return
    raise InputProblemError(
        "dataset_too_large",
        f"{source.files[0]}{' and its other parts' if len(source.files) > 1 else ''} take about"
        f" {needed / _GB:.1f} GB of memory as a table and as the model's numbers; this job has"
        f" {free / _GB:.1f} GB.",
        "Select rows and columns with process_large_csv, or give Ray more memory (ray_memory_mb).",
    )


def available() -> int | None:
    """Return the bytes that this process's container and host still have; None if not known."""
    host = dict(line.split(":") for line in _lines(MEMINFO))
    found = [int(host["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in host else []
    limit = _number(CGROUP / "memory.max")
    if limit is not None:
        # The page cache, which counts as used too, gives way.
        used = dict(line.split() for line in _lines(CGROUP / "memory.stat"))
        found.append(limit - int(used.get("anon", 0)) - int(used.get("shmem", 0)))
    older = _number(CGROUP / "memory/memory.limit_in_bytes")
    if older is not None:
        used = dict(line.split() for line in _lines(CGROUP / "memory/memory.stat"))
        found.append(older - int(used.get("total_rss", 0)) - int(used.get("total_shmem", 0)))
    return min(found) if found else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    text = "".join(_lines(file))
    return int(text) if text.isdigit() else None  # "max" is no limit


def _needed(source: Source) -> int:
    return sum(_of_csv(f) if source.format == "csv" else _of_parquet(f) for f in source.files)


def _of_csv(file: Path) -> int:
    """Estimate from the fields of the first MB, as if all were numbers: text takes more."""
    with file.open("rb") as stream:
        sample = stream.read(_SAMPLE_BYTES)
    lines = sample.decode("utf-8", "replace").replace("\0", "").splitlines(keepends=True)
    separator = max(",;\t|", key="".join(lines[:1]).count)
    try:
        fields = sum(len(record) for record in csv.reader(lines, delimiter=separator))
    except csv.Error:  # a field of more than its limit: text, and not many of them
        return 0
    share = fields / len(sample) if sample else 0.0
    return int(file.stat().st_size * share * (_TABLE_BYTES + _MODEL_BYTES))


def _of_parquet(file: Path) -> int:
    try:
        found = pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        return 0  # its reader says what is wrong
    needed = 0
    widths = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
    for place in range(found.num_columns):
        kind = found.schema.column(place).physical_type
        text = kind in {"BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"}
        width = _VIEW_BYTES if text else widths.get(kind, _TABLE_BYTES)
        needed += found.num_rows * (width + _MODEL_BYTES)
    return needed
