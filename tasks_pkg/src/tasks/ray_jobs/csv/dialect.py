"""How a CSV file is written: what a caller says of it, and what is detected at its beginning.

Standard library only: the worker runs this before it submits a job, the job runs it again, and both
must get the same result.
"""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ..formulas.language import Kind
from ..protocol import InputProblemError

#: Characters that may separate fields, and their names in messages.
SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
#: Byte order marks of UTF-16.
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: The number of records by which a separator is detected.
SAMPLE_RECORDS = 200

#: Directives of ``date_format``, and the pattern that each one matches.
DIRECTIVES = {
    "%Y": "[0-9]{4}", "%y": "[0-9]{2}", "%m": "[0-9]{1,2}", "%d": "[0-9]{1,2}",
    "%b": r"\p{L}{3}", "%B": r"\p{L}{3,9}", "%j": "[0-9]{1,3}", "%H": "[0-9]{1,2}",
    "%I": "[0-9]{1,2}", "%M": "[0-9]{2}", "%S": "[0-9]{2}", "%p": "[AaPp][Mm]", "%%": "%",
}  # fmt: skip
_DATE = ({"%Y", "%y"}, {"%m", "%b", "%B", "%j"}, {"%d", "%j"})
_TIME = {"%H", "%I", "%M", "%S", "%p"}


@dataclass(frozen=True)
class Written:
    """How CSV is written, as far as it is known; see :class:`tasks.schemas.common.CsvWritten`.

    Attributes:
        separator: the character between fields; None: to be detected.
        encoding: the encoding of the text; None: UTF-8, or the one of the byte order mark.
        skip_rows: the number of lines above the header.
        comment: the character that begins a comment line; None: there are no comments.
        quote: the character around quoted fields; None: fields are never quoted.
        escape: the character that makes the next one literal; None: quotes are doubled.
        decimal: the decimal mark; None: to be detected.
        thousands: the character between groups of three digits; None: there is none.
        date_format: a format as for ``strptime``, for all columns or by column; None: ISO 8601.
    """

    separator: str | None = None
    encoding: str | None = None
    skip_rows: int = 0
    comment: str | None = None
    quote: str | None = '"'
    escape: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    date_format: str | Mapping[str, str] | None = field(default=None, hash=False)

    @property
    def is_recoded(self) -> bool:
        """Return whether the text must be rewritten before the common readers can read it."""
        return bool(not is_utf8(self.encoding) or self.comment or self.quote != '"' or self.escape)

    @property
    def is_local(self) -> bool:
        """Return whether numbers have another decimal mark or thousands separators."""
        return self.decimal is not None or self.thousands is not None

    def format_of(self, column: str) -> str | None:
        """Return the format of a column's dates; None: ISO 8601."""
        if isinstance(self.date_format, Mapping):
            return self.date_format.get(column)
        return self.date_format

    def given(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults, by name."""
        return {
            name: getattr(self, name)
            for name, default in DEFAULTS.items()
            if getattr(self, name) != default
        }


#: The arguments and their defaults.
DEFAULTS = {each.name: each.default for each in fields(Written)}
PLAIN = Written()


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """A caller's options for reading CSV, the same in all tasks.

    Attributes:
        schema: type by column; other columns get the narrowest type that holds their values.
        missing: the texts that stand for a missing value; None: :data:`files.MISSING`.
        bad_rows: what to do with a row that does not fit; None: the task's default.
        written: how the CSV is written.
    """

    KEYS: ClassVar = ("schema", "missing", "bad_rows", *DEFAULTS)

    schema: Mapping[str, Kind] = field(default_factory=dict)
    missing: Sequence[str] | None = None
    bad_rows: Literal["fail", "reject"] | None = None
    written: Written = PLAIN

    def given(self) -> dict[str, Any]:
        """Return the options that the caller set, by name; defaults are left out."""
        own = {"schema": self.schema, "missing": self.missing, "bad_rows": self.bad_rows}
        said = {name: value for name, value in own.items() if value not in ({}, None)}
        return said | self.written.given()

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the options in a job's parameters; defaults for those that are not there."""
        return cls(
            schema=parameters.get("schema") or {},
            missing=parameters.get("missing"),
            bad_rows=parameters.get("bad_rows"),
            written=Written(
                **{name: parameters.get(name, value) for name, value in DEFAULTS.items()}
            ),
        )


def is_utf8(encoding: str | None) -> bool:
    """Return whether text is UTF-8, with or without a byte order mark."""
    return encoding is None or codecs.lookup(encoding).name in {"utf-8", "utf-8-sig", "ascii"}


def is_encoding(name: str) -> bool:
    """Return whether there is a text encoding of that name that decodes no escape sequences."""
    try:
        codec = codecs.lookup(name)
        # "rot13" maps text to text, "base64" bytes to bytes; unicode_escape decodes escapes.
        return "\\" not in codec.name and codec.name not in {
            "unicode_escape", "unicode-escape", "raw_unicode_escape", "raw-unicode-escape", "idna",
            "punycode", "undefined", "mbcs", "oem",
        } and isinstance(codec.incrementaldecoder("strict").decode(b"", True), str) and (
            isinstance("".encode(name), bytes)
        )  # fmt: skip
    except (LookupError, ValueError, TypeError, AttributeError):
        return False


def format_fault(text: str) -> str:
    """Return what is wrong with a ``date_format``; empty if nothing is."""
    found = re.findall("%.?", text, re.DOTALL)
    if unknown := [each for each in found if each not in DIRECTIVES]:
        known = ", ".join(DIRECTIVES)
        return f"{unknown[0]!r} is no directive; there are {known}, each for ASCII digits"
    if not all(part & set(found) for part in _DATE):
        return "needs a year, a month and a day, as '%d.%m.%Y' does"
    if set(found) & _TIME and not ({"%H", "%I"} & set(found) and "%M" in found):
        return "needs hour and minute where it has a time, as '%d.%m.%Y %H:%M' does"
    if ("%I" in found) != ("%p" in found):
        return "needs %I and %p together, or %H"
    return ""


def has_time(text: str) -> bool:
    """Return whether a ``date_format`` has a time in it."""
    return bool(set(re.findall("%.", text)) & _TIME)


def pattern_of(text: str) -> str:
    """Return a pattern for values of a ``date_format``: parsers read ``24`` as the year 24 (%Y)."""
    parts = re.split("(%.)", text)
    return f"^{''.join(DIRECTIVES.get(part, re.escape(part)) for part in parts)}$"


# -- what is detected at a file's beginning --------------------------------------------------------


def detected(path: Path, text: bytes, written: Written, *, whole: bool) -> tuple[Written, str]:
    """Return how a file is written, with its separator, and a note on it for the caller.

    Args:
        path: the file, for its suffix and for errors.
        text: the file's beginning in UTF-8, from the header on.
        written: what is known already.
        whole: whether ``text`` is all of the file.

    Raises:
        InputProblemError: several separators fit, and none is the usual one for the suffix.
    """
    if written.separator is not None:
        return written, ""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    usual = "\t" if ".tsv" in suffixes else ","
    fitting = [sign for sign in SEPARATORS if _fits(text, sign, written, whole=whole)]
    if usual in fitting or not fitting:
        chosen = usual if usual in fitting or usual.encode() in _header(text) else ","
        others = [SEPARATORS[sign] for sign in fitting if sign != usual]
        told = f"separator {SEPARATORS[chosen]}, though {others[0]} fits too" if others else ""
        return replace(written, separator=chosen), told
    if len(fitting) > 1:
        shown = " and with ".join(SEPARATORS[sign] for sign in fitting)
        raise InputProblemError(
            "separator_unclear",
            f"{path}: its lines are a table with {shown} between the fields.",
            f"Say which it is: separator {fitting[0]!r}.",
        )
    (sign,) = fitting
    return replace(written, separator=sign), f"separator {SEPARATORS[sign]}"


def _fits(text: bytes, sign: str, written: Written, *, whole: bool) -> bool:
    """Return whether the first records all have the header's number of fields, at least two."""
    if sign.encode() not in _header(text):
        return False
    records = first_records(text.decode(errors="replace"), sign, written, whole=whole)
    widths = {len(record) for record in records}
    return len(records) > 1 and len(widths) == 1 and widths != {1}


def _header(text: bytes) -> bytes:
    return text[: text.find(b"\n") + 1 or None]


def first_records(text: str, sign: str, written: Written, *, whole: bool) -> list[list[str]]:
    """Return the first records of a text for a separator; none if a field is too long."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=sign,
        quotechar=written.quote,
        escapechar=written.escape,
        quoting=csv.QUOTE_MINIMAL if written.quote else csv.QUOTE_NONE,
    )
    records: list[list[str]] = []
    try:
        for record in reader:
            if record:
                records.append(record)
            if len(records) == SAMPLE_RECORDS:
                return records
    except csv.Error:
        return []
    return records if whole else records[:-1]  # the last one may be cut
