"""How a CSV file is written: what a caller says of it, and what its beginning shows.

Standard library only: the worker asks before a job is submitted, the job asks again, and both
must give the same answer.
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

#: Characters that separate fields, and how to call them.
SEPARATORS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
#: What the first bytes of UTF-16 are.
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Records that show the separator.
RECORDS = 200

#: Directives of ``date_format``, and what each stands for.
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
        encoding: of the text; None: UTF-8, or what a byte order mark says.
        skip_rows: lines above the header.
        comment: what a line begins with that is none of the table; None where there are none.
        quote: what stands round a field; None: nothing does.
        escape: what takes the next character's meaning away; None: a quote is doubled.
        decimal: the point of numbers; None: to be detected.
        thousands: what stands between groups of three digits; None: nothing.
        date_format: of dates, as of ``strptime``, in all columns or by column; None: ISO 8601.
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
        """Return whether the text must be written anew before it is what all readers read."""
        return bool(not is_utf8(self.encoding) or self.comment or self.quote != '"' or self.escape)

    @property
    def is_local(self) -> bool:
        """Return whether numbers may be written otherwise than in programs."""
        return self.decimal is not None or self.thousands is not None

    def format_of(self, column: str) -> str | None:
        """Return the format of a column's dates; None: ISO 8601."""
        if isinstance(self.date_format, Mapping):
            return self.date_format.get(column)
        return self.date_format

    def given(self) -> dict[str, Any]:
        """Return what is not as everywhere, by name."""
        return {
            name: getattr(self, name)
            for name, default in DEFAULTS.items()
            if getattr(self, name) != default
        }


#: The arguments, and what holds where they are not given.
DEFAULTS = {each.name: each.default for each in fields(Written)}
PLAIN = Written()


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """What a caller says of CSV, wherever it is read.

    Attributes:
        schema: type by column; others get the narrowest that holds their values.
        missing: what stands for a missing value; None: :data:`files.MISSING`.
        bad_rows: what is done with a row that does not fit; None: what the task does by default.
        written: how it is written.
    """

    KEYS: ClassVar = ("schema", "missing", "bad_rows", *DEFAULTS)

    schema: Mapping[str, Kind] = field(default_factory=dict)
    missing: Sequence[str] | None = None
    bad_rows: Literal["fail", "reject"] | None = None
    written: Written = PLAIN

    def given(self) -> dict[str, Any]:
        """Return what the caller said, by name: what is as everywhere has no key."""
        own = {"schema": self.schema, "missing": self.missing, "bad_rows": self.bad_rows}
        said = {name: value for name, value in own.items() if value not in ({}, None)}
        return said | self.written.given()

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return what a job's parameters say; what they do not say is as everywhere."""
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
    """Return whether there is an encoding of that name, of text and without a program in it."""
    try:
        codec = codecs.lookup(name)
        # "rot13" makes text of text, "base64" bytes of bytes; these two run escapes.
        return "\\" not in codec.name and codec.name not in {
            "unicode_escape", "unicode-escape", "raw_unicode_escape", "raw-unicode-escape", "idna",
            "punycode", "undefined", "mbcs", "oem",
        } and isinstance(codec.incrementaldecoder("strict").decode(b"", True), str) and (
            isinstance("".encode(name), bytes)
        )  # fmt: skip
    except (LookupError, ValueError, TypeError, AttributeError):
        return False


def format_fault(text: str) -> str:
    """Return what is wrong with a ``date_format``; empty where nothing is."""
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
    """Return the pattern of values of a ``date_format``: parsers take 24 for the year 24."""
    parts = re.split("(%.)", text)
    return f"^{''.join(DIRECTIVES.get(part, re.escape(part)) for part in parts)}$"


# -- what a file's beginning shows -----------------------------------------------------------------


def detected(path: Path, text: bytes, written: Written, *, whole: bool) -> tuple[Written, str]:
    """Return how a file is written, its separator included, and what of it to tell the caller.

    Args:
        path: for its suffix, and for errors.
        text: the file's beginning in UTF-8, the header first.
        written: what is known already.
        whole: whether that is all of the file.

    Raises:
        InputProblemError: two separators fit alike, and neither is the one of the file's name.
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
    """Return whether all first records have as many fields as the header, and more than one."""
    if sign.encode() not in _header(text):
        return False
    records = first_records(text.decode(errors="replace"), sign, written, whole=whole)
    widths = {len(record) for record in records}
    return len(records) > 1 and len(widths) == 1 and widths != {1}


def _header(text: bytes) -> bytes:
    return text[: text.find(b"\n") + 1 or None]


def first_records(text: str, sign: str, written: Written, *, whole: bool) -> list[list[str]]:
    """Return the first records of a text that has that separator; none where they are too long."""
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
            if len(records) == RECORDS:
                return records
    except csv.Error:
        return []
    return records if whole else records[:-1]  # the last one may be cut
