"""Read a CSV file's uncompressed text: its beginning, a sample of its records, or all of it."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ..inputs.sources import Compression
from ..protocol import InputProblemError
from . import byte_ranges
from . import files as csv_files
from . import recoding as csv_recoding
from .byte_ranges import Piece
from .dialect import Written
from .files import CsvFile

#: The bytes at a file's beginning, uncompressed, that determine the types of its columns.
SAMPLE_BYTES = 256 << 10
#: The number of further points in the file, and the bytes that are read at each.
SAMPLE_POINTS, POINT_BYTES = 16, 32 << 10


@contextmanager
def unpacked(path: Path, compression: Compression) -> Iterator[BinaryIO]:
    """Open a file's uncompressed text.

    Raises:
        InputProblemError: it is not compressed as its name says, or is cut off.
    """
    import pyarrow as pa  # noqa: PLC0415 - for zstd alone

    try:
        with path.open("rb") as raw:
            if compression == "gzip":
                yield cast("BinaryIO", gzip.GzipFile(fileobj=raw))
            elif compression == "zstd":
                yield cast("BinaryIO", pa.CompressedInputStream(raw, "zstd"))
            else:
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputProblemError(
            "file_damaged", f"{path} cannot be decompressed: {error}.", "Copy it again."
        ) from None


@contextmanager
def opened(file: CsvFile) -> Iterator[BinaryIO]:
    """Open a file's text, recoded as the common readers expect it.

    Raises:
        InputProblemError: see :func:`unpacked` and :func:`csv.recoding.recoded`.
    """
    with unpacked(file.path, file.compression) as stream:
        if not file.written.is_recoded:
            yield stream
            return
        blocks = iter(partial(stream.read, csv_recoding.BLOCK_BYTES), b"")
        recoded = csv_recoding.recoded(file.path, blocks, file.written)
        yield cast("BinaryIO", csv_recoding.Recoded(recoded))


def begin(path: Path, written: Written, parameter: str) -> tuple[CsvFile, bytes]:
    """Return how a file is written, and a sample of records to determine the columns' types.

    Args:
        path: the file.
        written: how it is written, as far as the caller said.
        parameter: the parameter that holds the path, for errors.

    Raises:
        InputProblemError: see :func:`csv.files.beginning` and :func:`csv.files.look`.
    """
    compression = csv_files.compression_of(path, parameter)
    raw = csv_files.read_head(path, compression)
    if raw is None:
        with unpacked(path, compression) as stream:
            raw = stream.read(csv_files.HEADER_LIMIT_BYTES)
    begin = csv_files.beginning(path, written, raw)
    file = csv_files.look(path, compression, begin)
    return file, _sample(file, begin.head)


def _sample(file: CsvFile, head: bytes) -> bytes:
    """Return whole records from all over the file; of a stream, from its beginning only."""
    byte = ord(file.separator)
    records = head[file.data_start : SAMPLE_BYTES]
    marks, _ = byte_ranges.toggles(records, byte)
    if len(head) >= SAMPLE_BYTES:  # its last record is cut
        records = records[: byte_ranges.last_record(records, marks)]
    if file.is_stream:
        return records
    size = file.path.stat().st_size
    if size <= SAMPLE_BYTES:
        return records
    parts = [records]
    with file.path.open("rb") as stream:
        for point in range(1, SAMPLE_POINTS + 1):
            start = byte_ranges.guess(stream, size * point // (SAMPLE_POINTS + 1), size, byte)
            stream.seek(start)
            window = stream.read(POINT_BYTES)
            marks, regular = byte_ranges.toggles(window, byte)
            if regular:
                parts.append(window[: byte_ranges.last_record(window, marks)])
    return b"".join(parts)


def pieces(file: CsvFile, length: int, separator: int) -> Iterator[Piece]:
    """Yield all records of a file, in pieces.

    Raises:
        InputProblemError: a record is too long, or the file cannot be decompressed.
    """
    with opened(file) as stream:
        missing = file.data_start
        while missing and (block := stream.read(min(missing, 1 << 20))):
            missing -= len(block)
        yield from byte_ranges.stream_pieces(stream, length, separator, file.path, file.data_start)
