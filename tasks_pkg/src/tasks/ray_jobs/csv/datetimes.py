"""Read the dates and times of a CSV file: ISO 8601 only, each value independent of the others.

Polars' own parser guesses a format from the first value, and reads the others by that format. So
the same value could be another day, or no date, depending on the values around it.
"""

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

from . import dialect as csv_dialect

#: Columns of moments without a time zone, and with one in each value. Parsed, both become NAIVE.
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
    """Read dates such as 2026-01-31; any other value becomes null.

    All values are read at once from their bytes: a regular expression and then a parser would take
    a large part of the time that the whole file takes. Arrow's view of a string of at most twelve
    bytes is its length in four bytes, the string, and zeros ("Variable-size Binary View Layout" in
    https://arrow.apache.org/docs/format/Columnar.html).
    """
    if text.is_empty():
        return text.cast(pl.Date)
    arrow = text.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    views = np.frombuffer(arrow.buffers()[1], "<u4").reshape(-1, 4)[arrow.offset :][: len(text)]
    # Each digit becomes its value, each dash 0; the first character is the lowest byte.
    years = views[:, 1] ^ np.uint32(0x30303030)
    months = views[:, 2] ^ np.uint32(0x2D30302D)
    days = views[:, 3] ^ np.uint32(0x3030)
    wrong = (views[:, 0] ^ np.uint32(len("2026-01-31"))) | (months & np.uint32(0xFF0000FF))
    wrong |= _no_digits(years) | _no_digits(months) | _no_digits(days)

    year = _pair(years, 0) * np.uint32(100) + _pair(years, 2)
    # Counted from 0. The digits 00 wrap around to the largest number, which is out of range.
    month = _pair(months, 1) - np.uint32(1)
    day = _pair(days, 0) - np.uint32(1)
    sound = (wrong == 0) & (month < 12)  # noqa: PLR2004
    month_of_all = np.where(sound, year * np.uint32(12) + month, 0)
    sound &= day < _LENGTH[month_of_all]
    if text.null_count():  # the view of a null may hold any bytes
        sound &= text.is_not_null().to_numpy()
    found = pl.Series(text.name, _FIRST[month_of_all] + day.view("i4")).cast(pl.Date)
    return found if sound.all() else found.zip_with(pl.Series(sound), found.clear(len(found)))


def _pair(digits: NDArray[np.uint32], byte: int) -> NDArray[np.uint32]:
    """Return the two-digit number that starts at a byte; byte 0 is the lowest."""
    tens = digits >> np.uint32(8 * byte)
    return (tens * np.uint32(10) + (tens >> np.uint32(8))) & np.uint32(0xFF)


def _no_digits(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return a mask with the high bit set in each byte that is more than 9."""
    return (values + np.uint32(0x76767676) | values) & np.uint32(0x80808080)


def moments(text: pl.Series, zone: bool | None = None) -> pl.Series:
    """Read dates and times as UTC; any other value becomes null.

    Args:
        text: values such as 2026-01-31, 2026-01-31 23:59 or 2026-01-31T23:59:00.5+01:00. A value
            without a time zone is UTC.
        zone: True: each value must have a time zone; False: none may; None: both are read.
    """
    if not zone and text.str.contains(_PLAIN).all():  # a fast path that suits most files
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
    """Read dates and times of one format; any other value becomes null.

    Args:
        text: the values.
        form: the format, as for ``strptime``; see :data:`csv.dialect.DIRECTIVES`.
        dtype: ``Date`` or ``Datetime``. A date is read as midnight; as a ``Date``, a value with
            another time than midnight becomes null.
    """
    fits = text.str.contains(csv_dialect.pattern_of(form))
    own = text.str.to_datetime if csv_dialect.has_time(form) else text.str.to_date
    found = own(form, strict=False).cast(NAIVE)
    if dtype == pl.Date:
        fits &= found.dt.truncate("1d") == found
    return found.zip_with(fits.fill_null(value=False), found.clear(len(found))).cast(dtype)


def _seconds(text: pl.Series) -> pl.Series:
    moment = text.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    # Polars reads second 60 as the next minute; such a value becomes null.
    leap = text.str.ends_with(":60")
    return moment.zip_with(~leap, moment.clear(len(moment))) if leap.any() else moment
