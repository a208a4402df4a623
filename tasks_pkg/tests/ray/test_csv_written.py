"""One table, however it is written as CSV, means the same rows and values to every task."""

import csv
import datetime as dt
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import AGGREGATE, ALL, CSV, INBOX, PREDICT, RETRAIN, Place, place_in

from tasks.ray_jobs import csv_plan, reading
from tasks.ray_jobs.sources import Source

NAMES = ["a", "b", "day", "v", "word", "target"]
DAYS = [f"2024-{i % 12 + 1:02}-{i % 28 + 1:02}" for i in range(60)]
#: A decimal, a long number, a sign of each kind, and quotes.
WORDS = ["Zoë", 'say "so"', "it's", "a;b|c\td, e", "50 %", "two\nlines"]
ROWS = [
    [i, i % 7, DAYS[i], 1234.5 * i - 7, WORDS[i % len(WORDS)], "xy"[i % 2]] for i in range(60)
]


def written(
    separator: str = ",",
    number: Callable[[float], str] = str,
    day: Callable[[str], str] = str,
    **dialect: Any,
) -> str:
    """Write the table by Python's csv module."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\r\n", **dialect)
    writer.writerow(NAMES)
    writer.writerows([*row[:2], day(row[2]), number(row[3]), *row[4:]] for row in ROWS)
    return out.getvalue()


def grouped(point: str, group: str, sign: str = "") -> Callable[[float], str]:
    return lambda value: sign + f"{value:,}".translate(str.maketrans({".": point, ",": group}))


def european(text: str) -> str:
    return ".".join(reversed(text.split("-")))


PREAMBLE = "Report 2024\r\nmade by \"hand\", it's new\r\n\r\n"
COMMENTS = PREAMBLE.replace("Report", "# Report").replace("made", "# made").replace("\r\n\r\n", "\n")
ESCAPED = {"doublequote": False, "escapechar": "\\"}

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
    "preamble-16": ((PREAMBLE + written(";")).encode("utf-16"), {"skip_rows": 3}, "encoding 'utf-16', separator ';'"),
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
    "swiss": (written(number=grouped(".", "’")).encode(), {"thousands": "'"}, ""),
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


def essence(place: Place, task: str, result: dict[str, Any]) -> object:
    """Give what a result says of the rows and values that were read."""
    if task == CSV:
        return pl.read_parquet(result["output_file"]).rows()
    if task == INBOX:
        (file,) = result["files"]
        return pl.read_parquet(file["output"]).rows()
    if task == AGGREGATE:
        (summary,) = result["summaries"]
        return summary["rows"], summary["columns"]
    if task == RETRAIN:
        (model,) = result["models"]
        return model["rows_read"], model["score"], model["metric"]
    if task == PREDICT:
        return result["rows_read"], result["predictions"]
    model = json.loads((Path(result["model_path"]) / "manifest.json").read_text())
    return result["rows_read"], model["signature"], model["result"]["metrics"]


def told_of(task: str, result: dict[str, Any]) -> list[str]:
    if task == RETRAIN:
        return result["models"][0]["warnings"]  # type: ignore[no-any-return]
    return [text for text in result["warnings"] if "were held" not in text]


@pytest.fixture(scope="module")
def plain(place: Place) -> Callable[[str], object]:
    """Give what the plainest file means to a task."""
    known: dict[str, object] = {}

    def give(task: str) -> object:
        if task not in known:
            result = place.call(task, "good.csv")
            known[task] = essence(place, task, result)
        return known[task]

    return give


def read(path: Path, **said: object) -> tuple[pl.DataFrame, list[str]]:
    told: list[str] = []
    frame = reading.read(Source((path,), "csv"), (), told, csv_plan.said(said))
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


#: Together these need every argument, and have everything that is detected.
FEW = ("said-all", "german", "excel")


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("way", FEW)
def test_every_task_takes_every_way(
    place: Place, plain: Callable[[str], object], task: str, way: str
) -> None:
    content, said, detected = WRITTEN[way]
    expected = plain(task)
    for name in ("m", "m.toml"):  # each is a first version
        old = place.root / "models" / "registry" / name
        if task == RETRAIN and old.exists():
            old.rename(old.with_name(f"{name}-before-{way}"))
    (place.datasets / f"{way}.csv").write_bytes(content)
    result = place.call(task, f"{way}.csv", **said)
    found = [text for text in told_of(task, result) if "was read with" in text]
    assert len(found) == bool(detected)
    assert all(f"{way}.csv was read with {detected};" in text for text in found)
    assert essence(place, task, result) == expected
    if task not in {RETRAIN, INBOX}:
        manifest = json.loads(Path(result["manifest_path"]).read_text())
        assert {name: manifest["parameters"][name] for name in said} == said
