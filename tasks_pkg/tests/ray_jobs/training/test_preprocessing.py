import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sklearn.metrics as sk

from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.model import features, metrics, target
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables import reading
from tasks.ray_jobs.training import split


def read(tmp_path: Path, *contents: str) -> pl.DataFrame:
    files = []
    for number, content in enumerate(contents):
        files.append(tmp_path / f"{number}.csv")
        files[-1].write_text(content)
    return reading.read(Source(tuple(files), "csv"))


# -- reading --------------------------------------------------------------------------------


def test_what_csv_tools_call_missing_is_missing(tmp_path: Path) -> None:
    frame = read(tmp_path, "n,t\n1,a\nNA,NA\n,\nNaN,null\n2, N/A \n")
    assert frame["n"].to_list() == [1, None, None, None, 2]
    assert frame["t"].to_list() == ["a", None, None, None, None]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_are_no_rows(tmp_path: Path, end: str) -> None:
    lines = ["a,b", "", '1,"x', "", 'y"', "", "", ",", '3,"z"', "", ""]
    (tmp_path / "a.csv").write_text(end.join(lines), newline="")
    frame = reading.read(Source((tmp_path / "a.csv",), "csv"))
    assert frame["a"].to_list() == [1, None, 3]
    assert frame["b"].to_list() == [f"x{end}{end}y", None, "z"]


def test_a_blank_line_in_a_single_column_is_no_row_but_an_empty_value_is(tmp_path: Path) -> None:
    assert read(tmp_path, '\ufeffx\n1\n\n""\n\n2\n\n')["x"].to_list() == [1, None, 2]


def test_blank_lines_are_no_rows_wherever_a_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "x,y\n" + '\n1,"a\n\nb"\n\n\n2.5,c\n' * 20
    for size in range(9, 40):
        monkeypatch.setattr(reading, "BLOCK_BYTES", size)
        assert read(tmp_path, content)["y"].to_list() == ["a\n\nb", "c"] * 20


def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputProblemError, match="a header and no rows"):
        read(tmp_path, "a,b\n" + "\n" * (2 << 20))


def test_a_type_that_shows_late_is_found(tmp_path: Path) -> None:
    rows = "\n".join([*["1"] * 200_000, "2.5", *["1"] * 200_000])
    assert read(tmp_path, f"x\n{rows}\n")["x"].dtype == pl.Float64
    assert read(tmp_path, f"x\n{rows}\n\n")["x"].null_count() == 0


def test_parts_may_differ_in_column_order_and_in_number_type(tmp_path: Path) -> None:
    frame = read(tmp_path, "a,b\n1,x\n", "b,a\ny,2.5\n", "a,b\n3,7\n")
    assert frame["a"].to_list() == [1.0, 2.5, 3.0]
    assert frame["b"].to_list() == ["x", "y", "7"]


def test_a_label_is_the_same_in_every_part_whatever_stands_beside_it(tmp_path: Path) -> None:
    codes = ["1", "2", "1.5"], ["007", "7", ""], ["1", "2", "K"], ["", "", ""], ["true", "", "true"]
    frame = read(tmp_path, *("n,code\n" + "".join(f"1,{c}\n" for c in part) for part in codes))
    assert frame["code"].to_list() == [code or None for part in codes for code in part]
    assert frame["n"].dtype == pl.Int64


def test_a_label_that_one_part_stores_as_a_fraction_is_the_same_label(tmp_path: Path) -> None:
    files = (tmp_path / "0.parquet", tmp_path / "1.parquet")
    pl.DataFrame({"a": [1.0, 2.5, None, float("nan")]}).write_parquet(files[0])
    pl.DataFrame({"a": ["1", "K"]}).write_parquet(files[1])
    frame = reading.read(Source(files, "parquet"))
    assert frame["a"].to_list() == ["1", "2.5", None, None, "1", "K"]


def test_a_column_without_a_value_in_one_part_keeps_its_type(tmp_path: Path) -> None:
    frame = read(tmp_path, "a,d\n1,2024-01-02\n", "a,d\n,\n,\n")
    assert frame["a"].to_list() == [1, None, None]
    assert frame["d"].to_list() == [date(2024, 1, 2), None, None]


def test_a_column_of_two_kinds_is_told_with_its_files(tmp_path: Path) -> None:
    with pytest.raises(InputProblemError, match=r"'d' is of type Date in .*0\.csv and Int64 in"):
        read(tmp_path, "a,d\n1,2024-01-02\n", "a,d\n1,7\n")


def test_columns_without_a_name_get_one(tmp_path: Path) -> None:
    assert read(tmp_path, ",a,\n1,2,3\n").columns == ["column_1", "a", "column_3"]


def test_a_part_with_other_columns_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputProblemError, match=r"1\.csv.*lacks \['b'\].*adds \['c'\]"):
        read(tmp_path, "a,b\n1,2\n", "a,c\n1,2\n")


@pytest.mark.parametrize(
    ("content", "kind"),
    [("a,b\n", "file_empty"), ("a,b\n1,2\n3,4,5\n", "row_invalid")],
)
def test_a_damaged_file_is_one_readable_error(tmp_path: Path, content: str, kind: str) -> None:
    with pytest.raises(InputProblemError) as caught:
        read(tmp_path, content)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("a,b,c\n1,2,3\n4,5\n7,8,9\n", "row_invalid", "row 2: 2 fields, not 3: '4,5'"),
        ("a,b\n1,2\n3,4,5\n", "row_invalid", "row 2: 3 fields, not 2: '3,4,5'"),
        ('a,b\n"x\ny",2\n"z', "quote_open", "the quote at byte 12 is never closed"),
    ],
)
def test_a_row_with_more_or_fewer_fields_is_quoted(
    tmp_path: Path, content: str, kind: str, said: str
) -> None:
    with pytest.raises(InputProblemError) as raised:
        read(tmp_path, content)
    assert raised.value.kind == kind
    assert said in str(raised.value)


def test_a_row_longer_than_any_sane_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_ranges, "RECORD_LIMIT_BYTES", 1 << 20)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 18)
    with pytest.raises(InputProblemError, match="record at byte 8 is longer than 1 MiB"):
        read(tmp_path, "a,b\n1,2\n" + "x" * (3 << 20) + ",2\n")


def test_a_time_of_day_stays_one(tmp_path: Path) -> None:
    frame = read(tmp_path, "t,u\n10:30:00,10:30:00\n23:59:59.5,x\n,\n")
    assert frame["t"].to_list() == [time(10, 30), time(23, 59, 59, 500_000), None]
    assert frame["u"].to_list() == ["10:30:00", "x", None]


def test_quoted_newlines_blank_lines_and_an_order_mark_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes('\ufeffa,b\r\n"x\ny, ""z""",2\r\n\r\n3,4'.encode())
    frame = reading.read(Source((tmp_path / "a.csv",), "csv"))
    assert frame.rows() == [('x\ny, "z"', 2), ("3", 4)]


def test_parquet_that_is_none_is_one_readable_error(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(InputProblemError, match="cannot be read as Parquet"):
        reading.read(Source((tmp_path / "x.parquet",), "parquet"))


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    read(tmp_path, "a\n1\n")
    taken = reading.fingerprints(Source((tmp_path / "0.csv",), "csv"))
    (tmp_path / "0.csv").write_text("a\n1\n2\n")
    with pytest.raises(InputProblemError, match="written to while"):
        reading.require_unchanged(taken)


# -- target ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 10, "classification"),
        ([True, False] * 10, "classification"),
        ([0, 1] * 10, "classification"),
        ([1.0, 2.0, 3.0] * 10, "classification"),
        ([3, 4, 5, 6, 7, 8, 9] * 10, "classification"),
        ([0.5, 1.0] * 10, "regression"),
        (list(range(30)), "regression"),
        (list(range(10)) * 2, "regression"),
    ],
)
def test_classes_and_numbers_are_told_apart(values: list[object], task: str) -> None:
    assert target.encode(pl.Series("y", values), "auto").task == task


def test_numbers_with_a_word_for_missing_are_numbers() -> None:
    values = ["?", *(str(i * 1.5) for i in range(40))]
    goal = target.encode(pl.Series("y", values), "auto")
    assert (goal.task, int(goal.present.sum())) == ("regression", 40)


def test_labels_that_are_digits_are_classes() -> None:
    assert target.encode(pl.Series("y", ["1", "2", "x"] * 10), "auto").classes == ["1", "2", "x"]


def test_labels_that_are_dates_are_written_as_such() -> None:
    days = pl.Series("y", [date(2026, 1, 31), date(2026, 2, 1)] * 10)
    assert target.encode(days, "auto").classes == ["2026-01-31", "2026-02-01"]
    moments = days.cast(pl.Datetime("ns")).dt.offset_by("5h")
    labels = [f"{day} 05:00:00" for day in ("2026-01-31", "2026-02-01")]
    assert target.encode(moments, "classification").classes == labels


def test_categories_of_parquet_are_labels_and_features() -> None:
    column = pl.Series("y", ["a", "b"] * 10, dtype=pl.Categorical)
    assert target.encode(column, "auto").classes == ["a", "b"]
    assert features.learn(pl.DataFrame({"x": column})).columns[0].role == "category"


def test_the_caller_may_decide() -> None:
    column = pl.Series("y", [3, 4, 5] * 10)
    assert target.encode(column, "regression").task == "regression"
    assert target.encode(column, "classification").classes == [3, 4, 5]


def test_rows_without_a_target_are_left_out() -> None:
    goal = target.encode(pl.Series("y", ["a", None, "b"] * 10), "auto")
    assert goal.present.sum() == 20
    assert goal.values[:3].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("values", "task", "kind"),
    [
        ([None] * 20, "auto", "target_all_missing"),
        ([float("nan")] * 20, "auto", "target_all_missing"),
        (["a"] * 20, "auto", "target_one_class"),
        ([7] * 20, "regression", "target_one_class"),
        (["a", "b"] * 4, "auto", "too_few_rows"),
        ([f"id{i}" for i in range(1500)], "auto", "target_too_many_classes"),
        ([f"id{i}" for i in range(20)], "auto", "target_too_many_classes"),
        (["a", "b"] * 10, "regression", "target_not_numeric"),
    ],
)
def test_a_target_that_cannot_be_learnt_is_refused(
    values: list[object], task: target.Task, kind: str
) -> None:
    with pytest.raises(InputProblemError) as caught:
        target.encode(pl.Series("y", values, strict=False), task)
    assert caught.value.kind == kind


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_target_larger_than_the_model_can_hold_is_told_with_its_row(value: float) -> None:
    column = pl.Series("y", [1.5, None, 3e38, value, value, *range(10)], strict=False)
    with pytest.raises(InputProblemError, match=r"Target 'y' is -?1e\+3\d+ in row 4; .*\(2 values"):
        target.encode(column, "auto")


# -- hold-out -------------------------------------------------------------------------------


def test_the_hold_out_is_the_same_every_time_and_another_with_another_seed() -> None:
    first, again = split.holdout_mask(1000, 42, 0.2), split.holdout_mask(1000, 42, 0.2)
    assert (first == again).all()
    assert first.sum() == 200
    assert 20 < (first & split.holdout_mask(1000, 43, 0.2)).sum() < 70


def test_the_hold_out_of_this_seed_is_what_it_was_in_every_release() -> None:
    assert np.flatnonzero(split.holdout_mask(20, 42, 0.2)).tolist() == [9, 13, 15, 19]


def test_every_class_is_held_out_in_its_share() -> None:
    classes = np.array([0] * 900 + [1] * 90 + [2] * 3 + [3])
    mask = split.holdout_mask(len(classes), 1, 0.2, classes)
    assert [int(mask[classes == c].sum()) for c in range(4)] == [180, 18, 1, 0]


# -- features -------------------------------------------------------------------------------


def plan_of(**columns: Sequence[object]) -> tuple[features.Plan, pl.DataFrame]:
    frame = pl.DataFrame(columns, strict=False)
    return features.learn(frame), frame


def test_numbers_keep_their_value_and_missing_stays_missing() -> None:
    plan, frame = plan_of(a=[1.5, None, float("inf"), float("nan")])
    numbers = features.transform(frame, plan)[:, 0]
    assert numbers[0] == 1.5
    assert np.isnan(numbers[1:]).all()


def test_few_words_are_codes_and_unknown_ones_have_one_of_their_own() -> None:
    plan, _ = plan_of(color=["red", "white", None, "red"])
    assert plan.columns[0].role == "category"
    codes = features.transform(pl.DataFrame({"color": ["white", "green", None, "red"]}), plan)
    assert codes[[0, 1, 3], 0].tolist() == [2, 0, 1]
    assert np.isnan(codes[2, 0])


def test_many_words_are_counted_by_group_alike_in_every_process() -> None:
    texts = [f"wine number {i}" for i in range(100)]
    plan, frame = plan_of(note=texts)
    assert plan.columns[0].role == "text"
    numbers = features.transform(frame, plan)
    assert numbers.shape == (100, 1 + features.TEXT_BUCKETS)
    assert (numbers[:, 1:].sum(axis=1) == 3).all()
    assert numbers[0, 0] == len(texts[0])


def test_text_that_is_nearly_all_numbers_is_a_number() -> None:
    plan, frame = plan_of(a=[str(i) for i in range(99)] + ["?"])
    assert plan.columns[0].role == "number"
    assert np.isnan(features.transform(frame, plan)[99, 0])


def test_booleans_and_dates_become_numbers() -> None:
    plan, frame = plan_of(
        flag=[True, False],
        day=[date(2000, 1, 2), date(2001, 1, 1)],
        time=[datetime(2000, 1, 1, 12, tzinfo=UTC), datetime(2000, 1, 2, tzinfo=UTC)],
    )
    assert [c.role for c in plan.columns] == ["boolean", "date", "date"]
    assert features.transform(frame, plan).tolist() == [[1, 1, 0.5], [0, 366, 1]]


def test_useless_columns_are_left_out_and_named() -> None:
    plan, _ = plan_of(ok=[1, 2], empty=[None, None], same=[3, 3], word=["x", "x"], deep=[[1], [2]])
    assert [c.name for c in plan.columns] == ["ok"]
    assert set(plan.dropped) == {"empty", "same", "word", "deep"}


def test_no_useful_column_is_an_error() -> None:
    with pytest.raises(InputProblemError, match="No column is left"):
        plan_of(same=[3, 3])
    with pytest.raises(InputProblemError, match="No column is left"):
        features.learn(pl.DataFrame())


def test_a_stored_plan_gives_the_same_numbers() -> None:
    plan, frame = plan_of(a=[1, 2], b=["x", "y"], c=["2", "3"])
    stored = features.Plan.from_json(json.loads(json.dumps(plan.as_json())))
    assert stored == plan
    assert (features.transform(frame, stored) == features.transform(frame, plan)).all()


def test_a_missing_column_at_prediction_is_named() -> None:
    plan, frame = plan_of(a=[1, 2], b=["x", "y"])
    with pytest.raises(InputProblemError, match="needs column 'b'"):
        features.transform(frame.drop("b"), plan)


def test_feature_names_are_ones_that_xgboost_takes() -> None:
    plan, _ = plan_of(**{"a[1] <x": [1, 2], "a": [3, 4]})
    assert len(set(plan.feature_names)) == 2
    assert not set("[]<") & set("".join(plan.feature_names))


# -- metrics --------------------------------------------------------------------------------


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 4):
        truth = rng.integers(0, classes, 300).astype(float)
        raw = rng.random((300, classes)).round(1) + 0.05
        probabilities = raw / raw.sum(axis=1, keepdims=True)
        guess = probabilities.argmax(axis=1)
        ours = metrics.classification(truth, probabilities)
        assert ours["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))
        average = "binary" if classes == 2 else "macro"
        assert ours["f1"] == pytest.approx(sk.f1_score(truth, guess, average=average))
        assert ours["log_loss"] == pytest.approx(sk.log_loss(truth, probabilities))
        if classes == 2:
            expected = sk.roc_auc_score(truth, probabilities[:, 1])
            assert ours["roc_auc"] == pytest.approx(expected)
    truth, guess = rng.random(100), rng.random(100)
    ours = metrics.regression(truth, guess)
    assert ours["r2"] == pytest.approx(sk.r2_score(truth, guess))
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, guess))
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(truth, guess))


def test_metrics_by_hand() -> None:
    ours = metrics.classification(np.array([0.0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0, 1]]))
    assert metrics.rounded(ours) == {
        "accuracy": 0.666667,
        "f1": 0.666667,
        "log_loss": 0.340550,
        "roc_auc": 1.0,
    }
    assert metrics.regression(np.array([1.0, 1]), np.array([1.0, 2]))["r2"] is None
