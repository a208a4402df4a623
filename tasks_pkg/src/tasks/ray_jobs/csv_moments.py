"""Dates and times of a CSV file: ISO 8601 and nothing else, each value by itself.

Polars' own parser guesses a format from the first value that it sees, and holds the others against
that: the same value would be another day, or none, beside other neighbours.
"""

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

#: Moments of which none says its zone, and those of which each does. As values both are the former.
NAIVE, ZONED = pl.Datetime("us"), pl.Datetime("us", "UTC")

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_ZONE = r"Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?"
_ONLY_DATE = rf"^{_DATE}$"
_PLAIN = rf"^{_DATE}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}$"
_MOMENT = (
    rf"^(?<date>{_DATE})(?:[T ](?<minute>[0-9]{{2}}:[0-9]{{2}})"
    rf"(?::(?<second>[0-9]{{2}})(?:\.(?<fraction>[0-9]{{1,9}}))?)?(?<zone>{_ZONE})?)?$"
)


def dates(text: pl.Series) -> pl.Series:
    """Read dates such as 2026-01-31; what is none is missing."""
    return _sound(text, _ONLY_DATE).str.to_date("%Y-%m-%d", strict=False)


def moments(text: pl.Series, zone: bool | None = None) -> pl.Series:
    """Read dates and times as UTC; what is none is missing.

    Args:
        text: values such as 2026-01-31, 2026-01-31 23:59 or 2026-01-31T23:59:00.5+01:00. One
            without a zone counts as UTC.
        zone: whether each must say its zone, or must not; None where it may.
    """
    if not zone and text.str.contains(_PLAIN).all():  # most files, at a fifth of the cost
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


def _sound(text: pl.Series, pattern: str) -> pl.Series:
    fits = text.str.contains(pattern)
    return text if fits.all() else text.zip_with(fits, text.clear(len(text)))


def _seconds(text: pl.Series) -> pl.Series:
    moment = text.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    # Only a leap second, which polars counts to the next minute, ends so.
    leap = text.str.ends_with(":60")
    return moment.zip_with(~leap, moment.clear(len(moment))) if leap.any() else moment
