"""``python -m ray_jobs predict``: predict rows with a model, and store the predictions."""

import datetime as dt
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .. import artefacts, cluster
from ..accounting import Rejected, account
from ..csv import codes as csv_codes
from ..csv import datetimes as csv_datetimes
from ..csv import notes as csv_notes
from ..csv import parsing as csv_parsing
from ..csv import plan as csv_plan
from ..csv.dialect import CsvOptions
from ..inputs import sources
from ..job import Reporter
from ..model import features, signature
from ..model.files import MODEL, PREPROCESSING
from ..model.predictor import Predictor
from ..protocol import InputProblemError, JobRequest
from ..requests import PredictRequest
from ..tables import memory as table_memory
from ..tables import reading
from . import batches

FOLDER = "batch_predictions"
TASK = "tasks.ml_tasks.batch_predictions"
PREDICTIONS = "predictions.parquet"

#: The rows that one actor predicts at a time; fewer are not worth an actor.
PIECE_ROWS = 50_000
#: The predictions in the result; all of them are in the file.
SHOWN_ROWS = 100
#: The column that carries a piece's number through Ray Data.
PIECE = "celray piece"
#: How many characters of a value a warning shows.
_SHOWN_CHARS = 60
#: Column types that are text even if the values look like numbers.
_WORDS = ("category", "text")
#: Column types that are parsed from a CSV file, also if the column holds the ids.
_PARSED = ("number", "boolean", "date")
#: Text of a whole number in its usual form.
_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"
#: Text columns, each with the categories that the model has seen.
Words = Mapping[str, tuple[str, ...]]


def main(request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """Predict, or return the result of an identical request."""
    asked = PredictRequest.of(request)
    reporter.progress("reading", 0, 1, "looking at model and rows")
    model = signature.find(asked.model_path, request.models_dir)
    plan = Predictor(model).plan  # loaded here, so that a bad model file is one readable error
    files, rows = batches.divided(asked.data_batches)
    roots = (request.datasets_dir, request.models_dir)
    found = [sources.resolve(path, roots, "data_batches") for path in files]
    taken = [fingerprint for source in found for fingerprint in reading.fingerprints(source)]
    inline = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    deciding = [model.manifest["files"][name]["sha256"] for name in (MODEL, PREPROCESSING)]
    form, given = signature.written(model, asked.csv), asked.csv.given()
    inherited = {name: value for name, value in form.items() if name not in given}
    deciding += [*(fingerprint.sha256 for fingerprint in taken), inline, json.dumps(inherited)]
    number = artefacts.digest(request, deciding, ignoring={"model_path", "data_batches"})
    folder = Path(request.models_dir) / FOLDER / artefacts.folder_name(model.folder.name, number)
    finished = artefacts.finished(folder / artefacts.MANIFEST)
    if finished is not None:
        return {**finished, "reused": True}
    artefacts.require_writable(folder.parent, reporter.run_dir)

    words = {column.name: column.categories for column in plan.columns if column.role in _WORDS}
    wanted = asked.id_column
    said = csv_plan.said(CsvOptions.of(form))
    told: list[str] = []
    read = Read(told, Rejected(), table_memory.Growth(model=False))
    tables = [_from_files(model, source, words, wanted, said, read) for source in found]
    tables += [_from_rows(model, rows, words, wanted)] if rows else []
    told[:0] = read.rejected.said()
    number_of_rows = sum(len(part) for part, _ in tables) + len(read.rejected.rows)
    ids = _ids([part for part, _ in tables], wanted, number_of_rows, read.rejected)
    table = pl.concat([part for _, part in tables], how="vertical_relaxed")
    reading.require_unchanged(taken)
    reporter.progress("predicting", 0, table.height, "rows")
    answers, actors = _predict(model, table, reporter)
    predictions = pl.concat([ids.to_frame(), answers], how="horizontal")
    first = predictions.head(SHOWN_ROWS)
    result = {
        "status": "success",
        "total_predictions": predictions.height,
        **account(number_of_rows, predictions.height, {}, read.rejected),
        "predictions": first["prediction"].to_list(),
        "ids": [_plain(value) for value in first["id"].to_list()],
        "task": model.manifest["signature"]["output"]["task"],
        "model_path": str(model.folder),
        "predictions_path": str(folder / PREDICTIONS),
        "manifest_path": str(folder / artefacts.MANIFEST),
        "num_actors": actors,
        "warnings": [*told, *_warnings(plan, table)],
    }
    reporter.progress("saving", 0, 1, str(folder))
    manifest = {
        **artefacts.identity(request, TASK),
        "inputs": [fingerprint.as_json() for fingerprint in taken],
        "rows_in_the_request": sum(map(len, rows)),
        "read_as_in_training": inherited,
        "model": {"manifest": str(model.folder / artefacts.MANIFEST), "sha256": deciding[0]},
        "columns": {name: str(kind) for name, kind in predictions.schema.items()},
        "result": result,
    }
    saved = artefacts.publish(
        request, folder, manifest, lambda path: predictions.write_parquet(path / PREDICTIONS)
    )
    return {**saved, "reused": False}


def _warnings(plan: features.Plan, table: pl.DataFrame) -> list[str]:
    """Return warnings about values that tell the model nothing."""
    found = []
    for column in plan.columns:
        values = table[column.name].drop_nulls()
        if values.is_empty():
            found.append(f"column {column.name!r} has no value in any row")
        elif column.role == "category":
            known = pl.Series(column.categories, dtype=pl.String)
            unseen = values.filter(~values.cast(pl.String).is_in(known.implode()))
            if len(unseen):
                found.append(
                    f"column {column.name!r}: {str(unseen[0])[:_SHOWN_CHARS]!r} and the like"
                    f" ({len(unseen)} rows) did not occur in training"
                )
    return found


@dataclass(frozen=True)
class Read:
    """The remarks about the files that were read, and their size in memory."""

    told: list[str]
    rejected: Rejected
    growth: table_memory.Growth


def _from_files(  # noqa: PLR0913, PLR0917 - what main has found out
    model: signature.Model,
    source: sources.Source,
    words: Words,
    wanted: str | None,
    said: csv_parsing.Form,
    read: Read,
) -> tuple[pl.Series, pl.DataFrame]:
    text = list(words)
    if wanted is not None and model.types.get(wanted) not in _PARSED:
        text.append(wanted)
    heard: list[str] = []
    told = read.told
    table_memory.require(source, model=False)
    before = read.rejected.read
    frame = reading.read(source, text, heard, said, rejected=read.rejected, growth=read.growth)
    # The reader's remarks on columns' types are left out: here the model determines the types. So
    # is its count of bad rows, to which _fitting may add.
    known = {*told, *read.rejected.said()}
    told += [
        each
        for each in heard
        if (not each.startswith("column ") or csv_notes.TAKEN in each) and each not in known
    ]
    where = str(source.files[0])
    signature.require_columns(model, frame.columns, where)
    if wanted is not None:
        sources.require_column(wanted, frame.columns, "id_column", where)
    if source.format == "csv" and said.reject:
        frame = _fitting(model, frame, words, read.rejected, before)
    ids = frame[wanted] if wanted is not None else pl.int_range(frame.height, eager=True)
    if source.format == "csv" and ids.dtype == pl.String and ids.str.contains(_WHOLE).all():
        ids = ids.cast(pl.Int64)
    told += [
        f"column {name!r}: {str(frame[name].filter(codes)[0])[:_SHOWN_CHARS]!r} and the like"
        f" ({codes.sum()} rows of {where}) are read as numbers, as the model expects"
        for name in model.needed
        if model.types[name] == "number" and frame[name].dtype == pl.String
        if (codes := csv_codes.codes(frame[name]).fill_null(value=False)).any()
    ]
    columns = [
        _known(reading.written(frame[name]), frame[name].dtype.is_numeric(), words[name])
        if name in words
        else _conform(frame[name], model.types[name], where)
        for name in model.needed
    ]
    return ids, pl.DataFrame(columns)


def _fitting(
    model: signature.Model, frame: pl.DataFrame, words: Words, rejected: Rejected, before: int
) -> pl.DataFrame:
    """Return the rows whose values match the model; reject the others.

    Args:
        model: the model.
        frame: the valid rows of the files that were read last.
        words: the columns that may hold anything.
        rejected: receives the others; its last rows are those of these files.
        before: the number of rows in earlier files.

    Raises:
        InputProblemError: a file has too many bad rows.
    """
    faults: dict[int, tuple[str, str]] = {}
    for name in model.needed:
        text, kind = frame[name], model.types[name]
        if name in words or text.dtype != pl.String:
            continue
        for row in (text.is_not_null() & _as_kind(text, kind).is_null()).arg_true().to_list():
            faults.setdefault(row, (name, f"{str(text[row])[:_SHOWN_CHARS]!r} is not a {kind}"))
    if not faults:
        return frame
    numbers = np.delete(np.arange(rejected.read), np.array(rejected.rows))
    numbers = numbers[numbers >= before]
    rejected.put_aside({int(numbers[row]): fault for row, fault in faults.items()})
    return frame.filter(~pl.int_range(pl.len()).is_in(list(faults)))


def _from_rows(
    model: signature.Model, rows: list[list[Any]], words: Words, wanted: str | None
) -> tuple[pl.Series, pl.DataFrame]:
    batches.require_rows(model, rows)
    named = [
        (batches.named(model, row, where), where)
        for number, batch in enumerate(rows)
        for position, row in enumerate(batch)
        if (where := f"data_batches[{number}][{position}]")
    ]
    ids = pl.int_range(len(named), eager=True)
    if wanted is not None:
        for row, where in named:
            sources.require_column(wanted, list(row), "id_column", where)
        ids = _row_ids([row[wanted] for row, _ in named])
    columns = []
    for name in model.needed:
        kind = model.types[name]
        values = [row[name] for row, _ in named]
        if name in words:
            columns.append(_words(name, values, words[name]))
            continue
        if kind == "date":  # parsed one by one, as the worker's check does
            moments = [batches.moment(value or "") for value in _present(values)]
            columns.append(pl.Series(name, moments, dtype=pl.Datetime("us")))
            continue
        if kind == "number":  # as text beside other text, a boolean would become a word
            values = [int(value) if isinstance(value, bool) else value for value in values]
        columns.append(_conform(_series(name, values), kind, "data_batches"))
    return ids, pl.DataFrame(columns)


def _present(values: list[Any]) -> list[Any]:
    """Return JSON values with None for every missing one."""
    return [None if v == "" or (isinstance(v, float) and math.isnan(v)) else v for v in values]


def _series(name: str, values: list[Any]) -> pl.Series:
    """Return JSON values as one column; as text if they are of different kinds."""
    known = _present(values)
    kinds = {type(value) for value in known if value is not None}
    if kinds <= {int, float}:
        return pl.Series(name, known, dtype=pl.Float64 if float in kinds else None, strict=False)
    if len(kinds) == 1:
        return pl.Series(name, known)
    return pl.Series(name, [None if v is None else _text(v) for v in known], dtype=pl.String)


def _row_ids(values: list[Any]) -> pl.Series:
    """Return ids as they were sent; as text if of different kinds, or longer than 64 bits."""
    known = _present(values)
    long = any(isinstance(value, int) and abs(value) >= 1 << 63 for value in known)
    if long or len({type(value) for value in known if value is not None}) > 1:
        known = [None if value is None else _text(value) for value in known]
    return pl.Series("id", known)


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(name: str, values: list[Any], known: tuple[str, ...]) -> pl.Series:
    """Return JSON values as text, each on its own: its form does not depend on its neighbours."""
    fractions = pl.Series([v if isinstance(v, float) else None for v in values], dtype=pl.Float64)
    own = [None if v is None or isinstance(v, float) else _text(v).strip() or None for v in values]
    text = pl.Series(name, own, dtype=pl.String)
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    text = text.zip_with(text.is_not_null(), reading.written(fractions))
    return _known(text, pl.Series(numbers), known)


def _known(text: pl.Series, numbers: pl.Series | bool, known: tuple[str, ...]) -> pl.Series:
    """Return whole numbers in the model's form: ``1.0`` if it has seen that and no ``1``."""
    pointed = text + ".0"
    other = pointed.is_in(known) & ~text.is_in(known) & numbers
    return pointed.zip_with(other.fill_null(value=False), text)


def _conform(column: pl.Series, kind: str, where: str) -> pl.Series:
    """Return a column in the type that the model takes.

    Raises:
        InputProblemError: it holds values of another type.
    """
    given = column.dtype
    if given == pl.Null:
        return column.cast(pl.Float64)
    if given == pl.String:
        return _require_all(column, _as_kind(column, kind), kind, where)
    if kind == "date":
        column, fits = _in_utc(column), given.is_temporal()
    else:
        fits = given.is_numeric() or given == pl.Boolean
    if fits:
        return column
    raise InputProblemError(
        "value_unfit",
        f"{where}: column {column.name!r} is of type {given}; the model takes a {kind} there.",
        "Give the column the type that it had in training.",
    )


def _as_kind(text: pl.Series, kind: str) -> pl.Series:
    """Return text as values of the model's type; None for other text."""
    if kind == "date":
        return _moments(text)
    small = text.str.strip_chars().str.to_lowercase()
    truth = small.replace({"true": "1", "false": "0"}) if kind == "boolean" else small
    return truth.cast(pl.Float64, strict=False)


def _moments(column: pl.Series) -> pl.Series:
    """Return text as times in UTC, also those without a zone; None for other text."""
    text = column.str.strip_chars()
    read = csv_datetimes.moments(text)
    # ISO 8601 has more forms, which are read as in rows.
    left = [
        batches.moment(value or "") if moment is None else None
        for value, moment in zip(text, read, strict=True)
    ]
    return read.zip_with(read.is_not_null(), pl.Series(left, dtype=pl.Datetime("us")))


def _in_utc(moments: pl.Series) -> pl.Series:
    """Return times without their zone, so that those with and without one can be combined."""
    if getattr(moments.dtype, "time_zone", None):
        moments = moments.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return moments


def _require_all(given: pl.Series, read: pl.Series, kind: str, where: str) -> pl.Series:
    wrong = given.filter(given.is_not_null() & read.is_null())
    if wrong.is_empty():
        return read.alias(given.name)
    raise InputProblemError(
        "value_unfit",
        f"{where}: {str(wrong[0])[:80]!r} is not a {kind}, which column {given.name!r} of the model"
        f" is ({len(wrong)} such values).",
        "Correct them, or leave them empty where the value is not known.",
    )


def _ids(parts: list[pl.Series], wanted: str | None, rows: int, rejected: Rejected) -> pl.Series:
    """Return one id per row: the caller's own, or the row's number from 0 over all inputs.

    Args:
        parts: the ids of each input.
        wanted: the caller's id column.
        rows: the number of rows, including rejected ones, which are numbered too.
        rejected: the rejected rows of the files, which come first.

    Raises:
        InputProblemError: an id is missing or occurs twice.
    """
    if wanted is None:
        numbers = np.delete(np.arange(rows), np.array(rejected.rows))
        return pl.Series("id", numbers, dtype=pl.Int64)
    if len({part.dtype for part in parts}) > 1:
        parts = [reading.written(part) for part in parts]
    ids = pl.concat(parts).alias("id")
    if ids.dtype.is_float():
        ids = ids.fill_nan(None)
    if ids.null_count():
        raise InputProblemError(
            "id_missing",
            f"id_column {wanted!r} has no value in {ids.null_count()} rows.",
            "Fill it, or leave id_column out: rows are then numbered.",
        )
    twice = ids.filter(ids.is_duplicated())
    if not twice.is_empty():
        raise InputProblemError(
            "id_repeated",
            f"id_column {wanted!r} holds {str(twice[0])!r} more than once"
            f" ({len(twice)} rows share their id).",
            "Choose a column whose values differ, or leave id_column out.",
        )
    return ids


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a Parquet file holds
    """Return an id as a JSON value; as text if JSON has no such type."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


class Actor:
    """A process that has loaded the model and predicts the pieces that it receives."""

    def __init__(self, model: signature.Model) -> None:
        self.predictor = Predictor(model)

    def __call__(self, piece: Any) -> Any:  # noqa: ANN401 - an Arrow table, in and out
        """Predict a piece, and keep its number."""
        frame = pl.DataFrame(piece)
        answers = self.predictor.predict(frame)
        return answers.with_columns(frame[PIECE]).to_arrow()


def _predict(
    model: signature.Model, table: pl.DataFrame, reporter: Reporter
) -> tuple[pl.DataFrame, int]:
    """Return a prediction per row, and the number of actors that made them (0: this process)."""
    pieces = -(-table.height // PIECE_ROWS)
    parts: dict[int, pl.DataFrame] = {}
    actors = 0
    if cluster.engine() == "plain" or pieces == 1:
        answers = _in_this_process(model, table, pieces)
    else:
        cluster.connect()
        actors = min(pieces, cluster.cpus())
        answers = _on_actors(model, table, actors)
    done = 0
    for number, part in answers:
        parts[number] = part
        done += part.height
        reporter.progress("predicting", done, table.height, "rows")
    return pl.concat([parts[number] for number in range(pieces)]), actors


def _in_this_process(
    model: signature.Model, table: pl.DataFrame, pieces: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    predictor = Predictor(model)
    for number in range(pieces):
        yield number, predictor.predict(table.slice(number * PIECE_ROWS, PIECE_ROWS))


def _on_actors(
    model: signature.Model, table: pl.DataFrame, actors: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Predict on a pool of Ray Data actors; yield pieces as they are finished."""
    import ray.data  # noqa: PLC0415 - takes seconds, which a small request saves

    data: Any = ray.data
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    numbered = table.with_columns((pl.int_range(pl.len()) // PIECE_ROWS).alias(PIECE))
    pieces = [
        numbered.slice(start, PIECE_ROWS).to_arrow()
        for start in range(0, numbered.height, PIECE_ROWS)
    ]
    predicted = data.from_arrow(pieces).map_batches(
        Actor,
        fn_constructor_args=(model,),
        batch_format="pyarrow",
        batch_size=None,
        compute=data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        zero_copy_batch=True,
    )
    for block in predicted.iter_batches(batch_size=None, batch_format="pyarrow"):
        frame = pl.DataFrame(block)
        for (number,), part in frame.partition_by(
            PIECE, as_dict=True, include_key=False, maintain_order=True
        ).items():
            yield int(number), part
