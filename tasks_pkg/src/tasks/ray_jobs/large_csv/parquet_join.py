"""Concatenate Parquet files of one schema without reading their data.

Row groups are copied unchanged; the new footer joins theirs, with every offset shifted. The format
is Apache Parquet's ``parquet.thrift`` in Thrift's compact protocol
(https://github.com/apache/parquet-format, https://github.com/apache/thrift/blob/master/doc/specs/
thrift-compact-protocol.md). Unknown fields are copied unchanged.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"PAR1"

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
)  # fmt: skip

#: A struct: its fields by number, each with its wire type.
Struct = dict[int, tuple[int, Any]]

# Field numbers in parquet.thrift.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
_CHUNK_OFFSETS, _META = (2, 4, 6), 3
_META_OFFSETS = (9, 10, 11, 14)


class Joiner:
    """Writes one Parquet file from parts that are appended in turn.

    Args:
        stream: the output; positioned at its beginning.
        watch: called with all bytes that are written, such as a digest's ``update``.
    """

    def __init__(self, stream: BinaryIO, watch: Callable[[bytes], object]) -> None:
        self._stream, self._watch = stream, watch
        self._footer: Struct | None = None
        self._position = 0
        self._put(MAGIC)

    def append(self, part: Path) -> None:
        """Copy the row groups of one file."""
        with part.open("rb") as source:
            size = source.seek(0, 2)
            source.seek(size - 8)
            length = int.from_bytes(source.read(4), "little")
            source.seek(size - 8 - length)
            footer = _read_struct(io.BytesIO(source.read(length)))
            shift = self._position - len(MAGIC)
            source.seek(len(MAGIC))
            self._copy(source, size - 8 - length - len(MAGIC))
        groups = footer[_ROW_GROUPS][1][1]
        for group in groups:
            _move(group, shift)
        if self._footer is None:
            self._footer = footer
        else:
            self._footer[_ROW_GROUPS][1][1].extend(groups)
            rows = self._footer[_NUM_ROWS][1] + footer[_NUM_ROWS][1]
            self._footer[_NUM_ROWS] = (_I64, rows)

    def close(self) -> None:
        """Write the footer.

        Raises:
            ValueError: there was no part.
        """
        if self._footer is None:
            message = "a Parquet file needs at least one part"
            raise ValueError(message)
        for ordinal, group in enumerate(self._footer[_ROW_GROUPS][1][1]):
            group.pop(_ORDINAL, None)
            if ordinal < 1 << 15:
                group[_ORDINAL] = (_I16, ordinal)
        out = io.BytesIO()
        _write_struct(out, self._footer)
        footer = out.getvalue()
        self._put(footer + len(footer).to_bytes(4, "little") + MAGIC)

    def _copy(self, source: BinaryIO, length: int) -> None:
        while length and (block := source.read(min(length, 4 << 20))):
            self._put(block)
            length -= len(block)

    def _put(self, block: bytes) -> None:
        self._stream.write(block)
        self._watch(block)
        self._position += len(block)


def _move(group: Struct, shift: int) -> None:
    places: list[tuple[Struct, tuple[int, ...]]] = [(group, (_GROUP_OFFSET,))]
    for chunk in group[_COLUMNS][1][1]:
        places += [(chunk, _CHUNK_OFFSETS), (chunk[_META][1], _META_OFFSETS)]
    for struct, fields in places:
        for field in fields:
            if field in struct:
                kind, value = struct[field]
                # Some writers set an offset that they do not use to 0.
                struct[field] = (kind, value + shift if value else value)


# -- Thrift's compact protocol ---------------------------------------------------------------------


def _varint(stream: io.BytesIO) -> int:
    result = shift = 0
    while True:
        byte = stream.read(1)[0]
        result |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004
            return result


def _signed(stream: io.BytesIO) -> int:
    value = _varint(stream)
    return (value >> 1) ^ -(value & 1)


def _read_struct(stream: io.BytesIO) -> Struct:
    fields: Struct = {}
    field = 0
    while header := stream.read(1)[0]:
        delta, kind = header >> 4, header & 0x0F
        field = field + delta if delta else _signed(stream)
        fields[field] = (kind, None if kind in {_TRUE, _FALSE} else _read(stream, kind))
    return fields


def _read(stream: io.BytesIO, kind: int) -> Any:  # noqa: ANN401
    if kind in {_I16, _I32, _I64}:
        return _signed(stream)
    if kind in {_BYTE, _TRUE, _FALSE}:
        return stream.read(1)
    if kind in {_DOUBLE, _BINARY}:
        return stream.read(8 if kind == _DOUBLE else _varint(stream))
    if kind == _STRUCT:
        return _read_struct(stream)
    if kind in {_LIST, _SET}:
        header = stream.read(1)[0]
        size, element = header >> 4, header & 0x0F
        size = _varint(stream) if size == 0x0F else size  # noqa: PLR2004
        return element, [_read(stream, element) for _ in range(size)]
    if kind == _MAP:
        return _read_map(stream)
    message = f"Thrift type {kind} is unknown"
    raise ValueError(message)


def _read_map(stream: io.BytesIO) -> tuple[int, list[tuple[Any, Any]]]:
    size = _varint(stream)
    kinds = stream.read(1)[0] if size else 0
    return kinds, [(_read(stream, kinds >> 4), _read(stream, kinds & 0x0F)) for _ in range(size)]


def _put_varint(stream: io.BytesIO, value: int) -> None:
    while value > 0x7F:  # noqa: PLR2004
        stream.write(bytes([value & 0x7F | 0x80]))
        value >>= 7
    stream.write(bytes([value]))


def _put_signed(stream: io.BytesIO, value: int) -> None:
    _put_varint(stream, (value << 1) ^ (value >> 63))


def _write_struct(stream: io.BytesIO, fields: Struct) -> None:
    last = 0
    for field, (kind, value) in sorted(fields.items()):
        if 0 < field - last <= 0x0F:  # noqa: PLR2004
            stream.write(bytes([(field - last) << 4 | kind]))
        else:
            stream.write(bytes([kind]))
            _put_signed(stream, field)
        last = field
        if kind not in {_TRUE, _FALSE}:
            _write(stream, kind, value)
    stream.write(b"\0")


def _write(stream: io.BytesIO, kind: int, value: Any) -> None:  # noqa: ANN401
    if kind in {_I16, _I32, _I64}:
        _put_signed(stream, value)
    elif kind == _BINARY:
        _put_varint(stream, len(value))
        stream.write(value)
    elif kind == _STRUCT:
        _write_struct(stream, value)
    elif kind in {_LIST, _SET}:
        element, items = value
        short = len(items) < 0x0F  # noqa: PLR2004
        stream.write(bytes([(len(items) if short else 0x0F) << 4 | element]))
        if not short:
            _put_varint(stream, len(items))
        for item in items:
            _write(stream, element, item)
    elif kind == _MAP:
        kinds, pairs = value
        _put_varint(stream, len(pairs))
        if pairs:
            stream.write(bytes([kinds]))
        for key, item in pairs:
            _write(stream, kinds >> 4, key)
            _write(stream, kinds & 0x0F, item)
    else:
        stream.write(value)
