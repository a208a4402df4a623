"""Rewrite the text of a CSV file as the common readers expect it: UTF-8, with doubled quotes.

Encodings, comment lines and other quotes are converted while a file is read, as compression is.
Such a file is read from its beginning to its end by one CPU. Standard library only.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..protocol import InputProblemError
from .dialect import SEPARATORS, Written, is_utf8

BLOCK_BYTES = 1 << 20
#: The limit of a field's length; a longer one is probably a quote that is never closed.
FIELD_LIMIT_BYTES = 32 << 20
_SHOWN_CHARS = 60
#: The line that marks the end of the input. Decoded text cannot contain it.
_LAST = "\udfff\udfffcelray"


@dataclass
class Recoded:
    """A stream of recoded text with the one method that readers use.

    Attributes:
        blocks: the text.
    """

    blocks: Iterator[bytes]
    _rest: bytes = field(default=b"", repr=False)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next ``size`` bytes, fewer at the end; all for a negative size."""
        parts, missing = [self._rest], size - len(self._rest)
        while size < 0 or missing > 0:
            block = next(self.blocks, None)
            if block is None:
                break
            parts.append(block)
            missing -= len(block)
        data = b"".join(parts)
        if size < 0:
            size = len(data)
        self._rest = data[size:]
        return data[:size]


def recoded(
    path: Path,
    blocks: Iterable[bytes],
    written: Written,
    *,
    whole: bool = True,
    requoted: bool = True,
) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8 with doubled quotes, without comments.

    Args:
        path: the file, for errors.
        blocks: the bytes from the file's beginning.
        written: how they are written.
        whole: whether they go to the file's end; if not, the incomplete last line is left out.
        requoted: whether to convert the quotes, for which the separator must be known.

    Raises:
        InputProblemError: they are not in that encoding, or a quote is never closed.
    """
    if not is_utf8(written.encoding):
        blocks = _decoded(path, blocks, str(written.encoding), whole=whole)
    blocks = _skipped(_without_mark(blocks), written.skip_rows)
    requoted = requoted and (written.quote != '"' or written.escape is not None)
    if not written.comment and not requoted:
        return blocks
    lines = _lines(path, blocks, whole=whole)
    if written.comment:
        lines = _without_comments(lines, written)
    if requoted:
        lines = _plainly_quoted(path, lines, written, whole=whole)
    return _blocks(lines)


def _decoded(path: Path, blocks: Iterable[bytes], encoding: str, *, whole: bool) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    try:
        for block in blocks:
            text = decoder.decode(block)
            lines += text.count("\n")
            yield text.encode()
        yield decoder.decode(b"", final=whole).encode()
    except UnicodeError as error:
        reason = getattr(error, "reason", None) or str(error)
        raise InputProblemError(
            "file_encoding",
            f"{path}, line {lines} or below, is not in the encoding {encoding!r}: {reason}.",
            "Give the right encoding (encoding), or correct the file.",
        ) from None


def _lines(path: Path, blocks: Iterable[bytes], *, whole: bool) -> Iterator[bytes]:
    """Cut blocks into lines.

    Raises:
        InputProblemError: a line is longer than :data:`FIELD_LIMIT_BYTES`.
    """
    rest = b""
    for block in blocks:
        first, *others = block.split(b"\n")
        if not others:
            rest += first  # a line as long as several blocks is rare
            if len(rest) > FIELD_LIMIT_BYTES:
                shown = rest[:_SHOWN_CHARS].decode(errors="replace")
                raise InputProblemError(
                    "record_too_long",
                    f"{path}: a line that begins {shown!r} is longer than"
                    f" {FIELD_LIMIT_BYTES >> 20} MiB.",
                    "Is it no CSV file?",
                )
            continue
        yield rest + first + b"\n"
        *full, rest = others
        for line in full:
            yield line + b"\n"
    if rest and whole:
        yield rest


def _without_mark(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for number, block in enumerate(blocks):
        yield block.removeprefix(codecs.BOM_UTF8) if number == 0 else block


def _skipped(blocks: Iterable[bytes], number: int) -> Iterator[bytes]:
    """Leave out the first lines."""
    for block in blocks:
        start = 0
        while number and start < len(block):
            at = block.find(b"\n", start)
            start = at + 1 if at >= 0 else len(block)
            number -= at >= 0
        yield block[start:]


def _without_comments(lines: Iterable[bytes], written: Written) -> Iterator[bytes]:
    """Leave out the lines that begin with ``comment``, unless they are inside a quoted field."""
    sign = str(written.comment).encode()
    quote = (written.quote or "").encode()
    separators = (written.separator or "".join(SEPARATORS)).encode()
    inside = False
    for line in lines:
        if not inside and line.startswith(sign):
            continue
        if quote and quote in line:
            inside = _ends_inside(line, quote, separators, written, inside=inside)
        yield line


def _ends_inside(
    line: bytes, quote: bytes, separators: bytes, written: Written, *, inside: bool
) -> bool:
    """Return whether a line ends inside quotes, by the rules of Python's csv module."""
    escape = (written.escape or "").encode()
    at, begins = 0, True
    while at < len(line):
        here = line[at : at + 1]
        if escape and here == escape:
            at += 2
            begins = False
            continue
        if inside:
            if here == quote:
                if line[at + 1 : at + 2] == quote:
                    at += 1
                else:
                    inside = False
        elif here == quote and begins:
            inside = True
        begins = not inside and here in separators
        at += 1
    return inside


def _plainly_quoted(
    path: Path, lines: Iterable[bytes], written: Written, *, whole: bool
) -> Iterator[bytes]:
    """Write each record with the quotes of RFC 4180.

    Raises:
        InputProblemError: a quote is open at the end.
    """
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_LIMIT_BYTES))
    text = _at_each_end(line.decode(errors="surrogateescape") for line in lines)
    if written.escape:
        text = _fully_escaped(text, written)
    # If a quote is open at the end, the line _LAST becomes part of the last field.
    reader = csv.reader(
        _followed(text),
        delimiter=written.separator or ",",
        quotechar=written.quote,
        escapechar=written.escape,
        quoting=csv.QUOTE_MINIMAL if written.quote else csv.QUOTE_NONE,
    )
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=written.separator or ",", lineterminator="\r\n")
    closed = False
    begun = 0
    try:
        for record in reader:
            closed = record == [_LAST]
            if closed:
                break
            if not whole and record and record[-1].endswith(_LAST):
                break
            if record and record[-1].endswith(_LAST):
                raise csv.Error
            begun = reader.line_num
            writer.writerow(record)
            yield out.getvalue().encode(errors="surrogateescape")
            out.seek(0)
            out.truncate()
    except csv.Error:
        raise InputProblemError(
            "quote_open",
            f"{path}: a quote ({written.quote}) that opens in or below line"
            f" {written.skip_rows + begun + 1}, without comments, is never closed.",
            "Double it or remove it, or say how fields are quoted (quote, escape).",
        ) from None


def _at_each_end(lines: Iterable[str]) -> Iterator[str]:
    """Split lines behind each CR too: outside quotes it ends a record."""
    for line in lines:
        if "\r" in line[:-2]:
            yield from io.StringIO(line, newline="")
        else:
            yield line


def _fully_escaped(lines: Iterable[str], written: Written) -> Iterator[str]:
    r"""Double an escape before an ordinary character: Spark's ``C:\dir``, MySQL's ``\N``."""
    escape = re.escape(written.escape or "")
    special = (
        "".join({written.separator or ",", written.quote or "", written.escape or ""}) + "\r\n"
    )
    pair = re.compile(f"{escape}([^{re.escape(special)}])|{escape}.", re.DOTALL)
    for line in lines:
        yield pair.sub(lambda m: (written.escape or "") * (m[1] is not None) + m[0], line)


def _followed(text: Iterable[str]) -> Iterator[str]:
    yield from text
    yield _LAST


def _blocks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to blocks of about :data:`BLOCK_BYTES`."""
    parts: list[bytes] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size >= BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)
