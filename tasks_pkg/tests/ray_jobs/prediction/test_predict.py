"""Predictions with a model of ours: the right ones, in the rows' order, or one readable error."""

import json
import math
import pickle
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import run_here
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier

from tasks.contracts import InvalidArgumentsError
from tasks.orchestration import job_request
from tasks.preconditions import predictions
from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.ray_jobs.files import sha256
from tasks.ray_jobs.model import signature
from tasks.ray_jobs.model.predictor import Predictor
from tasks.ray_jobs.prediction.job import PIECE_ROWS
from tasks.ray_jobs.protocol import JobRequest, Progress
from tasks.ray_jobs.requests import PredictRequest
from tasks.settings import Settings
from tasks.submission.ray import RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

Request = Callable[[str], JobRequest]
RequestFor = Callable[..., Request]

COLUMNS = ("day", "kind", "red", "size")


def plain(entrypoint: str, request: Request, told: list[Progress] | None = None) -> dict[str, Any]:
    heard = told if told is not None else []
    return run_here(uuid.uuid4().hex, entrypoint, request, heard.append)


def to_predict(model: str, batches: Any, id_column: str | None = None) -> PredictRequest:  # noqa: ANN401
    return PredictRequest(
        model_path=model, data_batches=batches, id_column=id_column, csv=CsvOptions()
    )


@pytest.fixture
def request_to_predict(settings: Settings) -> RequestFor:
    def make(model_path: str, data_batches: object, id_column: str | None = None) -> Request:
        asked = to_predict(model_path, data_batches, id_column)
        return lambda name: job_request(name, asked, settings)

    return make


@pytest.fixture(scope="session")
def odd_model(folders: Path, request_for: RequestFor) -> str:
    """A model with a column of every type; the target follows from ``size`` alone."""
    rows = [
        f"2024-01-{i % 28 + 1:02},{'abc'[i % 3]},{'true' if i % 2 else 'false'},{i},"
        f"{'big' if i >= 100 else 'small'}"
        for i in range(200)
    ]
    file = folders / "datasets" / "odd.csv"
    file.write_text("day,kind,red,size,target\n" + "\n".join(rows) + "\n")
    result = plain("train", request_for("odd.csv", n_estimators=20))
    assert result["status"] == "success"
    return str(result["model_path"])


def row(**changes: object) -> dict[str, Any]:
    return {"day": "2024-01-05", "kind": "a", "red": True, "size": 7, **changes}


def test_rows_by_name_and_by_position_are_predicted_in_their_order(
    odd_model: str, request_to_predict: RequestFor, folders: Path
) -> None:
    told: list[Progress] = []
    batches = [
        [row(), row(size=150.0), row(size="180", kind="never seen", extra="ignored")],
        [["2024-01-05", "b", "false", 3], [None, "", None, 199]],
    ]
    result = plain("predict", request_to_predict(odd_model, batches), told)
    assert result["predictions"] == ["small", "big", "big", "small", "big"]
    assert (result["total_predictions"], result["ids"]) == (5, [0, 1, 2, 3, 4])
    assert {"reading", "predicting", "saving"} <= {progress["phase"] for progress in told}
    kept = pl.read_parquet(result["predictions_path"])
    assert kept.columns == ["id", "prediction", "probability"]
    assert kept["prediction"].to_list() == result["predictions"]
    manifest = json.loads(Path(result["manifest_path"]).read_text())
    assert set(manifest["files"]) == {"predictions.parquet"}

    relative = str(Path(odd_model).relative_to(folders / "models"))
    again = plain("predict", request_to_predict(relative, batches))
    assert again["reused"] is True
    assert again["predictions_path"] == result["predictions_path"]


def test_files_and_rows_go_together_under_the_callers_own_ids(
    odd_model: str, request_to_predict: RequestFor, datasets: Path
) -> None:
    (datasets / "more.csv").write_text(
        "size,red,note,kind,day,id\n1,false,x,a,2024-01-01,p\n190,true,,c,2024-02-01,q\n"
    )
    batches = ["more.csv", [row(id="r", size=130)]]
    result = plain("predict", request_to_predict(odd_model, batches, "id"))
    assert result["ids"] == ["p", "q", "r"]
    assert result["predictions"] == ["small", "big", "big"]


def test_a_file_is_read_as_the_models_own_dataset_was_unless_the_caller_says_otherwise(
    settings: Settings, datasets: Path, request_to_predict: RequestFor
) -> None:
    from tasks.schemas.models import model_config_from  # noqa: PLC0415

    rows = [f"{('NA', 'DE')[i % 2]};{i % 7};{('far', 'near')[i % 2]}" for i in range(100)]
    (datasets / "land.csv").write_text("land;n;target\n" + "\n".join(rows) + "\n")
    config = {"separator": ";", "missing": ["-"], "n_estimators": 10}
    parameters = model_config_from(config).training("land.csv").as_json()
    model = plain("train", lambda name: job_request(name, parameters, settings))["model_path"]

    (datasets / "lands.csv").write_text("land;n\nNA;1\nDE;2\n-;3\nFR;-\n")
    request = request_to_predict(model, "lands.csv")
    predictions.check(to_predict(model, "lands.csv"), settings)
    result = plain("predict", request)
    assert result["predictions"][:2] == ["far", "near"]
    said = "column 'land': 'FR' and the like (1 rows) did not occur in training"
    assert said in result["warnings"]
    manifest = json.loads(Path(result["manifest_path"]).read_text())
    assert manifest["read_as_in_training"]["missing"] == ["-"]
    assert "separator" not in manifest["read_as_in_training"]

    (datasets / "commas.csv").write_text("land,n\nNA,1\nDE,2\n")
    predictions.check(to_predict(model, "commas.csv"), settings)  # what its lines show
    said_otherwise = {"model_path": model, "data_batches": "commas.csv", "id_column": None}
    said_otherwise |= {"separator": ",", "missing": ["NA"]}
    other = plain("predict", lambda name: job_request(name, said_otherwise, settings))
    assert (other["total_predictions"], other["warnings"]) == (2, [])


def test_values_that_tell_the_model_nothing_are_named(
    odd_model: str, request_to_predict: RequestFor, datasets: Path
) -> None:
    (datasets / "codes.csv").write_text(
        "day,kind,red,size,more\n,a,true,007,+1\n,a,true,150,02\n,q,false,3,1\n"
    )
    result = plain("predict", request_to_predict(odd_model, "codes.csv"))
    assert result["predictions"] == ["small", "big", "small"]
    codes, day, kind = result["warnings"]
    assert codes.startswith("column 'size': '007' and the like (1 rows of ")
    assert day == "column 'day' has no value in any row"
    assert kind == "column 'kind': 'q' and the like (1 rows) did not occur in training"


def test_a_column_of_labels_that_look_like_numbers_stays_a_column_of_labels(
    settings: Settings, request_to_predict: RequestFor, datasets: Path
) -> None:
    from tasks.schemas.models import model_config_from  # noqa: PLC0415

    codes = ["01", "02", "x"]
    (datasets / "codes.csv").write_text(
        "code,target\n" + "".join(f"{codes[i % 3]},{'no' if i % 3 else 'yes'}\n" for i in range(90))
    )
    parameters = model_config_from({"n_estimators": 5}).training("codes.csv").as_json()
    model = plain("train", lambda name: job_request(name, parameters, settings))["model_path"]
    (datasets / "coded.csv").write_text("code\n01\n02\n01\n")
    result = plain("predict", request_to_predict(model, "coded.csv"))
    assert result["predictions"] == ["yes", "no", "yes"]


@pytest.fixture(scope="session")
def code_model(folders: Path, request_for: RequestFor) -> str:
    """A model of codes, most of which look like numbers; each has an answer of its own."""
    codes = ["1", "2", "3.0", "007", "K"]
    file = folders / "datasets" / "labels.csv"
    file.write_text(
        "code,target\n" + "".join(f"{codes[i % 5]},is {codes[i % 5]}\n" for i in range(200))
    )
    return str(plain("train", request_for("labels.csv", n_estimators=20))["model_path"])


@pytest.mark.parametrize(
    "others", [[], [2.5], [None], ["K"], [True], [2.5, None, "K", 10**30, math.nan]]
)
def test_a_label_is_read_alike_whatever_the_other_rows_hold(
    code_model: str, request_to_predict: RequestFor, others: list[Any]
) -> None:
    rows = [{"code": value} for value in [1, 2.0, "2", 3, " 007 ", *others]]
    result = plain("predict", request_to_predict(code_model, [rows]))
    assert result["predictions"][:5] == ["is 1", "is 2", "is 2", "is 3.0", "is 007"]


def test_whole_labels_that_were_stored_with_a_fraction_are_the_same_labels(
    code_model: str, request_to_predict: RequestFor, datasets: Path
) -> None:
    # As pandas stores whole numbers of which one is missing.
    codes = pl.DataFrame({"code": [1.0, 2.0, 3.0, None, math.nan]})
    codes.write_parquet(datasets / "floats.parquet")
    batches = ["floats.parquet", [{"code": None}]]
    result = plain("predict", request_to_predict(code_model, batches))
    assert result["predictions"][:3] == ["is 1", "is 2", "is 3.0"]
    assert len(set(result["predictions"][3:])) == 1


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([date(2026, 1, 31), date(2026, 2, 1)], ["2026-01-31", "2026-02-01"]),
        ([time(1), time(2)], ["01:00:00", "02:00:00"]),
        ([Decimal("1.10"), Decimal("2.00")], ["1.10", "2.00"]),
        ([b"ab", b"\xff"], ["ab", "\\xff"]),
        ([[1], [2]], ["[1]", "[2]"]),
    ],
)
def test_ids_of_any_type_are_kept_and_told(
    code_model: str,
    request_to_predict: RequestFor,
    datasets: Path,
    ids: list[Any],
    told: list[str],
) -> None:
    frame = pl.DataFrame({"id": ids, "code": ["1", "2"]})
    frame.write_parquet(datasets / "typed.parquet")
    result = plain("predict", request_to_predict(code_model, "typed.parquet", "id"))
    kept = pl.read_parquet(result["predictions_path"])
    assert kept["id"].to_list() == frame["id"].to_list()
    assert result["ids"] == told


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["007", "7"], ["007", "7"]),
        (["12345678901234567", "12345678901234568", "1.5"], None),
        (["12345678901234567890", "12345678901234567891"], None),
        (["2026-01-31", "2026-02-01"], None),
        (["1.50", "1.5"], None),
        (["-0", "0"], None),
        (["12", "-7", "0"], [12, -7, 0]),
        (["123456789012345678"], [123456789012345678]),
    ],
)
def test_ids_in_a_csv_file_are_kept_as_they_are_written(
    code_model: str,
    request_to_predict: RequestFor,
    datasets: Path,
    ids: list[str],
    kept: list[Any] | None,
) -> None:
    (datasets / "ids.csv").write_text("id,code\n" + "".join(f"{name},1\n" for name in ids))
    result = plain("predict", request_to_predict(code_model, "ids.csv", "id"))
    assert result["ids"] == (kept or ids)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (
            [9007199254740993, 1.5, 9007199254740992],
            ["9007199254740993", "1.5", "9007199254740992"],
        ),
        ([10**30, 10**30 + 1], [str(10**30), str(10**30 + 1)]),
        ([True, "a", 2.0], ["true", "a", "2"]),
        ([3, 4], [3, 4]),
        ([0.5, 2.0], [0.5, 2.0]),
    ],
)
def test_ids_in_rows_are_kept_as_they_were_sent(
    code_model: str, request_to_predict: RequestFor, ids: list[Any], kept: list[Any]
) -> None:
    rows = [{"id": value, "code": "1"} for value in ids]
    result = plain("predict", request_to_predict(code_model, [rows], "id"))
    assert result["ids"] == kept


@pytest.mark.parametrize("missing", [None, "", math.nan])
def test_an_id_that_is_missing_is_missing_beside_others_too(
    code_model: str, request_to_predict: RequestFor, missing: object
) -> None:
    rows = [{"id": value, "code": "1"} for value in (1, 1.5, missing)]
    with pytest.raises(InvalidArgumentsError, match="no value in 1 rows"):
        plain("predict", request_to_predict(code_model, [rows], "id"))


def test_a_date_is_read_alike_however_the_others_are_written(
    settings: Settings, request_to_predict: RequestFor, datasets: Path
) -> None:
    from tasks.schemas.models import model_config_from  # noqa: PLC0415

    day = datetime(2026, 1, 1, tzinfo=UTC)
    (datasets / "days.csv").write_text(
        "day,target\n"
        + "".join(f"{day + timedelta(i):%Y-%m-%dT%H:%M:%S},{i >= 60}\n" for i in range(120))
    )
    parameters = model_config_from({"n_estimators": 20}).training("days.csv").as_json()
    model = plain("train", lambda name: job_request(name, parameters, settings))["model_path"]
    # Day 60 is March 2.
    early = [
        "2026-02-20",
        "20260220",
        "2026-W08-5",
        "2026-02-20T10:00:00",
        "2026-02-20T10:00+02:00",
    ]
    late = ["2026-03-20", "20260320", "2026-W12-5", "2026-03-20T10:00:00", "2026-03-20T10:00+02:00"]
    texts = [text for pair in zip(early, late, strict=True) for text in pair]
    for given in (texts, texts[::-1]):
        (datasets / "written.csv").write_text("day\n" + "".join(f"{text}\n" for text in given))
        batches = ["written.csv", [{"day": text} for text in given]]
        result = plain("predict", request_to_predict(model, batches))
        assert result["predictions"] == [text in late for text in given] * 2


def test_iris_is_predicted_as_well_as_by_scikit_learn(
    settings: Settings, request_to_predict: RequestFor, datasets: Path
) -> None:
    from tasks.schemas.models import model_config_from  # noqa: PLC0415

    x, y = load_iris(return_X_y=True)
    frame = pl.DataFrame(x).with_columns(target=pl.Series(y), row=pl.int_range(150))
    frame.filter(pl.col("row") % 3 > 0).drop("row").write_csv(datasets / "iris.csv")
    tested = frame.filter(pl.col("row") % 3 == 0)
    tested.drop("target").write_parquet(datasets / "iris_new.parquet")
    config = model_config_from({"n_estimators": 40, "max_depth": 3, "test_fraction": 0.01})
    parameters = config.training("iris.csv").as_json()
    model = plain("train", lambda name: job_request(name, parameters, settings))["model_path"]
    result = plain("predict", request_to_predict(model, ["iris_new.parquet"], "row"))
    assert result["ids"] == tested["row"].to_list()
    score = (pl.Series(result["predictions"]) == tested["target"]).to_numpy().mean()
    train = frame["row"].to_numpy() % 3 > 0
    alone = HistGradientBoostingClassifier(max_iter=40, max_depth=3).fit(x[train], y[train])
    assert score == pytest.approx(alone.score(x[~train], y[~train]), abs=0.03)
    assert score > 0.9


def test_a_pool_of_ray_actors_gives_what_one_process_gives(
    odd_model: str,
    request_to_predict: RequestFor,
    jobs: RayJobs,
    datasets: Path,
    folders: Path,
) -> None:
    height = 2 * PIECE_ROWS + 7
    frame = pl.DataFrame({"size": pl.int_range(height, eager=True) % 200}).with_columns(
        day=pl.lit("2024-03-01"), kind=pl.lit("b"), red=pl.col("size") % 2 == 0
    )
    frame.write_parquet(datasets / "many.parquet")
    told: list[Progress] = []
    request = request_to_predict(odd_model, "many.parquet")
    task_id = uuid.uuid4().hex
    result = jobs.run(task_id, "predict", request, lambda _, p: told.append(p)).result
    assert result["num_actors"] == 2
    assert (result["total_predictions"], len(result["predictions"])) == (height, 100)
    kept = pl.read_parquet(result["predictions_path"])
    model = signature.find(odd_model, str(folders / "models"))
    alone = Predictor(model).predict(frame.head(200))
    assert kept["id"].to_list() == list(range(height))
    assert kept["prediction"].to_list() == (alone["prediction"].to_list() * 501)[:height]


@pytest.mark.parametrize(
    ("batches", "id_column", "words"),
    [
        ([], None, "holds no row"),
        ([[]], None, "holds no row"),
        ([5], None, r"data_batches\[0\]: 5 is no batch"),
        ([["x"]], None, r"data_batches\[0\]\[0\]: 'x' is not a row"),
        ([[["2024-01-01", "a"]]], None, "has 2 values.*takes 4.*day, kind, red, size"),
        ([[{"day": None, "kind": "a", "red": 1}]], None, "lacks column 'size'"),
        ([[row(), row(size="many")]], None, r"data_batches\[0\]\[1\]: 'many' is not a number"),
        ([[row(red="maybe")]], None, "'maybe' is not a boolean"),
        ([[row(day="yesterday")]], None, "'yesterday' is not a date"),
        ([[row(day="0001-01-01T00:00+02:00")]], None, "is not a date"),
        ([[row(size=[1])]], None, "is not a number"),
        (["no-such.csv"], None, "data_batches 'no-such.csv' does not exist"),
        (["/etc/passwd"], None, "outside"),
        (["../../secret.csv"], None, "outside"),
        (["lacking.csv"], None, "lacks column 'kind'"),
        (["odd.csv"], "key", "id_column: column 'key' is not in"),
        (["twice.csv"], None, "'day' occurs 2 times"),
    ],
)
def test_rows_that_do_not_fit_the_model_are_refused_before_ray_hears_of_them(  # noqa: PLR0913, PLR0917
    odd_model: str,
    settings: Settings,
    datasets: Path,
    batches: list[Any],
    id_column: str | None,
    words: str,
) -> None:
    (datasets / "lacking.csv").write_text("day,red,size\n2024-01-01,true,1\n")
    (datasets / "twice.csv").write_text("day,day\n1,2\n")
    with pytest.raises(InvalidArgumentsError, match=words) as caught:
        predictions.check(to_predict(odd_model, batches, id_column), settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no-such-model", "so no finished model"),
        ("/etc", "outside"),
        ("../datasets", "outside"),
        ("s3://bucket/model", "is a URL"),
        ("", "is not a path"),
        ("link", "outside"),
        ("pickled", "not the manifest of a model"),
        ("predicted", "is no model"),
    ],
)
def test_what_is_no_model_of_ours_is_not_loaded(
    odd_model: str, settings: Settings, folders: Path, path: str, words: str
) -> None:
    models = folders / "models"
    (models / "link").unlink(missing_ok=True)
    (models / "link").symlink_to("/etc")
    for name, manifest in (("pickled", "{}"), ("predicted", '{"task": "other"}')):
        (models / name).mkdir(exist_ok=True)
        (models / name / "manifest.json").write_text(manifest)
    with pytest.raises(InvalidArgumentsError, match=words):
        predictions.check(to_predict(path, [[row()]]), settings)
    misspelt = f"{odd_model}x"
    with pytest.raises(InvalidArgumentsError, match="Did you mean"):
        predictions.check(to_predict(misspelt, [[row()]]), settings)


@pytest.mark.parametrize(
    ("content", "id_column", "words"),
    [
        ("day,kind,red,size\n2024-01-01,a,true,many\n", None, "'many' is not a number"),
        ("day,kind,red,size\nsome day,a,true,1\n", None, "'some day' is not a date"),
        ("day,kind,red,size\n,a,true,1\n,a,true,1\n", "size", "'1' more than once"),
        ("day,kind,red,size,k\n,a,true,1,\n,a,true,1,x\n", "k", "no value in 1 rows"),
        ("day,kind,red,size\n", None, "has a header and no rows"),
        ("day,kind,red,size\n2024-01-01,a,true\n", None, "3 fields, not 4"),
    ],
)
def test_a_file_that_does_not_fit_is_one_error_and_leaves_nothing(  # noqa: PLR0913, PLR0917
    odd_model: str,
    request_to_predict: RequestFor,
    folders: Path,
    content: str,
    id_column: str | None,
    words: str,
) -> None:
    (folders / "datasets" / "unfit.csv").write_text(content)
    before = set((folders / "models").rglob("predictions.parquet"))
    with pytest.raises(InvalidArgumentsError, match=words) as caught:
        plain("predict", request_to_predict(odd_model, ["unfit.csv"], id_column))
    assert "\n" not in str(caught.value)
    assert set((folders / "models").rglob("predictions.parquet")) == before


def test_a_model_that_was_changed_is_not_loaded(
    odd_model: str, request_to_predict: RequestFor
) -> None:
    for name in ("model.ubj", "preprocessing.json"):
        file = Path(odd_model) / name
        whole = file.read_bytes()
        try:
            file.write_bytes(whole + b" ")
            with pytest.raises(InvalidArgumentsError, match="not the file that the manifest"):
                plain("predict", request_to_predict(odd_model, [[row(size=1)]]))
        finally:
            file.write_bytes(whole)


def test_infinity_counts_as_missing(odd_model: str, request_to_predict: RequestFor) -> None:
    rows = [row(size=None), row(size="inf"), row(size=math.inf), row(size=True), row(size=1)]
    found = plain("predict", request_to_predict(odd_model, [rows]))
    table = pl.read_parquet(found["predictions_path"]).drop("id").rows()
    assert table[0] == table[1] == table[2]
    assert table[3] == table[4]


def test_a_pickle_is_no_model_whatever_its_manifest_says(
    odd_model: str, request_to_predict: RequestFor
) -> None:
    folder = Path(odd_model)
    whole, kept = (folder / "model.ubj").read_bytes(), (folder / "manifest.json").read_text()
    manifest = json.loads(kept)
    try:
        (folder / "model.ubj").write_bytes(pickle.dumps({"not": "a model"}))
        manifest["files"]["model.ubj"]["sha256"] = sha256(folder / "model.ubj")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(
            InvalidArgumentsError, match=r"no model of ours.*pickles, are not loaded"
        ):
            plain("predict", request_to_predict(odd_model, [[row(size=1)]]))
    finally:
        (folder / "model.ubj").write_bytes(whole)
        (folder / "manifest.json").write_text(kept)


def test_more_rows_than_a_request_takes_are_refused_with_the_way_out(
    odd_model: str, request_to_predict: RequestFor
) -> None:
    with pytest.raises(InvalidArgumentsError, match=r"bytes long.*into a file.*pass its path"):
        plain("predict", request_to_predict(odd_model, [[row()] * 1000]))
