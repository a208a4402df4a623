"""Files as other programs write them, by their defaults and in other locales, to every task.

``writers/`` holds what R, LibreOffice, Spark and DuckDB wrote (``make.py``). What is installed
here writes in the test, and so do conventions (Excel, MySQL, scripts).
"""

import csv
import datetime as dt
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from celray_csv import converted, summary, table
from celray_jobs import ALL, TABLES, Place, Task, place_in
from celray_writers import NAMES, ROWS

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.protocol import InputProblemError

WRITERS = Path(__file__).parents[1] / "writers"
GERMAN = {"decimal": ",", "thousands": ".", "date_format": "%d.%m.%Y"}


def german(value: object) -> str:
    """Write a value as Excel and LibreOffice do there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "WAHR" if value else "FALSCH"
    if isinstance(value, float):
        return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))
    return value.strftime("%d.%m.%Y") if isinstance(value, dt.date) else str(value)


def excel(encoding: str, separator: str, above: str = "") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\r\n")
    writer.writerow(NAMES)
    writer.writerows([german(value) for value in row] for row in ROWS)
    return (above + out.getvalue()).encode(encoding)


def mysql() -> bytes:
    """As ``SELECT ... INTO OUTFILE`` does: tabs, no quotes, escapes, and its own missing word."""
    out = io.StringIO(newline="")
    writer = csv.writer(
        out, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", quotechar=None,
        lineterminator="\n",
    )  # fmt: skip
    writer.writerow(NAMES)
    writer.writerows([f"{v}" if v is not None else "NULL" for v in row] for row in ROWS)
    return out.getvalue().replace("\tNULL", "\t\\N").encode()


def awk() -> bytes:
    """As scripts print it: nothing is quoted, numbers are padded."""
    lines = [f"{a},{b} ,{day or ''},{zip_},{c},{f'{v:>9}  ' if v else ''},{f},w,{t}"
             for a, b, day, zip_, c, v, f, _, t in ROWS]  # fmt: skip
    return "\n".join([",".join(NAMES), *lines]).encode()


def by_pandas(**options: Any) -> bytes:  # noqa: ANN401 - to_csv's own
    frame = pd.DataFrame(ROWS, columns=NAMES)
    frame["day"] = pd.to_datetime(frame["day"])
    out = io.BytesIO()
    frame.to_csv(out, **options)
    return out.getvalue()


def by_polars(**options: Any) -> bytes:  # noqa: ANN401 - write_csv's own
    text: str = pl.DataFrame(ROWS, schema=NAMES, orient="row").write_csv(**options)
    return text.encode()


def of(name: str) -> Callable[[], bytes]:
    return (WRITERS / name).read_bytes


#: Who wrote a file, what must be said of it, and a warning or an error where nothing is said.
FILES: dict[str, tuple[Callable[[], bytes], dict[str, Any], str]] = {
    "r-csv.csv": (of("r-csv.csv"), {}, "'country' is text: 'NA' (r-csv.csv, row 1) counts as"),
    "r-csv2.csv": (of("r-csv2.csv"), {}, "separator ';', decimal ','"),
    "r-latin1.csv": (of("r-latin1.csv"), {"encoding": "latin-1"}, "say its encoding"),
    "r-table-tab.csv": (of("r-table-tab.tsv"), {}, "would not be written back"),
    "r-fwrite.csv": (of("r-fwrite.csv"), {}, "would not be written back"),
    "r-fwrite2.csv": (of("r-fwrite2.csv"), {}, "separator ';', decimal ','"),
    "spark.csv": (of("spark/part-00000.csv"), {"escape": "\\"}, "say so: escape"),
    "duckdb.csv": (of("duckdb.csv"), {"missing": [""]}, "'NA' (duckdb.csv, row 1) counts as"),
    "libreoffice-en-US.csv": (
        of("libreoffice-en-US.csv"), {"thousands": ",", "date_format": "%m/%d/%y"},
        "decimal '.' and thousands ','",
    ),
    "libreoffice-de-DE.csv": (
        of("libreoffice-de-DE.csv"), {**GERMAN, "date_format": "%d.%m.%y"},
        "decimal ',' and thousands '.'",
    ),
    "libreoffice-fr-FR.csv": (
        of("libreoffice-fr-FR.csv"),
        {"encoding": "cp1252", "decimal": ",", "thousands": " ", "date_format": "%d/%m/%Y"},
        "say its encoding",
    ),
    "libreoffice-tr-TR.csv": (
        of("libreoffice-tr-TR.csv"), {**GERMAN, "date_format": "%d.%m.%y"},
        "decimal ',' and thousands '.'",
    ),
    "excel-utf8.csv": (lambda: excel("utf-8-sig", ";"), GERMAN, "is no ISO 8601 date"),
    "excel-unicode.csv": (
        lambda: excel("utf-16", "\t"), GERMAN, "encoding 'utf-16', separator tab",
    ),
    "excel-windows.csv": (
        lambda: excel("cp1252", ";"), {**GERMAN, "encoding": "cp1252"}, "say its encoding",
    ),
    "excel-dos.csv": (
        lambda: excel("cp850", ";"), {**GERMAN, "encoding": "cp850"}, "say its encoding",
    ),
    "excel-sep.csv": (
        lambda: excel("utf-8-sig", ";", "sep=;\r\n"), {**GERMAN, "skip_rows": 1, "separator": ";"},
        "skip_rows 1 and separator ';'",
    ),
    "mysql.csv": (
        mysql, {"quote": None, "escape": "\\", "missing": ["", "\\N"]}, "",
    ),
    "awk.csv": (awk, {"decimal": "."}, "decimal '.'"),
    "pandas.csv": (by_pandas, {}, "counts as a missing value"),
    "pandas-de.csv": (
        lambda: by_pandas(sep=";", decimal=",", date_format="%d.%m.%Y", na_rep="-", index=False),
        {"date_format": "%d.%m.%Y", "missing": ["-"], "decimal": ","}, "is no ISO 8601 date",
    ),
    "pandas-quoted.csv": (lambda: by_pandas(quoting=csv.QUOTE_ALL), {"missing": [""]}, "'NA'"),
    "pandas-16.csv": (lambda: by_pandas(encoding="utf-16", index=False), {}, "encoding 'utf-16'"),
    "polars.csv": (lambda: by_polars(line_terminator="\r\n"), {"missing": [""]}, "'NA'"),
    "polars-comma.csv": (
        lambda: by_polars(separator=";", decimal_comma=True, quote_style="non_numeric"), {},
        "separator ';', decimal ','",
    ),
}  # fmt: skip
#: What is refused whatever is said, with what its user can do.
REFUSED = {
    "r-table.csv": (of("r-table.csv"), "blanks seem to separate its columns"),
    "r-table-comma.csv": (of("r-table-comma.csv"), "row.names=FALSE"),
    "excel-mac.csv": (
        lambda: excel("utf-8", ";").replace(b"\r\n", b"\r"),
        "ends its lines with CR alone",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("writers") / "place") as made:
        for name, (content, _, _) in FILES.items():
            (made.datasets / name).write_bytes(content())
        for name, (content, _) in REFUSED.items():
            (made.datasets / name).write_bytes(content())
        yield made


def expected(path: Path) -> list[list[Any]]:
    """Return the rows of a file, in its order: Spark's parts hold some of them."""
    if path.name != "spark.csv":
        return ROWS
    keys = [line.split(",")[0] for line in path.read_text().splitlines()]
    return [ROWS[int(key) - 1] for key in keys if key.isdigit()]


def require_same(path: Path, frame: pl.DataFrame, said: dict[str, Any]) -> None:
    """Hold a table against what the program was given; what cannot be told apart is said."""
    rows = expected(path)
    for at, name in enumerate(NAMES):
        for row, found in zip(rows, frame[name].to_list(), strict=True):
            value: Any = "w" if name == "word" and path.name == "awk.csv" else row[at]
            if found is None:
                assert value is None or (value == "NA" and "missing" not in said), (name, row)
            elif name == "flag":
                words = {True, "true", "wahr", "vrai", "doğru"}
                assert ((found if found is True else str(found).lower()) in words) == value
            elif isinstance(found, dt.datetime):
                assert found == dt.datetime.combine(value, dt.time())
            else:
                assert found == value, (name, row, found)
                assert not isinstance(value, float) or isinstance(found, float)


@pytest.mark.parametrize("name", FILES)
def test_what_a_program_wrote_is_read_as_it_was_meant(place: Place, name: str) -> None:
    path, said = place.datasets / name, FILES[name][1]
    require_same(path, table(path, **said), said)
    require_same(path, converted(path, 3, 200, **said), said)
    assert summary(path, **said).rows == len(expected(path))


def answer(place: Place, task: str, name: str, **said: object) -> tuple[str, int | None]:
    """Return what a task says of a file, and the rows that it read; its error, if it has none."""
    for old in ("m", "m.toml"):
        found = place.root / "models/registry" / old
        shutil.rmtree(found, ignore_errors=True) if old == "m" else found.unlink(missing_ok=True)
    every: dict[str, Any] = {"aggregations": None} if task == Task.AGGREGATE else {}
    try:
        result = place.call(task, name, **every, **said)
    except InvalidArgumentsError as error:
        return str(error), None
    if task == Task.RETRAIN:
        (model,) = result["models"]
        return " ".join([*model.get("warnings", ()), model["reason"] or ""]), model.get("rows_read")
    if task == Task.INBOX:
        (file,) = result["files"]
        return " ".join([*file.get("warnings", ()), file["reason"] or ""]), file["rows"]
    return " ".join(result["warnings"]), result["rows_read"]


#: Search and retraining read as training does, and take longer: some files show it.
CALLS = [
    (name, task)
    for number, name in enumerate(FILES)
    for task in ALL
    if task != Task.PREDICT and (task not in TABLES[1:] or number % 4 == 0)
]


@pytest.mark.parametrize(("name", "task"), CALLS)
def test_every_task_reads_it_and_says_what_it_had_to_choose(
    place: Place, task: str, name: str
) -> None:
    _, said, words = FILES[name]
    rows = len(expected(place.datasets / name))
    told, read = answer(place, task, name, **said)
    assert read == rows, told
    if said and words:
        told, read = answer(place, task, name)
        assert words in told
        assert read in {rows, None}


@pytest.mark.parametrize("name", FILES)
def test_a_model_predicts_what_a_program_wrote(place: Place, name: str) -> None:
    said = {key: value for key, value in FILES[name][1].items() if key != "missing"}
    config = {"n_estimators": 2, **FILES[name][1]}
    model = place.local.run("distributed_training", model_config=config, dataset_path=name)
    result = place.local.run(
        Task.PREDICT, model_path=model["model_path"], data_batches=name, id_column="a", **said
    )
    assert result["ids"] == [row[0] for row in expected(place.datasets / name)]
    manifest = json.loads(Path(result["manifest_path"]).read_text())
    assert all(manifest["parameters"][key] == value for key, value in said.items())


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_way_out(
    place: Place, task: str, name: str
) -> None:
    told, read = answer(place, task, name)
    assert read is None
    assert REFUSED[name][1] in told


def test_a_folder_that_spark_wrote_is_one_table(place: Place) -> None:
    """``_SUCCESS`` and checksums beside the parts are none of it."""
    shutil.copytree(WRITERS / "spark", place.datasets / "spark")
    shutil.copytree(WRITERS / "spark-gzip", place.datasets / "spark-gzip")
    for task in ALL:
        if task in {Task.CSV, Task.INBOX}:
            continue
        told, read = answer(place, task, "spark", escape="\\")
        assert read == len(ROWS), told
        told, read = answer(place, task, "spark-gzip", escape="\\")
        assert read == len(ROWS), told
    with pytest.raises(InputProblemError, match="row"):
        table(place.datasets / "spark.csv", escape="\\", schema={"word": "number"})
