"""What the arguments and results of several tasks have in common: names, units, bounds."""

import itertools
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tasks.contracts import InvalidArgumentsError, wrong
from tasks.ray_jobs.csv import dialect as csv_dialect
from tasks.ray_jobs.csv.dialect import CsvOptions, Written
from tasks.ray_jobs.inputs.sources import is_pattern

Kind = Literal["integer", "number", "text", "boolean", "date", "datetime"]


def _plain(name: str) -> str:
    if "\0" in name:
        message = "a name has no NUL byte in it"
        raise ValueError(message)
    if is_pattern(name):
        message = f"{name[:80]!r} is no name: not '*', and not from '^' to '$'"
        raise ValueError(message)
    return name


def _one_sign(value: str) -> str:
    if not re.fullmatch(r"[\t -~]", value) or value == '"':
        message = "must be one ASCII character other than a quote"
        raise ValueError(message)
    return value


def _sign(value: str) -> str:
    if not re.fullmatch(r"[!-~]", value) or value.isalnum():
        message = "must be one ASCII character that is no letter, digit or blank"
        raise ValueError(message)
    return value


def _encoding(value: str) -> str:
    if not csv_dialect.is_encoding(value):
        message = "there is no such encoding of text; try utf-8, utf-16, latin-1, cp1252, gb18030"
        raise ValueError(message)
    return value


def _line_sign(value: str) -> str:
    if not value.strip() or re.search(r"[\r\n\0]", value):
        message = "must be what a line begins with, such as '#'"
        raise ValueError(message)
    return value


def _date_format(value: str) -> str:
    if message := csv_dialect.format_fault(value):
        raise ValueError(message)
    return value


#: The field separator of a CSV file.
Separator = Annotated[str, AfterValidator(_one_sign)]

Column = Annotated[str, Field(min_length=1), AfterValidator(_plain)]

Model = TypeVar("Model", bound=BaseModel)
LineSign = Annotated[str, Field(min_length=1, max_length=20), AfterValidator(_line_sign)]
DateFormat = Annotated[str, AfterValidator(_date_format)]


class CsvWritten(BaseModel):
    """The format of CSV files; every key has a default."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    declared: Annotated[dict[Column, Kind], Field(alias="schema")] = {}
    """Type by column of CSV; others get the narrowest that holds their values as written."""
    missing: list[str] | None = None
    """What stands for a missing value in CSV, quoted or not; by default NA, null and the like."""
    separator: Separator | None = None
    """The character between fields in CSV; by default detected: a comma, ';', tab or '|'."""
    encoding: Annotated[str, AfterValidator(_encoding)] | None = None
    """Encoding of the CSV's text; by default UTF-8, or UTF-16 where a byte order mark says so."""
    skip_rows: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Number of lines above the CSV's header that are not part of the table."""
    comment: LineSign | None = None
    """How a line of CSV begins that is not part of the table, such as '#'."""
    quote: Annotated[
        Annotated[str, AfterValidator(_sign)] | None, BeforeValidator(lambda said: said or None)
    ] = '"'
    """The quote character of CSV; null, or "" in TOML: quotes are part of the values."""
    escape: Annotated[str, AfterValidator(_sign)] | None = None
    """The escape character of CSV; by default a quote is escaped by doubling it."""
    decimal: Literal[".", ","] | None = None
    """The decimal mark of the CSV's numbers; by default '.', or ',' where it is unambiguous."""
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """The mark between groups of three digits in the CSV's numbers; by default none."""
    date_format: DateFormat | dict[Column, DateFormat] | None = None
    """Format of the CSV's dates, such as '%d.%m.%Y', for all or by column; by default ISO 8601."""
    bad_rows: Literal["fail", "reject"] | None = None
    """Whether a bad row of CSV ends the task, as by default, or is put aside and counted."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        signs = {"separator": self.separator, "quote": self.quote, "escape": self.escape}
        signs = {name: sign for name, sign in signs.items() if sign is not None}
        for (one, sign), (other, same) in itertools.combinations(signs.items(), 2):
            if sign == same:
                message = f"{one} and {other} are both {sign!r}; they must differ"
                raise ValueError(message)
        if self.thousands == (self.decimal or "."):
            message = f"thousands and decimal are both {self.thousands!r}; say both"
            raise ValueError(message)
        return self

    def options(self) -> CsvOptions:
        """Return the options in the form that jobs receive."""
        return CsvOptions(
            schema=self.declared,
            missing=self.missing,
            bad_rows=self.bad_rows,
            written=Written(
                separator=self.separator,
                encoding=self.encoding,
                skip_rows=self.skip_rows,
                comment=self.comment,
                quote=self.quote,
                escape=self.escape,
                decimal=self.decimal,
                thousands=self.thousands,
                date_format=self.date_format,
            ),
        )


class JobTimes(TypedDict):
    """Fields that the result of every task with a Ray job has."""

    manifest_path: str
    reused: bool
    """Whether the result is that of an earlier identical request."""
    ray_submission_id: str
    queue_seconds: float | None
    """From publishing to the task's start; None if the client does not stamp its messages."""
    startup_seconds: float
    """From submission to the first line of the job's code."""
    engine_seconds: float
    """From the first line of the job's code to its result."""


class JobReport(JobTimes):
    """Fields of a task with a Ray job that also returns warnings."""

    warnings: list[str]


class RowAccount(TypedDict):
    """The account of the rows that were read: rows_read = used + filtered + rejected, always."""

    rows_read: int
    rows_used: int
    rows_filtered: int
    rows_rejected: int
    """Bad rows; none where ``bad_rows`` is not 'reject'."""
    left_out: list[dict[str, Any]]
    """By ``reason`` the number of filtered ``rows``, and the ``first`` of them, from 1."""
    rejected: list[dict[str, Any]]
    """The first bad rows: ``file``, ``row`` (from 1), ``column`` and ``reason``."""


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys that a model accepts, its own before those of the CSV format."""
    fields = model.model_fields
    names = sorted(fields, key=lambda name: name in CsvWritten.model_fields)
    return [fields[name].alias or name for name in names]


def as_whole(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return 10 for 10.0, the form in which JSON from some clients has whole numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def checked(
    model: type[Model], value: dict[str, Any], name: str, whole: Collection[str] = ()
) -> Model:
    """Check a dictionary that a caller gave.

    Args:
        model: the model that it must match.
        value: the dictionary as given.
        name: its name in error messages.
        whole: keys of whole numbers that may be given as 10.0.

    Raises:
        InvalidArgumentsError: names each wrong key or value, and the nearest right one.
    """
    given = {key: as_whole(item) if key in whole else item for key, item in value.items()}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        known = keys_of(model)
        texts = "; ".join(problem.text for problem in wrong(error, given, name, known))
        raise InvalidArgumentsError(texts) from None
