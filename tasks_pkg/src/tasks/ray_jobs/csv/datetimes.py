"""Dates and times of a CSV file: ISO 8601 and nothing else, each value by itself.

Polars' own parser guesses a format from the first value that it sees, and holds the others against
that: the same value would be another day, or none, beside other neighbours.
"""

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

from . import dialect as csv_dialect

#: Moments of which none says its zone, and those of which each does. As values both are the former.
NAIVE, ZONED = pl.Datetime("us"), pl.Datetime("us", "UTC")

#: The first day of each month from the year 0 to 9999, in days since 1970, and the month's length.
_FIRST = (
    np.arange("0000-01", "10000-02", dtype="datetime64[M]").astype("datetime64[D]").astype("i4")
)
_LENGTH = np.diff(_FIRST).astype("u1")

#: The form of a date.
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ZONE = r"Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"
_PLAIN = rf"^{DATE}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}$"
_MOMENT = (
    rf"^(?<date>{DATE})(?:[T ](?<minute>[0-9]{{2}}:[0-9]{{2}})"
    rf"(?::(?<second>[0-9]{{2}})(?:\.(?<fraction>[0-9]{{1,9}}))?)?(?<zone>{_ZONE})?)?$"
)


def dates(text: pl.Series) -> pl.Series:
    """Read dates such as 2026-01-31; what is none is missing.

    By their bytes, all at once: to match a pattern and then to parse would take a good part of the
    time of the whole file. Arrow's view of a text that is no longer than twelve bytes is its length
    in four bytes, the text, and zeros ("Variable-size Binary View Layout" in
    https://arrow.apache.org/docs/format/Columnar.html).
    """
    if text.is_empty():
        return text.cast(pl.Date)
    arrow = text.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    views = np.frombuffer(arrow.buffers()[1], "<u4").reshape(-1, 4)[arrow.offset :][: len(text)]
    # Each digit becomes its value, each dash 0; the byte that stands first is the lowest.
    years = views[:, 1] ^ np.uint32(0x30303030)
    months = views[:, 2] ^ np.uint32(0x2D30302D)
    days = views[:, 3] ^ np.uint32(0x3030)
    wrong = (views[:, 0] ^ np.uint32(len("2026-01-31"))) | (months & np.uint32(0xFF0000FF))
    wrong |= _no_digits(years) | _no_digits(months) | _no_digits(days)

    year = _pair(years, 0) * np.uint32(100) + _pair(years, 2)
    # From 0; 00 becomes the greatest number, which no month and no day is.
    month = _pair(months, 1) - np.uint32(1)
    day = _pair(days, 0) - np.uint32(1)
    sound = (wrong == 0) & (month < 12)  # noqa: PLR2004
    month_of_all = np.where(sound, year * np.uint32(12) + month, 0)
    sound &= day < _LENGTH[month_of_all]
    if text.null_count():  # such a view may hold anything
        sound &= text.is_not_null().to_numpy()
    found = pl.Series(text.name, _FIRST[month_of_all] + day.view("i4")).cast(pl.Date)
    return found if sound.all() else found.zip_with(pl.Series(sound), found.clear(len(found)))


def _pair(digits: NDArray[np.uint32], byte: int) -> NDArray[np.uint32]:
    """Return the number of two digits that begins in a byte, the lowest being 0."""
    tens = digits >> np.uint32(8 * byte)
    return (tens * np.uint32(10) + (tens >> np.uint32(8))) & np.uint32(0xFF)


def _no_digits(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Mark each byte that is more than 9."""
    return (values + np.uint32(0x76767676) | values) & np.uint32(0x80808080)


def moments(text: pl.Series, zone: bool | None = None) -> pl.Series:
    """Read dates and times as UTC; what is none is missing.

    Args:
        text: values such as 2026-01-31, 2026-01-31 23:59 or 2026-01-31T23:59:00.5+01:00. One
            without a zone counts as UTC.
        zone: whether each must say its zone, or must not; None where it may.
    """
    if not zone and text.str.contains(_PLAIN).all():  # most files, and much quicker
        return _seconds(text)
    found = text.str.extract_groups(_MOMENT).struct.unnest().lazy()
    minute = pl.col("date") + "T" + pl.col("minute").fill_null("00:00")
    second = minute + ":" + pl.col("second").fill_null("00")
    sign = pl.when(pl.col("zone").str.starts_with("-")).then(-1).otherwise(1)
    digits = pl.col("zone").str.replace_all("[^0-9]", "").str.pad_end(4, "0").cast(pl.Int64)
    ahead = (sign * (digits // 100 * 60 + digits % 100)).fill_null(0)
    micros = pl.col("fraction").str.pad_end(6, "0").str.head(6).cast(pl.Int64).fill_null(0)
    moment = second.map_batches(_seconds, return_dtype=NAIVE)
    moment += pl.duration(microseconds=micros, time_unit="us")
    moment -= pl.duration(minutes=ahead, time_unit="us")
    if zone is not None:
        moment = pl.when(pl.col("zone").is_not_null() == zone).then(moment)
    return found.select(moment.alias(text.name)).collect().to_series()


def formatted(text: pl.Series, form: str, dtype: pl.DataType) -> pl.Series:
    """Read dates and times of a format; what is none is missing.

    Args:
        text: the values.
        form: as of ``strptime``, see :data:`csv.dialect.DIRECTIVES`.
        dtype: dates, or moments, to which a date is its midnight; a moment is a date only then.
    """
    fits = text.str.contains(csv_dialect.pattern_of(form))
    own = text.str.to_datetime if csv_dialect.has_time(form) else text.str.to_date
    found = own(form, strict=False).cast(NAIVE)
    if dtype == pl.Date:
        fits &= found.dt.truncate("1d") == found
    return found.zip_with(fits.fill_null(value=False), found.clear(len(found))).cast(dtype)


def _seconds(text: pl.Series) -> pl.Series:
    moment = text.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    # Only a leap second, which polars counts to the next minute, ends so.
    leap = text.str.ends_with(":60")
    return moment.zip_with(~leap, moment.clear(len(moment))) if leap.any() else moment
