"""Ranges of a CSV file: any file, any split, the same records as a straight read."""

import csv
import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.csv.byte_ranges import Piece, read, split, stream_pieces
from tasks.ray_jobs.protocol import InputProblemError

COMMA = ord(",")


def rows(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def chained(path: Path, count: int, start: int = 0) -> list[Piece]:
    """Read all ranges, each by its own guess, and again those that do not meet."""
    bounds = split(start, path.stat().st_size, count)
    pieces = [read(path, bound, COMMA, start if i == 0 else None) for i, bound in enumerate(bounds)]
    expected = start
    for i, bound in enumerate(bounds):
        if pieces[i].start != expected:
            pieces[i] = read(path, bound, COMMA, expected)
        assert pieces[i].start == expected
        expected = pieces[i].end
    assert expected == path.stat().st_size
    return pieces


FIELD = st.text("ab ,\"\n\r'é", max_size=6)
TABLE = st.lists(st.lists(FIELD, min_size=1, max_size=4), max_size=12)
ENDS = st.sampled_from(["\n", "\r\n"])


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A file as a CSV writer makes it, with or without a last newline."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=draw(ENDS)).writerows(draw(TABLE))
    text = stream.getvalue()
    return (text if draw(st.booleans()) else text.rstrip("\r\n")).encode()


ANYTHING = st.text('a,"\n\r', max_size=60).map(str.encode) | st.binary(max_size=0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges") / "any.csv"


@pytest.mark.slow
@given(data=written() | ANYTHING, count=st.integers(1, 70), window=st.integers(1, 40))
@example(data=b'a,"b\n"c\n"d\ne",f\n', count=9, window=3)
@example(data=b'"\n\n\n\n"\n""\n', count=4, window=2)
@settings(max_examples=1500, deadline=None)
def test_any_file_in_any_split_gives_the_records_of_a_straight_read(
    path: Path, data: bytes, count: int, window: int
) -> None:
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_ranges, "WINDOW_BYTES", window)
        patch.setattr(byte_ranges, "SLICE_ITEMS", 2 + window % 4 * 2)
        pieces = chained(path, count)
    assert b"".join(piece.data for piece in pieces) == data
    assert [row for piece in pieces for row in rows(piece.data)] == rows(data)
    assert all(piece.closed or piece.end == len(data) for piece in pieces)


@pytest.mark.slow
@given(data=written() | ANYTHING, length=st.integers(1, 70))
@settings(max_examples=1000, deadline=None)
def test_a_stream_in_blocks_of_any_length_gives_the_records_of_a_straight_read(
    data: bytes, length: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_ranges, "SLICE_ITEMS", 2 + length % 4 * 2)
        pieces = list(stream_pieces(io.BytesIO(data), length, COMMA, Path("f.csv")))
    assert b"".join(piece.data for piece in pieces) == data
    assert [row for piece in pieces for row in rows(piece.data)] == rows(data)


def test_ranges_of_quoted_paragraphs_are_guessed_right(path: Path) -> None:
    text = 'He said ""no"", again,\nand left.\n\nThen:\n'
    path.write_bytes(b"".join(b'%d,"%s",x\n' % (i, text.encode() * 3) for i in range(3000)))
    bounds = split(0, path.stat().st_size, 50)
    pieces = [read(path, bound, COMMA, 0 if i == 0 else None) for i, bound in enumerate(bounds)]
    assert all(a.end == b.start for a, b in pairwise(pieces))
    assert all(piece.regular and piece.data for piece in pieces)


def test_every_byte_is_in_one_range() -> None:
    for size in range(40):
        for count in range(1, 9):
            bounds = split(3, 3 + size, count)
            assert bounds[0][0] == 3
            assert bounds[-1][1] == 3 + size
            assert all(a[1] == b[0] for a, b in pairwise(bounds))


@pytest.mark.parametrize("text", [b"x" * 400, b'1,"' + b"x\n" * 200, b"a\n" + b'"' * 399 + b"\n"])
def test_a_record_without_end_is_refused(
    path: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_ranges, "RECORD_LIMIT_BYTES", 100)
    monkeypatch.setattr(byte_ranges, "WINDOW_BYTES", 16)
    path.write_bytes(text)
    with pytest.raises(InputProblemError, match=r"csv: the record at byte [02] is longer"):
        read(path, split(0, len(text), 8)[0], COMMA, 0 if text[0] != 97 else 2)
    with pytest.raises(InputProblemError, match=r"csv: the record at byte [02] is longer"):
        list(stream_pieces(io.BytesIO(text), 50, COMMA, Path("f.csv")))
