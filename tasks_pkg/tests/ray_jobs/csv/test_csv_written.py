"""One table, however it is written as CSV, means the same rows and values to every task."""

import csv
import datetime as dt
import gzip
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import ALL, Place, Task, place_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv import plan as csv_plan
from tasks.ray_jobs.csv import recoding as csv_recoding
from tasks.ray_jobs.csv import text as csv_text
from tasks.ray_jobs.csv.dialect import CsvOptions, Written
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.large_csv import job as large_csv_job
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables import reading

NAMES = ["a", "b", "day", "v", "word", "target"]
DAYS = [f"2024-{i % 12 + 1:02}-{i % 28 + 1:02}" for i in range(60)]
#: A decimal, a long number, a sign of each kind, and quotes.
WORDS = ["Zoë", 'say "so"', "it's", "a;b|c\td, e", "50 %", "two\nlines"]
ROWS: list[list[Any]] = [
    [i, i % 7, DAYS[i], 1234.5 * i - 7, WORDS[i % len(WORDS)], "xy"[i % 2]] for i in range(60)
]


def written(
    separator: str = ",",
    number: Callable[[float], str] = str,
    day: Callable[[str], str] = str,
    **dialect: Any,  # noqa: ANN401 - csv.writer's own
) -> str:
    """Write the table by Python's csv module."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\r\n", **dialect)
    writer.writerow(NAMES)
    writer.writerows([*row[:2], day(row[2]), number(row[3]), *row[4:]] for row in ROWS)
    return out.getvalue()


def grouped(point: str, group: str, sign: str = "") -> Callable[[float], str]:
    return lambda value: (
        sign + f"{value:,}".replace(",", "G").replace(".", point).replace("G", group)
    )


def european(text: str) -> str:
    return ".".join(reversed(text.split("-")))


PREAMBLE = 'Report 2024\r\nmade by "hand", it\'s new\r\n\r\n'
COMMENTS = (
    PREAMBLE.replace("Report", "# Report").replace("made", "# made").replace("\r\n\r\n", "\n")
)
ESCAPED: dict[str, Any] = {"doublequote": False, "escapechar": "\\"}

#: How the table is written, and what must be said of it; what is detected is said in the result.
WRITTEN: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "plain": (written().encode(), {}, ""),
    "mark": (written().encode("utf-8-sig"), {}, ""),
    "semicolons": (written(";").encode(), {}, "separator ';'"),
    "tabs": (written("\t").encode(), {}, "separator tab"),
    "pipes": (written("|").encode(), {}, "separator '|'"),
    "said": (written("~").encode(), {"separator": "~"}, ""),
    "utf-16": (written().encode("utf-16"), {}, "encoding 'utf-16'"),
    "excel": (written("\t").encode("utf-16"), {}, "encoding 'utf-16', separator tab"),
    "utf-16-be": (written().encode("utf-16-be"), {"encoding": "utf-16-be"}, ""),
    "latin-1": (written().encode("latin-1"), {"encoding": "latin-1"}, ""),
    "windows": (written(";").encode("cp1252"), {"encoding": "cp1252"}, "separator ';'"),
    "preamble": ((PREAMBLE + written()).encode(), {"skip_rows": 3}, ""),
    "preamble-16": ((PREAMBLE + written(";")).encode("utf-16"), {"skip_rows": 3},
                    "encoding 'utf-16', separator ';'"),
    "comments": ((COMMENTS + written() + "# end\r\n").encode(), {"comment": "#"}, ""),
    "single": (written(quotechar="'").encode(), {"quote": "'"}, ""),
    "spark": (written(**ESCAPED).encode(), {"escape": "\\"}, ""),
    "mysql": (written("\t", **ESCAPED).encode(), {"escape": "\\"}, "separator tab"),
    "german": (
        written(";", grouped(",", "")).encode(), {}, "separator ';', decimal ','",
    ),
    "german-said": (
        written(";", grouped(",", "."), european).encode("cp1252"),
        {"encoding": "cp1252", "separator": ";", "decimal": ",", "thousands": ".",
         "date_format": "%d.%m.%Y"}, "",
    ),
    "money": (written(number=grouped(".", ",", "$")).encode(), {"thousands": ","}, ""),
    "swiss": (written(number=grouped(".", "\u2019")).encode(), {"thousands": "'"}, ""),
    "french": (
        written(";", grouped(",", "\u202f")).encode(), {"decimal": ",", "thousands": " "},
        "separator ';'",
    ),
    "said-all": (
        (PREAMBLE + written("~", grouped(",", "."), european, quotechar="'", **ESCAPED)
         .replace("\r\n3~", "\r\n# no row\r\n3~")).encode("cp1252"),
        {"encoding": "cp1252", "separator": "~", "decimal": ",", "thousands": ".", "quote": "'",
         "date_format": "%d.%m.%Y", "escape": "\\", "skip_rows": 3, "comment": "#",
         "missing": ["-"]}, "",
    ),
    "american-days": (
        written(day=lambda day: "{1}/{2}/{0}".format(*day.split("-"))).encode(),
        {"date_format": {"day": "%m/%d/%Y"}}, "",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("written") / "place") as made:
        (made.datasets / "good.csv").write_bytes(WRITTEN["plain"][0])
        made.model = made.call("distributed_training", "good.csv")["model_path"]
        yield made


def essence(task: str, result: dict[str, Any]) -> object:
    """Return what a result says of the rows and values that were read."""
    if task == Task.CSV:
        return pl.read_parquet(result["output_file"]).rows()
    if task == Task.INBOX:
        (file,) = result["files"]
        return pl.read_parquet(file["output"]).rows()
    if task == Task.AGGREGATE:
        (summary,) = result["summaries"]
        return summary["rows"], summary["columns"]
    if task == Task.RETRAIN:
        (model,) = result["models"]
        return model["rows_read"], model["score"], model["metric"]
    if task == Task.PREDICT:
        return result["rows_read"], result["predictions"]
    model = json.loads((Path(result["model_path"]) / "manifest.json").read_text())
    return result["rows_read"], model["signature"], model["result"]["metrics"]


def told_of(task: str, result: dict[str, Any]) -> list[str]:
    if task == Task.RETRAIN:
        return result["models"][0]["warnings"]  # type: ignore[no-any-return]
    return [text for text in result["warnings"] if "were held" not in text]


@pytest.fixture(scope="module")
def plain(place: Place) -> Callable[[str], object]:
    """Return what the plainest file means to a task."""
    known: dict[str, object] = {}

    def give(task: str) -> object:
        if task not in known:
            result = place.call(task, "good.csv")
            known[task] = essence(task, result)
        return known[task]

    return give


def read(path: Path, **said: object) -> tuple[pl.DataFrame, list[str]]:
    told: list[str] = []
    frame = reading.read(Source((path,), "csv"), (), told, csv_plan.said(CsvOptions.of(said)))
    return frame, told


@pytest.mark.parametrize("way", WRITTEN)
def test_a_table_is_the_same_however_it_is_written(tmp_path: Path, way: str) -> None:
    content, said, detected = WRITTEN[way]
    (tmp_path / "good.csv").write_bytes(WRITTEN["plain"][0])
    (tmp_path / "a.csv").write_bytes(content)
    frame, told = read(tmp_path / "a.csv", **said)
    assert frame.equals(read(tmp_path / "good.csv")[0])
    assert frame.rows() == [
        (a, b, dt.date.fromisoformat(day), v, word, target) for a, b, day, v, word, target in ROWS
    ]
    said_so = f"a.csv was read with {detected}; the argument of that name decides."
    assert told == ([said_so] if detected else [])


#: One that needs every argument, and one of which nothing is said.
FEW = ("said-all", "german")


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("way", FEW)
def test_every_task_takes_every_way(
    place: Place, plain: Callable[[str], object], task: str, way: str
) -> None:
    content, said, detected = WRITTEN[way]
    expected = plain(task)
    for name in ("m", "m.toml"):  # each is a first version
        old = place.root / "models" / "registry" / name
        if task == Task.RETRAIN and old.exists():
            old.rename(old.with_name(f"{name}-before-{way}"))
    (place.datasets / f"{way}.csv").write_bytes(content)
    result = place.call(task, f"{way}.csv", **said)
    found = [text for text in told_of(task, result) if "was read with" in text]
    assert len(found) == bool(detected)
    # Aggregates read what is asked for, and the numbers with a comma are not.
    shown = detected.partition(", decimal")[0] if task == Task.AGGREGATE else detected
    assert all(f"{way}.csv was read with {shown};" in text for text in found)
    assert essence(task, result) == expected
    if task not in {Task.RETRAIN, Task.INBOX}:
        manifest = json.loads(Path(result["manifest_path"]).read_text())
        assert {name: manifest["parameters"][name] for name in said} == said


# -- what is said and does not fit -----------------------------------------------------------------

#: A file, what is said of it, and words of the error.
FAULTS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "not-said": (written().encode("latin-1"), {}, "say its encoding"),
    "not-it": (written().encode("latin-1"), {"encoding": "utf-8"}, "say its encoding"),
    "hole": (b"a,b\n1,\x81\n", {"encoding": "cp1252"}, "not in the encoding 'cp1252'"),
    "half": (written().encode("utf-16")[:-1], {}, "not in the encoding 'utf-16'"),
    "no-mark": (written().encode("utf-16-le"), {}, "encoding 'utf-16-le'"),
    "all-skipped": (written().encode(), {"skip_rows": 1000}, "no line below the first 1000"),
    "all-comments": (b"#a,b\n#1,2\n", {"comment": "#"}, "has no header line"),
    "open": (b"a,b\n1,'2\n3,4\n", {"quote": "'"}, "a quote (') that opens in or below line 2"),
    "open-16": ('a,b\n1,"2\n3,4\n'.encode("utf-16"), {}, "is never closed"),
    "width": (b"a,b\n1,'2,3'\n1,2,3\n", {"quote": "'"}, "row 2: 3 fields, not 2"),
    "other": (written(";").encode(), {"separator": ","}, "Say so: separator ';'"),
    "no-column": (written().encode(), {"date_format": {"dya": "%d.%m.%Y"}}, "Did you mean 'day'?"),
    "no-number": (
        b"a;b\n1;0,5\n2;0.5\n", {"schema": {"b": "number"}, "decimal": ","},
        "row 2: column 'b': '0.5' is not a number",
    ),
    "no-date": (
        b"a,b\n1,01/31/2024\n2,31/01/2024\n",
        {"schema": {"b": "date"}, "date_format": "%m/%d/%Y"},
        "row 2: column 'b': '31/01/2024' is not a date",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named_by_every_reader(place: Place, fault: str) -> None:
    content, said, words = FAULTS[fault]
    path = place.datasets / f"{fault}.csv"
    path.write_bytes(content)
    with pytest.raises(InputProblemError) as by_tables:
        read(path, **said)
    calls = {
        "process_large_csv": {
            "file_path": path.name, "output_path": f"{fault}.parquet",
            "transformations": {"bad_rows": "fail", **said},
        },
        Task.AGGREGATE: {"data_sources": [path.name], "output_path": f"{fault}.parquet", **said},
    }  # fmt: skip
    errors = [str(by_tables.value)]
    for task, arguments in calls.items():
        with pytest.raises(InvalidArgumentsError) as caught:
            place.local.run(task, **arguments)
        errors.append(str(caught.value))
    for error in errors:
        assert words in error
        assert path.name in error or fault == "no-column"
        assert "\n" not in error


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"encoding": "utf-9"}, "there is no such encoding"),
        ({"encoding": "base64"}, "there is no such encoding"),
        ({"encoding": "unicode_escape"}, "there is no such encoding"),
        ({"skip_rows": -1}, "greater than or equal to 0"),
        ({"comment": "\n"}, "must be what a line begins with"),
        ({"quote": "''"}, "one ASCII character"),
        ({"quote": "'", "escape": "'"}, "quote and escape are both"),
        ({"separator": "'", "quote": "'"}, "separator and quote are both"),
        ({"decimal": ";"}, "'.' or ','"),
        ({"thousands": "."}, "thousands and decimal are both '.'"),
        ({"date_format": "%d.%m"}, "needs a year, a month and a day"),
        ({"date_format": "%d.%m.%Q"}, "'%Q' is no directive"),
        ({"date_format": "%d.%m.%Y %H"}, "needs hour and minute"),
        ({"date_format": {"day": "%x"}}, "'%x' is no directive"),
    ],
)
@pytest.mark.parametrize("task", [t for t in ALL if t != Task.RETRAIN])
def test_a_wrong_argument_is_named_before_anything_runs(
    place: Place, task: str, said: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArgumentsError, match=re.escape(words)) as caught:
        place.call(task, "good.csv", **said)
    assert next(iter(said)) in str(caught.value)
    assert not place.here.started


def test_a_comma_is_a_point_only_where_nothing_else_can_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for values, number in [
        (["0,5", "1,25"], True), (["1,5", "-2"], True), (["1234,567", "1,5"], True),
        (["1,234", "5,678"], False), (["1,5", "x"], False), (["1", "2"], False),
        (["1,5", "1.5"], False), (["1.234,5", "2,5"], False),
    ]:  # fmt: skip
        path.write_text("a;b\n" + "".join(f"x;{value}\n" for value in values))
        frame, told = read(path)
        assert any("decimal ','" in text and "read with" in text for text in told) == number
        assert frame["b"].dtype == (pl.Float64 if number else pl.Int64 if values == ["1", "2"]
                                    else pl.String)  # fmt: skip
    path.write_text("a;b;c\nx;0,5;0.5\n")
    assert read(path)[0]["b"].dtype == pl.String


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        ("$1,234", "thousands ',' or decimal ','", {"thousands": ","}),
        ("$1,234.50", "decimal '.' and thousands ','", {"thousands": ","}),
        ("1.234,56", "decimal ',' and thousands '.'", {"decimal": ",", "thousands": "."}),
        ("1,234,567", "thousands ','", {"thousands": ","}),
        ("-1 234,5", "decimal ',' and thousands ' '", {"decimal": ",", "thousands": " "}),
        ("1'234.5", "decimal '.' and thousands \"'\"", {"thousands": "'"}),
        ("12,5", "decimal ','", {"decimal": ","}),
        ("$273.36", "decimal '.'", {"decimal": "."}),
        ("29.861 ", "decimal '.'", {"decimal": "."}),
        ("1.234 €", "thousands '.' or decimal '.'", {"thousands": ".", "decimal": ","}),
        ("-$1.234,5", "decimal ',' and thousands '.'", {"decimal": ",", "thousands": "."}),
    ],
)
def test_a_number_that_is_text_is_said_with_what_reads_it(
    tmp_path: Path, value: str, hint: str, said: dict[str, Any]
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'a,b\n1,"{value}"\n2,"{value}"\n', encoding="utf-8")
    frame, told = read(path)
    assert frame["b"].dtype == pl.String
    (text,) = told
    assert f"column 'b' is text: {value!r} (a.csv, row 1)" in text
    assert hint in text
    frame, told = read(path, **said)
    assert frame["b"].dtype.is_numeric()
    assert not told


def test_codes_stay_codes_whatever_the_point_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a;b;c\n007;1.234.567.890.123.456.789.012;1\n7;2;2\n")
    frame, told = read(path, decimal=",", thousands=".", separator=";")
    assert frame.rows()[0] == ("007", "1.234.567.890.123.456.789.012", 1)
    assert len(told) == 2


def test_what_is_read_from_its_beginning_may_be_of_any_length(tmp_path: Path) -> None:
    """Blocks, pieces and characters end where they will."""
    lines = [f"{i};Zoë €;{'x' * (i % 90)}" for i in range(60_000)]
    content = "\r\n".join(["id;name;filler", "# no row", *lines, ""])
    path = tmp_path / "a.csv"
    for encoding, packed in [("utf-16", False), ("cp1252", True)]:
        data = content.encode(encoding)
        path = path.with_name("a.csv.gz" if packed else "a.csv")
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        file, _ = csv_text.begin(path, Written(encoding=encoding, comment="#"), "file_path")
        pieces = list(csv_text.pieces(file, 1 << 20, ord(";")))
        assert b"".join(piece.data for piece in pieces).decode().split("\r\n")[:-1] == lines


@pytest.mark.parametrize("way", ["plain", "semicolons", "preamble", "excel", "comments"])
def test_a_file_of_many_ranges_is_read_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """One that can only be read from its beginning is not cut into ranges of its bytes."""
    content, said, _ = WRITTEN[way]
    (place.datasets / "large.csv").write_bytes(content)
    for module in (aggregation_job, large_csv_job):
        monkeypatch.setattr(module, "RANGE_BYTES", 600)
    monkeypatch.setattr(aggregation_job, "SHARES_PER_CPU", 100)
    result = place.call(Task.AGGREGATE, "large.csv", **said)
    assert result["summaries"][0]["columns"]["a"]["sum"] == sum(range(60))
    assert result["rows_used"] == 60
    result = place.call(Task.CSV, "large.csv", **said)
    assert result["num_chunks"] > 1
    assert essence(Task.CSV, result) == [
        (a, b, dt.date.fromisoformat(day), v, word, target)
        for a, b, day, v, word, target in ROWS
        if a > 1
    ]


def test_the_inbox_takes_the_same_file_again_where_other_is_said_of_it(place: Place) -> None:
    (place.datasets / "again.csv").write_text('a,b\n1,"1,234"\n')
    first = place.call(Task.INBOX, "again.csv")["files"][0]
    assert place.call(Task.INBOX, "again.csv")["files"][0]["status"] == "duplicate"
    second = place.call(Task.INBOX, "again.csv", thousands=",")["files"][0]
    assert second["status"] == "done"
    assert first["output"] != second["output"]
    assert pl.read_parquet(first["output"])["b"].to_list() == ["1,234"]
    assert pl.read_parquet(second["output"])["b"].to_list() == [1234]


def test_predictions_take_values_as_the_training_did(place: Place) -> None:
    """Namibia is no missing value, and a comma is a point, where the training was told so."""
    rows = "".join(f'{"NA" if i % 2 else "DE"},"{i},5",{"xy"[i % 2]}\n' for i in range(40))
    (place.datasets / "na.csv").write_text(f"country,v,target\n{rows}")
    config = {
        "n_estimators": 5, "missing": [""], "decimal": ",", "date_format": {"target": "%d.%m.%Y"},
    }  # fmt: skip
    model = place.local.run("distributed_training", model_config=config, dataset_path="na.csv")
    (place.datasets / "asked.csv").write_text('country,v\nNA,"1,5"\nDE,"2,5"\n')
    given = {"model_path": model["model_path"], "data_batches": "asked.csv"}
    assert place.local.run(Task.PREDICT, **given)["predictions"] == ["y", "x"]
    with pytest.raises(InvalidArgumentsError, match="'1,5' is not a number"):
        place.local.run(Task.PREDICT, **given, decimal=".")


# -- any table -------------------------------------------------------------------------------------

VALUE = st.text(st.sampled_from("ab\"'\\;,\t#\n €é"), max_size=6)


@given(
    records=st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t"),
    quote=st.sampled_from("\"'"),
    escape=st.sampled_from([None, "\\"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]),
    comments=st.lists(st.text(st.sampled_from("ab\"'\\;,#"), max_size=6), max_size=8),
    above=st.integers(0, 3),
    block=st.integers(1, 40),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_table_comes_through_its_recoding(  # noqa: PLR0913, PLR0917 - all of a dialect
    records: list[tuple[str, str, str]],
    separator: str,
    quote: str,
    escape: str | None,
    encoding: str,
    comments: list[str],
    above: int,
    block: int,
) -> None:
    """Whatever stands in fields and comments, in blocks of any length."""
    text = "any \"thing, it's\n" * above
    rows = [[f"x{first}", *others] for first, *others in records]  # no row begins as comments do
    for row, comment in itertools.zip_longest(rows, comments):
        text += f"#{comment}\n" if comment is not None else ""
        out = io.StringIO(newline="")
        csv.writer(
            out, delimiter=separator, quotechar=quote, escapechar=escape,
            doublequote=escape is None, lineterminator="\n",
        ).writerows([row] if row else [])  # fmt: skip
        text += out.getvalue()
    data = text.encode(encoding)
    said = Written(
        separator, encoding=encoding, quote=quote, escape=escape, comment="#", skip_rows=above
    )
    blocks = (data[at : at + block] for at in range(0, len(data), block))
    plain = b"".join(csv_recoding.recoded(Path("a.csv"), blocks, said)).decode()
    assert list(csv.reader(io.StringIO(plain, newline=""), delimiter=separator)) == rows
