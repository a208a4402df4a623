"""``aggregate_data``: what polars alone gives, over files of both formats."""

import json
import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from celray_jobs import run_job_in, write_compressed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tasks.ray_jobs import cluster
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.aggregation import partial_aggregates
from tasks.ray_jobs.large_csv import job as large_csv_job
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables.reading import MISSING

Aggregate = Callable[..., dict[str, Any]]

#: Python's default context keeps 28 digits.
EXACT = Context(prec=100)


@pytest.fixture
def run(root: Path, one_process: pytest.MonkeyPatch) -> Aggregate:
    one_process.setattr(aggregation_job, "RANGE_BYTES", 3000)
    one_process.setattr(aggregation_job, "BATCH_ROWS", 100)

    def call(*sources: str, output: str = "out.parquet", **given: object) -> dict[str, Any]:
        defaults: dict[str, Any] = {"group_by": [], "aggregations": None, "overwrite": False}
        defaults |= {"schema": {}, "missing": list(MISSING), "separator": ","}
        parameters = {**defaults, **given, "data_sources": list(sources), "output_path": output}
        return run_job_in(root, aggregation_job.main, parameters)

    return call


@pytest.fixture
def frame() -> pl.DataFrame:
    n = 3000
    return pl.DataFrame(
        {
            "city": [("Oslo", "Rome", None, "a,b")[i % 4] for i in range(n)],
            "qty": [i % 7 for i in range(n)],
            "price": [None if i % 11 == 0 else 1e6 + i / 3 for i in range(n)],
            "day": pl.date_range(pl.date(2000, 1, 1), pl.date(2008, 3, 18), eager=True)[:n],
        }
    )


def test_groups_over_sources_of_both_formats_are_what_polars_gives(
    run: Aggregate, root: Path, frame: pl.DataFrame
) -> None:
    frame[:1000].write_csv(root / "a.csv")
    frame[1000:1800].write_parquet(root / "b.parquet")
    frame[1800:2500].write_csv(root / "c_part_0.csv")
    frame[2500:].write_csv(root / "c_part_1.csv")
    every = ["count", "min", "max", "sum", "mean", "std"]
    asked = {"price": every, "qty": ["sum", "mean"], "day": ["min", "max"]}
    result = run("a.csv", "b.parquet", "c", group_by=["city"], aggregations=asked)
    expected = (
        frame.group_by("city")
        .agg(
            pl.len().cast(pl.Int64).alias("rows"),
            *(getattr(pl.col(c), f)().alias(f"{c}_{f}") for c, fs in asked.items() for f in fs),
        )
        .sort("city", nulls_last=True)
        .with_columns(pl.col("price_count").cast(pl.Int64))
    )
    assert_frame_equal(pl.read_parquet(root / "out.parquet"), expected, rel_tol=1e-9)
    assert (result["status"], result["total_rows"], result["num_sources"]) == ("success", 3000, 3)
    assert [(s["source"], s["rows"], s["files"]) for s in result["summaries"]] == [
        ("a.csv", 1000, 1), ("b.parquet", 800, 1), ("c", 1200, 2),
    ]  # fmt: skip
    assert result["mismatches"] == []
    again = run("a.csv", "b.parquet", "c", group_by=["city"], aggregations=asked)
    assert again == {**result, "reused": True}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_large_file_is_read_in_ranges_and_an_archive_in_one_go(
    run: Aggregate, root: Path, frame: pl.DataFrame, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    real = cluster.each

    def each(function: Any, items: Any, **options: Any) -> Any:  # noqa: ANN401
        listed = list(items)
        called.extend(item.bounds is not None for item in listed)
        return real(function, listed, **options)

    monkeypatch.setattr(cluster, "each", each)
    note = pl.Series([f'said "{i}",\nand\n' for i in range(frame.height)])
    text = frame.with_columns(note=note, late=pl.lit(None)).write_csv()
    text = text[:-1] + "7.5\n"  # the last row alone shows what this column holds
    path = root / f"a.csv{suffix}"
    write_compressed(path, text)
    asked = {"qty": ["sum"], "late": ["max"], "note": ["count"]}
    result = run(path.name, group_by=["city"], aggregations=asked)
    expected = frame.group_by("city").agg(pl.col("qty").sum()).sort("city", nulls_last=True)
    table = pl.read_parquet(root / "out.parquet")
    assert table["qty_sum"].to_list() == expected["qty"].to_list()
    assert table["late_max"].drop_nulls().to_list() == [7.5]
    assert result["total_rows"] == frame.height
    columns = result["summaries"][0]["columns"]
    assert columns["note"]["count"] == frame.height
    # In ranges twice: the second time with the type that the last row needs.
    assert (len(called) > 20, all(called)) == ((True, True) if not suffix else (False, False))


def test_two_parts_of_different_types_are_told_by_name(run: Aggregate, root: Path) -> None:
    (root / "p_part_0.csv").write_text("k,x\n1,1\n")
    (root / "p_part_1.csv").write_text("k,x\n1,true\n")
    with pytest.raises(InputProblemError, match=r"'x' has different types.*p_part_0.*p_part_1"):
        run("p")


@pytest.mark.parametrize("odd", ["K1A 0B1", "02494", "+49151", "01/02/2024"])
@pytest.mark.parametrize("plain", ["7", "7.5", "2024-01-31", "true", ""])
def test_a_column_that_is_text_in_one_part_is_text_in_all(
    run: Aggregate, root: Path, odd: str, plain: str
) -> None:
    rows = {0: ["7", "7"], 1: [odd, "7"], 2: [plain, plain], 3: ["8", ""]}
    for number, values in rows.items():
        (root / f"p_part_{number}.csv").write_text("zip,n\n" + "".join(f"{v},1\n" for v in values))
    result = run("p", group_by=["zip"], aggregations={"n": ["sum"]})
    expected: dict[str | None, int] = {}
    for value in (value or None for values in rows.values() for value in values):
        expected[value] = expected.get(value, 0) + 1
    table = pl.read_parquet(root / "out.parquet")
    assert dict(table.select("zip", "n_sum").rows()) == expected
    (said,) = [text for text in result["warnings"] if "all files" in text]
    assert all(word in said for word in ("'zip' is text", "p_part_1.csv", "p_part_0.csv", "schema"))
    run("p", output="b.parquet", group_by=["zip"], aggregations={}, schema={"zip": "text"})


def test_without_groups_every_column_of_every_source_is_summarised(
    run: Aggregate, root: Path, frame: pl.DataFrame
) -> None:
    frame.write_csv(root / "a.csv")
    result = run("a.csv", output="out.csv")
    price = result["summaries"][0]["columns"]["price"]
    assert price["missing"] == frame["price"].null_count()
    assert price["count"] == 3000 - price["missing"]
    for what in ("mean", "std", "min", "max", "sum"):
        assert math.isclose(price[what], float(getattr(frame["price"], what)()), rel_tol=1e-9)
    columns = result["summaries"][0]["columns"]
    assert columns["day"] == {
        "type": "date", "missing": 0, "count": 3000, "min": "2000-01-01", "max": "2008-03-18",
    }  # fmt: skip
    table = pl.read_csv(root / "out.csv")
    assert table["column"].to_list() == ["city", "qty", "price", "day"]
    assert table.filter(pl.col("column") == "qty")["sum"][0] == frame["qty"].sum()


def test_mismatched_schemas_are_reported_by_source(run: Aggregate, root: Path) -> None:
    (root / "a.csv").write_text("k,x,y\n1,1,1\n2,2,2\n")
    (root / "b.csv").write_text("k,x,z\n1,0.5,1\n")
    (root / "c.csv").write_text("k,x,y\n1,2,no\n")
    result = run("a.csv", "b.csv", "c.csv", group_by=["k"])
    assert result["mismatches"] == [
        {
            "source": "b.csv",
            "lacks": ["y"],
            "adds": ["z"],
            "types": {"x": {"here": "number", "first": "integer"}},
        },
        {
            "source": "c.csv",
            "lacks": [],
            "adds": [],
            "types": {"y": {"here": "text", "first": "integer"}},
        },
    ]
    assert result["warnings"] == ["column 'y' was left out: it has different types in the sources"]
    got = pl.read_parquet(root / "out.parquet")
    assert got.select("k", "rows", "x_sum", "z_count").rows() == [(1, 3, 3.5, 1), (2, 1, 2.0, 0)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"group_by": ["kk"]}, "'kk' is not in b.csv"),
        ({"group_by": ["y"]}, "Column 'y' has different types in the sources"),
        ({"aggregations": {"k": ["mean"]}, "group_by": ["x"]}, "needs numbers, and the column is"),
        ({"group_by": ["rows"]}, "'rows' and the number of rows of each group would have one name"),
        (
            {"group_by": ["x_count"], "aggregations": {"x": ["sum", "count"]}},
            "'x_count' and count of 'x' would have one name",
        ),
        ({"group_by": ["x_count"]}, "'x_count' and count of 'x' would have one name"),
    ],
)
def test_what_cannot_be_aggregated_is_told(
    run: Aggregate, root: Path, given: dict[str, Any], words: str
) -> None:
    (root / "a.csv").write_text("k,x,y,kk,rows,x_count\nu,1,1,1,1,1\n")
    (root / "b.csv").write_text("k,x,y,rows,x_count\nv,1,no,1,1\n")
    with pytest.raises(InputProblemError) as caught:
        run("a.csv", "b.csv", **given)
    assert words in str(caught.value)
    assert not list(root.glob("*out*"))


def test_what_infinity_leaves_without_a_value_is_missing(run: Aggregate, root: Path) -> None:
    numbers = {"up": [1.0, math.inf], "both": [-math.inf, math.inf], "flag": [True, False]}
    pl.DataFrame(numbers).write_parquet(root / "a.parquet")
    result = run("a.parquet")
    columns = json.loads(json.dumps(result["summaries"], allow_nan=False))[0]["columns"]
    assert [columns["up"][what] for what in ("max", "sum", "mean", "std")] == ["inf"] * 3 + [None]
    assert [columns["both"][what] for what in ("sum", "mean", "std")] == [None] * 3
    assert [columns["flag"][what] for what in ("min", "max")] == [False, True]
    table = pl.read_parquet(root / "out.parquet")
    assert table.select("sum", "mean", "std").rows() == [
        (math.inf, math.inf, None), (None, None, None), (None, None, None),
    ]  # fmt: skip
    assert table["min"].to_list() == ["1.0", "-inf", "false"]
    run("a.parquet", aggregations={"both": ["sum", "mean", "std"], "flag": ["min"]})
    assert pl.read_parquet(root / "out.parquet").rows() == [(2, None, None, None, False)]


@pytest.mark.parametrize(
    "sources",
    [("d/jan.csv", "./d/jan.csv"), ("d", "d/jan.csv"), ("link.csv", "d/jan.csv"), ("both",)],
)
def test_a_file_counts_once_under_whatever_names(
    run: Aggregate, root: Path, sources: tuple[str, ...]
) -> None:
    for folder in ("d", "both"):
        (root / folder).mkdir()
        (root / folder / "jan.csv").write_text("k\n1\n")
    (root / "link.csv").symlink_to(root / "d" / "jan.csv")
    (root / "both" / "link.csv").symlink_to(root / "both" / "jan.csv")
    with pytest.raises(InputProblemError) as caught:
        run(*sources)
    assert all(repr(source) in str(caught.value) for source in sources)
    assert "jan.csv" in str(caught.value)
    assert "are one file" in str(caught.value)


def test_long_keys_that_differ_are_never_one_group(run: Aggregate, root: Path) -> None:
    long = pl.Series([Decimal("12345678901234567.89"), Decimal(1)], dtype=pl.Decimal(20, 2))
    pl.DataFrame({"k": long}).write_parquet(root / "d.parquet")
    (root / "whole.csv").write_text("k\n9007199254740993\n9007199254740992\n")
    (root / "part.csv").write_text("k\n1.5\n9007199254740992.0\n")
    for sources, value in (
        (["d.parquet", "part.csv"], "12345678901234567.89"),
        (["whole.csv", "part.csv"], 2**53 + 1),
    ):
        with pytest.raises(
            InputProblemError, match=f"'k' holds {value}.*, which a 64-bit float does not hold"
        ):
            run(*sources, group_by=["k"])
    assert run("whole.csv", group_by=["k"])["output_rows"] == 2
    short = pl.Series([Decimal("0.10"), Decimal(7), None], dtype=pl.Decimal(12, 2))
    pl.DataFrame({"k": short}).write_parquet(root / "e.parquet")
    (root / "f.csv").write_text("k\n0.1\n7\n")
    run("e.parquet", "f.csv", group_by=["k"])
    table = pl.read_parquet(root / "out.parquet")
    assert table.select("k", "rows").rows() == [(0.1, 2), (7.0, 2), (None, 1)]


@settings(deadline=None)
@given(
    digits=st.lists(st.integers(1 - 10**38, 10**38 - 1), min_size=1),
    scales=st.tuples(st.integers(0, 38), st.integers(0, 38)),
    whole=st.lists(st.integers(-(2**63), 2**63 - 1)),
)
# Rounded up, it needs 39 digits.
@example(digits=[99_999_999_999_999_990_234_375 * 10**15], scales=(25, 0), whole=[])
def test_decimal_keys_stay_apart_or_are_refused(
    digits: list[int], scales: tuple[int, int], whole: list[int]
) -> None:
    """Whatever their digits, also beside those of another scale, and whole numbers."""
    # Refused is what has no room in 38 digits, and is another value as a float.
    columns = [pl.Series("k", whole, pl.Int64())]
    for scale in scales:
        decimals = [Decimal(value).scaleb(-scale, EXACT) for value in digits]
        columns.append(pl.Series("k", decimals, pl.Decimal(38, scale)))
    parts = [partial_aggregates.partial(pl.DataFrame([column]), ["k"], {}) for column in columns]
    expected = Counter(Decimal(value) for column in columns for value in column)
    try:
        merged = partial_aggregates.merge(parts, {"k": "number"}, {})
    except InputProblemError:
        return
    assert len(merged) == len(expected)
    if isinstance(merged.schema["k"], pl.Decimal):
        assert dict(merged.rows()) == expected


def test_decimal_keys_are_decimals_in_the_output(run: Aggregate, root: Path) -> None:
    long = [Decimal("12345678901234567890.12"), Decimal("12345678901234567890.13"), None]
    keys = {"k": pl.Decimal(22, 2)}
    pl.DataFrame({"k": long}, schema=keys).write_parquet(root / "d.parquet")
    pl.DataFrame({"k": [7, None]}).write_parquet(root / "e.parquet")
    run("d.parquet", "e.parquet", group_by=["k"])
    rows = pl.read_parquet(root / "out.parquet").select("k", "rows").rows()
    assert rows == [(Decimal(7), 1), (long[0], 1), (long[1], 1), (None, 2)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"a,b\n", "has a header and no rows"),
        ("x.csv", b"a,b\n1,2\n3\n", "row 2: 1 field, not 2"),
        ("x.csv", b"a,b\n1,\xff\n", "row 1: not UTF-8"),
        ("x.csv", b'a,b\n1,"2\n', "never closed"),
        ("x.parquet", b"no parquet file", "cannot be read as Parquet"),
    ],
)
def test_a_damaged_source_is_told_and_leaves_nothing(
    run: Aggregate, root: Path, name: str, content: bytes, words: str
) -> None:
    (root / "good.csv").write_text("a,b\n1,2\n")
    (root / name).write_bytes(content)
    with pytest.raises(InputProblemError) as caught:
        run("good.csv", name)
    assert words in str(caught.value)
    assert not list(root.glob("*out*"))


@given(
    length=st.integers(1, 1 << 34),
    longest=st.integers(1 << 20, 1 << 25),
    cpus=st.integers(1, 99),
)
def test_no_range_is_too_long_and_no_cpu_has_more_of_them_than_another(
    length: int, longest: int, cpus: int
) -> None:
    count = large_csv_job.range_count(length, None, cpus, longest)
    assert length <= count * longest
    assert count < cpus or count % cpus == 0


def test_a_type_that_changes_far_behind_is_followed(run: Aggregate, root: Path) -> None:
    rows = [f"{i},{i % 3}" for i in range(200_000)]
    rows[150_000] = "0.5,1"
    (root / "a.csv").write_text("v,k\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation_job, "RANGE_BYTES", 1 << 20)
        result = run("a.csv", group_by=["k"])
    assert result["summaries"][0]["columns"]["v"]["type"] == "number"
    assert pl.read_parquet(root / "out.parquet")["v_sum"].sum() == sum(range(200_000)) - 149_999.5


# -- what the caller says of CSV -------------------------------------------------------------------


def test_a_declared_code_is_a_number_and_a_declared_number_a_code(
    run: Aggregate, root: Path
) -> None:
    (root / "a.csv").write_text("k,n\n007,010\n7,2\n")
    (root / "b.csv").write_text("k,n\n8,3\n")
    with pytest.raises(InputProblemError, match=r"'k' has different types.*schema"):
        run("a.csv", "b.csv", group_by=["k"], aggregations={})
    with pytest.raises(InputProblemError, match=r"n: sum needs numbers.*schema \{'n': 'number'\}"):
        run("a.csv", aggregations={"n": ["sum"]})
    given = {"group_by": ["k"], "aggregations": {"n": ["sum"]}}
    result = run("a.csv", "b.csv", schema={"k": "text", "n": "integer"}, **given)
    assert result["warnings"] == []
    assert pl.read_parquet(root / "out.parquet").rows() == [
        ("007", 1, 10), ("7", 1, 2), ("8", 1, 3),
    ]  # fmt: skip


def test_a_value_that_is_not_of_its_declared_type_is_named(run: Aggregate, root: Path) -> None:
    (root / "a.csv").write_text("k,n\nx,1\ny,many\n")
    with pytest.raises(InputProblemError, match=r"a\.csv, row 2: column 'n': 'many' is not a numb"):
        run("a.csv", schema={"n": "number"})


def test_a_type_of_a_column_that_no_source_has_is_refused(run: Aggregate, root: Path) -> None:
    (root / "a.csv").write_text("k,num\nx,1\n")
    with pytest.raises(InputProblemError, match=r"schema: column 'nun' is not in any.*'num'"):
        run("a.csv", schema={"nun": "number"})


def test_missing_words_and_the_separator_are_the_callers(run: Aggregate, root: Path) -> None:
    """NA is Namibia's code."""
    (root / "a.csv").write_text('country;v\nNA;1\nDE;2\n;3\n"NA";4\n')
    given = {"group_by": ["country"], "aggregations": {"v": ["sum"]}, "separator": ";"}
    run("a.csv", missing=[""], **given)
    assert pl.read_parquet(root / "out.parquet").rows() == [
        ("DE", 1, 2), ("NA", 2, 5), (None, 1, 3),
    ]  # fmt: skip
    run("a.csv", **given)
    assert pl.read_parquet(root / "out.parquet").rows() == [("DE", 1, 2), (None, 3, 8)]


@pytest.mark.parametrize("value", ["2023", "2.5", "007", "2024-01-31", "x", "true"])
@pytest.mark.parametrize("row", [0, 7_000, 60_000, 99_999])
def test_a_column_that_is_empty_but_for_one_value_is_read(
    run: Aggregate, root: Path, monkeypatch: pytest.MonkeyPatch, value: str, row: int
) -> None:
    monkeypatch.setattr(aggregation_job, "RANGE_BYTES", 1 << 18)
    rows = "".join(f"{i},town {i % 50},{value if i == row else ''}\n" for i in range(100_000))
    (root / "a.csv").write_text("id,city,closed\n" + rows)
    asked = {"id": ["sum"], "closed": ["count"]}
    result = run("a.csv", group_by=["city"], aggregations=asked)
    (summary,) = result["summaries"]
    assert summary["rows"] == 100_000
    assert (summary["columns"]["closed"]["count"], summary["columns"]["closed"]["missing"]) == (
        1,
        99_999,
    )
    assert pl.read_parquet(root / "out.parquet")["rows"].sum() == 100_000


# -- digits ----------------------------------------------------------------------------------------

CENTS = ["100000000000000000", "0.01", "-100000000000000000", "0.02", "1e16", "3", "-1e16"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("repeated", [1, 40])
def test_a_sum_of_numbers_keeps_the_cents(
    run: Aggregate, root: Path, order: int, repeated: int
) -> None:
    """Twice the digits of a float, over parts, files, formats and groups."""
    text = [*CENTS, "0.1", "0.2", "0.3"][::order] * repeated
    groups = {"big": [float(value) for value in text], "small": [0.01] * 5}
    rows = [(k, v) for k, values in groups.items() for v in values]
    (root / "a.csv").write_text("k,v\n" + "".join(f"{k},{v!r}\n" for k, v in rows))
    pl.DataFrame(rows, schema=["k", "v"], orient="row").write_parquet(root / "b.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation_job, "RANGE_BYTES", 200)
        patch.setattr(aggregation_job, "BATCH_ROWS", 7)
        run("a.csv", "b.parquet", group_by=["k"], aggregations={"v": ["sum", "mean"]})
        sums = pl.read_parquet(root / "out.parquet")["v_sum"].to_list()
        result = run("a.csv", output="whole.csv")
    sums.append(result["summaries"][0]["columns"]["v"]["sum"])
    exact = [math.fsum(values * 2) for values in groups.values()]
    exact.append(math.fsum(v for _, v in rows))
    for got, right in zip(sums, exact, strict=True):
        assert abs(got - right) <= 1e17 * 2.0**-100


def test_a_sum_near_the_largest_number_is_one(run: Aggregate, root: Path) -> None:
    values = [1.7e308, 1.0, -1.7e308, 5e-324, math.inf, 2.0]
    frame = pl.DataFrame({"k": ["a", "a", "a", "b", "c", "c"], "v": values})
    frame.write_parquet(root / "a.parquet")
    run("a.parquet", group_by=["k"], aggregations={"v": ["sum"]})
    got = dict(pl.read_parquet(root / "out.parquet").select("k", "v_sum").rows())
    assert (got["b"], got["c"]) == (5e-324, math.inf)
    assert got["a"] in {0.0, 1.0}  # as plain addition does, where there is no room for more


def test_decimals_keep_all_digits(run: Aggregate, root: Path) -> None:
    long = [Decimal(100000000000000000), Decimal("0.01"), None, Decimal("0.02")]
    cents, fine = {"v": pl.Decimal(20, 2)}, {"v": pl.Decimal(9, 4)}
    frame = pl.DataFrame({"k": ["a", "a", "a", "b"], "v": long}, schema_overrides=cents)
    frame.write_parquet(root / "a.parquet")
    other = pl.DataFrame({"k": ["a"], "v": [Decimal("0.0001")]}, schema_overrides=fine)
    other.write_parquet(root / "b.parquet")
    asked = {"v": ["sum", "min", "max", "count", "mean"]}
    result = run("a.parquet", "b.parquet", group_by=["k"], aggregations=asked)
    table = pl.read_parquet(root / "out.parquet").select("k", "v_sum", "v_min", "v_max", "v_count")
    assert table.rows() == [
        ("a", Decimal("100000000000000000.0101"), Decimal("0.0001"), Decimal(10**17), 3),
        ("b", Decimal("0.02"), Decimal("0.02"), Decimal("0.02"), 1),
    ]
    assert result["summaries"][0]["columns"]["v"]["sum"] == float(10**17)
    # Beside a column of numbers they are numbers.
    (root / "c.csv").write_text("k,v\na,0.5\n")
    run("a.parquet", "c.csv", output="d.parquet", group_by=["k"], aggregations={"v": ["sum"]})
    assert pl.read_parquet(root / "d.parquet").schema["v_sum"] == pl.Float64


def test_decimals_too_long_for_their_sum_are_numbers(run: Aggregate, root: Path) -> None:
    """Polars adds decimals of a group beyond 38 digits without a word."""
    large = Decimal("9" * 36 + ".99")
    values = pl.Series([large] * 250, dtype=pl.Decimal(38, 2))
    frame = pl.DataFrame({"k": ["a"] * 250, "v": values})
    frame.write_parquet(root / "a.parquet")
    run("a.parquet", group_by=["k"], aggregations={"v": ["sum"]})
    got = pl.read_parquet(root / "out.parquet")["v_sum"][0]
    assert math.isclose(float(got), float(large * 250), rel_tol=1e-15)


@pytest.mark.parametrize("int96", [False, True])
def test_instants_stay_apart_to_the_nanosecond(run: Aggregate, root: Path, *, int96: bool) -> None:
    start = 1_700_000_000_000_000_000
    at = [start + 1, start + 211, start + 211, start + 1000, None]
    values = pa.table({"t": pa.array(at, pa.timestamp("ns")), "v": [1, 2, 3, 4, 5]})
    pq.write_table(values, root / "a.parquet", use_deprecated_int96_timestamps=int96)
    micro = pa.table({"t": pa.array([start // 1000 + 1], pa.timestamp("us")), "v": [6]})
    pq.write_table(micro, root / "b.parquet")
    asked = {"v": ["sum"], "t": ["min", "max"]}
    result = run("a.parquet", "b.parquet", group_by=["t"], aggregations=asked)
    table = pl.read_parquet(root / "out.parquet")
    assert table["t"].to_physical().to_list() == [start + 1, start + 211, start + 1000, None]
    assert table["v_sum"].to_list() == [1, 5, 10, 5]
    assert table["t_max"].to_physical().to_list()[:3] == table["t"].to_physical().to_list()[:3]
    found = result["summaries"][0]["columns"]["t"]
    assert (found["min"], found["max"]) == (
        "2023-11-14T22:13:20.000000001", "2023-11-14T22:13:20.000001",
    )  # fmt: skip


def test_times_without_room_for_nanoseconds_beside_some_with_them_are_refused(
    run: Aggregate, root: Path
) -> None:
    pq.write_table(pa.table({"t": pa.array([1], pa.timestamp("ns"))}), root / "a.parquet")
    pl.DataFrame({"t": [datetime(3000, 1, 1)]}).write_parquet(root / "b.parquet")  # noqa: DTZ001
    with pytest.raises(InputProblemError, match=r"'t' holds times to the nanosecond.*2262"):
        run("a.parquet", "b.parquet", group_by=["t"])


# -- what is not asked for -------------------------------------------------------------------------


def test_what_is_not_asked_for_is_not_read_and_said(run: Aggregate, root: Path) -> None:
    (root / "a.csv").write_text("k,x,y\na,1,007\n")
    pl.DataFrame({"k": ["a"], "x": [2], "y": [[1]]}).write_parquet(root / "b.parquet")
    result = run("a.csv", "b.parquet", group_by=["k"], aggregations={"x": ["sum"]})
    assert pl.read_parquet(root / "out.parquet").rows() == [("a", 2, 3)]
    assert [list(s["columns"]) for s in result["summaries"]] == [["k", "x"], ["k", "x"]]
    (warning,) = result["warnings"]
    assert "not read: y." in warning
    with pytest.raises(InputProblemError, match="schema: column 'z'"):
        run("a.csv", schema={"z": "text"}, group_by=["k"], aggregations={})


def test_rows_alone_are_counted(run: Aggregate, root: Path) -> None:
    (root / "a.csv").write_text("k,x\na,1\nb,\n")
    pl.DataFrame({"k": ["a"], "x": [2]}).write_parquet(root / "b.parquet")
    result = run("a.csv", "b.parquet", aggregations={})
    assert result["total_rows"] == 3
    assert pl.read_parquet(root / "out.parquet").rows() == [(3,)]
