"""The content of the table that other programs write (``tests/ray_jobs/writers/make.py``)."""

import datetime as dt
from typing import Any

NAMES = ["a", "b", "day", "zip", "country", "value", "flag", "word", "target"]
WORDS = ["Zoë", 'say "so"', "it's", "a;b,c|d", "two\nlines", "C:\\dir"]


def _row(number: int) -> list[Any]:
    return [
        number,
        number % 7,
        dt.date(2024, 1, 1) + dt.timedelta(number) if number % 13 else None,
        f"{500 + 97 * number:05}",
        ["DE", "NA", "FR", "US"][number % 4],
        1234.5 * number - 7 if number % 10 else None,
        number % 3 == 0,
        WORDS[number % 6],
        "xy"[number % 2],
    ]


ROWS = [_row(number) for number in range(1, 41)]
