"""Read numbers in local formats: ``1.234,56``, ``$1,234``; polars itself reads the plain format."""

import re
from collections.abc import Mapping

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from .dialect import Written

#: Currency signs before or behind a number, with or without a (narrow) blank between.
_MONEY = "[$€£¥]"
_BLANK = "[ \u00a0\u202f]?"


def plain(text: pl.Series, written: Written) -> pl.Series:
    """Return numbers in the plain format; a text that is no number in the local format is null.

    Currency signs are dropped.
    """
    point = re.escape(written.decimal or ".")
    whole = "[0-9]+"
    if written.thousands is not None:
        group = _group(written.thousands)
        whole = f"(?:[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)"
    pattern = (
        rf"^[ \t]*([+-]?)(?:{_MONEY}{_BLANK})?([+-]?)({whole})?(?:{point}([0-9]*))?"
        rf"((?:[eE][+-]?[0-9]+)?)(?:{_BLANK}{_MONEY})?[ \t]*$"
    )
    groups = text.str.extract_groups(pattern).struct.unnest()
    before, within, digits, fraction, power = (groups.to_series(i) for i in range(5))
    if written.thousands is not None:
        digits = digits.str.replace_all(_group(written.thousands), "")
    known = (digits.is_not_null() | (fraction.is_not_null() & (fraction != ""))) & (
        (before == "") | (within == "")
    )
    pointed = pl.select(
        pl.when(fraction.is_not_null()).then("." + fraction).otherwise(pl.lit("")).alias("")
    ).to_series()
    made = before + within + digits.fill_null("") + pointed + power
    return pl.select(pl.when(known).then(made).alias(text.name)).to_series()


def _group(sign: str) -> str:
    # French and Swiss programs write several kinds of blanks and apostrophes.
    return {" ": "[ \u00a0\u202f]", "'": "['\u2019]"}.get(sign, re.escape(sign))


def numbers(text: pl.Series, dtype: pl.DataType, written: Written) -> pl.Series:
    """Read a column of numbers; any other value becomes null."""
    return plain(text, written).str.strip_chars_start("+").cast(dtype, strict=False)


def has_decimal_comma(text: pl.DataFrame, types: Mapping[str, pl.DataType]) -> bool:
    """Return whether commas are certainly the decimal marks of a file's numbers.

    Args:
        text: some records of a file whose separator is not a comma.
        types: the columns' types, detected with points as decimal marks.
    """
    found = False
    for column in text:
        dtype = types[column.name]
        if dtype == pl.Float64 and column.str.contains(r"^[ \t]*[+-]?[0-9]*\.[0-9]").any():
            return False
        if dtype not in {pl.String(), pl.Float64()}:
            continue
        values = column.drop_nulls()
        values = values.filter(values != "")
        if values.is_empty() or not values.str.contains("^-?[0-9]+(?:,[0-9]+)?$").all():
            continue
        # A comma before three digits may be a thousands separator.
        clear = values.str.contains(r"^-?(?:0,|[0-9]{4,},)|,(?:[0-9]{1,2}|[0-9]{4,})$")
        found |= bool(clear.any())
    return found
