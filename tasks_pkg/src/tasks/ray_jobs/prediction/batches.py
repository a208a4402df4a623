"""Read ``data_batches``, and check it against a model. Standard library only.

The worker checks before a job is submitted, and the job checks again.

========= ==============================================================
type      accepted
========= ==============================================================
number    numbers, booleans, text that is a number
boolean   booleans, 0 and 1, ``true`` and ``false``
date      ISO 8601 text
category  text; numbers and booleans as text, 2 and 2.0 alike
text      as category
unused    anything: the model was trained without this column
========= ==============================================================

A missing value (None, an empty text, NaN) is accepted everywhere. ``NA`` and similar words, which
are missing in a CSV file, are text here, because JSON has null.
"""

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

from ..model import signature
from ..protocol import InputProblemError


def divided(data_batches: str | Sequence[Any]) -> tuple[list[str], list[list[Any]]]:
    """Return the paths and the batches of rows in the argument.

    Raises:
        InputProblemError: an item is neither, or there is nothing to predict.
    """
    batches = [data_batches] if isinstance(data_batches, str) else list(data_batches)
    for number, batch in enumerate(batches):
        if not isinstance(batch, str | list):
            raise InputProblemError(
                "batch_unfit",
                f"data_batches[{number}]: {repr(batch)[:80]} is no batch.",
                "A batch is a list of rows, or the path of a file, such as a .csv.",
            )
    files = [batch for batch in batches if isinstance(batch, str)]
    rows = [batch for batch in batches if not isinstance(batch, str)]
    if not files and not any(rows):
        raise InputProblemError(
            "batches_empty",
            "data_batches holds no row.",
            "Send at least one batch: a list of rows, or a path.",
        )
    return files, rows


def require_rows(model: signature.Model, batches: Sequence[Sequence[Any]]) -> None:
    """Refuse rows that do not match the model; report the first one with its place.

    Args:
        model: the model with the signature.
        batches: each a list of rows; a row is a mapping by column, or a list of values in the
            order of the training table's columns.

    Raises:
        InputProblemError: names batch, row, column and value.
    """
    for number, batch in enumerate(batches):
        for position, row in enumerate(batch):
            where = f"data_batches[{number}][{position}]"
            for name, value in named(model, row, where).items():
                kind = model.types.get(name, "unused")
                if not _fits(value, kind):
                    text = repr(value)
                    raise InputProblemError(
                        "value_unfit",
                        f"{where}: {text[:80]} is not a {kind}, which column {name!r} of the"
                        f" model {model.folder.name} is.",
                        "Correct it, or send null where the value is not known.",
                    )


def named(model: signature.Model, row: Any, where: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a row by column name.

    Raises:
        InputProblemError: it lacks columns of the model.
    """
    if isinstance(row, dict):
        signature.require_columns(model, list(row), where)
        return row
    if not isinstance(row, list):
        raise InputProblemError(
            "row_unfit",
            f"{where}: {repr(row)[:80]} is not a row.",
            "A row is an object by column name, or a list of values in the columns' order.",
        )
    if len(row) != len(model.types):
        raise InputProblemError(
            "row_unfit",
            f"{where} has {len(row)} values; the model {model.folder.name} takes"
            f" {len(model.types)}.",
            f"In this order: {', '.join(model.types)}; or send objects by column name.",
        )
    return dict(zip(model.types, row, strict=True))


def _fits(value: Any, kind: str) -> bool:  # noqa: ANN401 - JSON
    if kind == "unused" or value is None or value == "":
        return True
    if isinstance(value, float) and math.isnan(value):
        return True
    if isinstance(value, str):
        reads = {"number": _is_number, "date": _is_date, "boolean": _is_truth}.get(kind)
        return reads is None or reads(value)
    if not isinstance(value, int | float):
        return False
    return kind not in {"date", "boolean"} or (kind == "boolean" and value in {0, 1})


def _is_truth(text: str) -> bool:
    return text.strip().lower() in {"true", "false"}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_date(text: str) -> bool:
    return moment(text) is not None


def moment(text: str) -> dt.datetime | None:
    """Read ISO 8601 text as a time in UTC; a time without a zone is UTC.

    Returns:
        The time without a zone; None if the text is no time.
    """
    try:
        found = dt.datetime.fromisoformat(text.strip())
        return found.astimezone(dt.UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError):
        return None
