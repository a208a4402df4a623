"""A CSV file's uncompressed text: its beginning, records from all over it, and all of it."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from . import byte_ranges, csv_files
from .byte_ranges import Piece
from .csv_files import CsvFile
from .protocol import InputProblemError

#: Bytes of a file, uncompressed, that decide the types of its columns.
SAMPLE_BYTES = 256 << 10
#: And those behind each of so many points of it.
SAMPLE_POINTS, POINT_BYTES = 16, 32 << 10


@contextmanager
def opened(path: Path, compression: csv_files.Compression) -> Iterator[BinaryIO]:
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


def begin(path: Path, separator: str, parameter: str) -> tuple[CsvFile, bytes]:
    """Give what a file's first bytes show, and records that show the types of its columns.

    Args:
        path: the file.
        separator: the character between fields.
        parameter: what errors call the path.

    Raises:
        InputProblemError: see :func:`csv_files.look`.
    """
    compression = csv_files.compression_of(path, parameter)
    head = csv_files.read_head(path, compression)
    if head is None:
        with opened(path, compression) as stream:
            head = stream.read(csv_files.HEADER_LIMIT_BYTES)
    file = csv_files.look(path, separator, compression, head)
    return file, _sample(file, separator, head)


def _sample(file: CsvFile, separator: str, head: bytes) -> bytes:
    """Give whole records from all over the file, or from its beginning where it is compressed."""
    byte = ord(separator)
    records = head[file.data_start : SAMPLE_BYTES]
    marks, _ = byte_ranges.toggles(records, byte)
    if len(head) >= SAMPLE_BYTES:  # its last record is cut
        records = records[: byte_ranges.last_record(records, marks)]
    if file.compression != "none":
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
    """Give all records of a file, one piece after another.

    Raises:
        InputProblemError: a record is too long, or the file cannot be decompressed.
    """
    with opened(file.path, file.compression) as stream:
        missing = file.data_start
        while missing and (block := stream.read(min(missing, 1 << 20))):
            missing -= len(block)
        yield from byte_ranges.stream_pieces(stream, length, separator, file.path, file.data_start)
