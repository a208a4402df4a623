"""Numbers in forms that parsers do not read: ``$1,234``, ``1.234,56``, ``12 %``."""

from dataclasses import dataclass

import polars as pl

#: A column holds numbers if this share of its values do.
SHARE = 0.9
#: The number of values that are checked first.
_FEW_VALUES = 100
_SHOWN_CHARS = 40
_PLAIN = r"[0-9]+(?:\.[0-9]+)?"
_SIGN = r"(?:\p{Sc}|USD|EUR|GBP|CHF|JPY|CNY)"
_SIGNED = rf"{_SIGN}|%|‰"
_BLANK = r"[ \u00a0\u202f]"


@dataclass(frozen=True)
class _Style:
    """A form of numbers: a pattern, and the arguments that read it."""

    pattern: str
    arguments: str


def _grouped(mark: str, point: str) -> str:
    return rf"(?:[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+|[0-9]+)(?:{point}[0-9]+)?"


#: In the order in which they are tried.
_STYLES = (
    _Style(_PLAIN, ""),
    _Style(_grouped(",", r"\."), "thousands ','"),
    _Style(r"[0-9]+(?:,[0-9]+)?", "decimal ','"),
    _Style(_grouped(r"\.", ","), "decimal ',' and thousands '.'"),
    _Style(_grouped(_BLANK, r"\."), "thousands ' '"),
    _Style(_grouped(_BLANK, ","), "decimal ',' and thousands ' '"),
    _Style(_grouped(r"['\u2019]", r"\."), 'thousands "\'"'),
)
#: A column of only these is ambiguous: ``1,234`` is a thousand or slightly more than one.
_AMBIGUOUS = r"[0-9]{1,3},[0-9]{3}"


def described(column: pl.Series) -> str | None:
    """Describe how a text column holds numbers, with its first such value and how to read them.

    Returns:
        A sentence without its end; None if the column holds words, or readable numbers.
    """
    values = column.drop_nulls()
    few = values.head(_FEW_VALUES)
    any_style = "|".join(style.pattern for style in _STYLES)
    if few.is_empty() or _share(few, any_style) < SHARE / 2:
        return None  # checking a few values suffices for nearly all columns of words
    odd = values.filter(~_fits(values, _PLAIN, signed=False))
    if odd.is_empty():
        return None
    signs = sorted(set(odd.str.extract(rf"({_SIGNED})").drop_nulls()))
    for style in _STYLES:
        if _share(values, style.pattern) < SHARE:
            continue
        arguments = style.arguments
        if _fits(odd, _AMBIGUOUS).all() and arguments:
            arguments = "thousands ',' or decimal ',', whichever is meant"
        ways = [f"take {' and '.join(map(repr, signs))} out of the file"] if signs else []
        ways += [f"give {arguments}"] if arguments else []
        return f"{_shown(odd[0])} is its first such value; to read numbers, {', and '.join(ways)}"
    return None


def _share(values: pl.Series, pattern: str) -> float:
    return float(_fits(values, pattern).mean() or 0.0)  # type: ignore[arg-type]


def _fits(values: pl.Series, pattern: str, *, signed: bool = True) -> pl.Series:
    sign = rf"(?:{_SIGNED})?" if signed else ""
    whole = rf"^\s*[-+\u2212]?\s*{sign}\s*[-+\u2212]?(?:{pattern})\s*{sign}\s*$"
    return values.str.contains(whole)


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARS else f"{value[:_SHOWN_CHARS]}...")
