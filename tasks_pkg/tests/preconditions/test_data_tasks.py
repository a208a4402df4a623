"""What is refused before a Ray job is started."""

import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts import InvalidArgumentsError
from tasks.preconditions import datasets
from tasks.ray_jobs.csv.dialect import CsvOptions, Written
from tasks.ray_jobs.requests import AggregateRequest
from tasks.schemas.data import transformations_from
from tasks.settings import Settings, get_settings

Configure = Callable[..., Settings]


@pytest.fixture
def check(configure: Configure, tmp_path: Path) -> Callable[..., None]:
    for name in ("datasets", "models"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "datasets" / "in.csv").write_text("a,b\n1,2\n")
    settings = configure(
        datasets_dir=str(tmp_path / "datasets"), models_dir=str(tmp_path / "models")
    )

    def run(file: str = "in.csv", output: str = "out.parquet", **given: Any) -> None:  # noqa: ANN401
        request = transformations_from(given).request(file, output)
        datasets.check_csv(request, settings)

    return run


def refused(check: Callable[..., None], **given: Any) -> str:  # noqa: ANN401
    with pytest.raises(InvalidArgumentsError) as caught:
        check(**given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_request_passes(check: Callable[..., None]) -> None:
    check(filter={"a": 1}, new_columns={"c": "a * b", "d": "c + 1"}, columns=["d"])


@pytest.mark.parametrize("path", ["../secret.csv", "/etc/passwd", "x/../../secret.csv", "link.csv"])
def test_no_path_leads_out_of_the_roots(
    check: Callable[..., None], tmp_path: Path, path: str
) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (tmp_path / "datasets" / "link.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "datasets" / "out").symlink_to(tmp_path)
    assert "outside" in refused(check, file=path)
    assert "outside" in refused(check, output=path)
    assert "outside" in refused(check, output="out/result.csv")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"file": "inn.csv"}, "Did you mean 'in.csv'?"),
        ({"file": ""}, "is not a path"),
        ({"file": "a\0b"}, "is not a path"),
        ({"file": "s3://bucket/in.csv"}, "is a URL"),
        ({"file": "in.xlsx"}, "does not exist"),
        ({"output": "out.xlsx"}, "ends neither in .csv nor in .parquet"),
        ({"output": "in.csv"}, "is the input file itself"),
        ({"filter": {"z": 1}}, "transformations.filter.z: \"col('z') > 1\", character 1"),
        ({"filter": "a >"}, "character 4: a value, a column"),
        ({"new_columns": {"c": "open('/etc/passwd')"}}, "no function 'open'"),
        ({"new_columns": {"c": "d + 1", "d": "a"}}, "no column 'd'"),
        ({"schema": {"z": "text"}}, "transformations.schema: column 'z' is not in"),
        ({"columns": ["z"]}, "transformations.columns: column 'z' is not in"),
        ({"columns": ["a", "a"]}, "'a' is named 2 times"),
        ({"new_columns": {"c\0d": "a"}}, "a name has no NUL byte in it"),
        ({"new_columns": {"^c.*$": "a"}}, "'^c.*$' is no name: not '*', and not from '^' to '$'"),
        ({"output": "x" * 300 + ".csv"}, "a name of 304 bytes in it; a name has at most 255"),
        ({"output": "x" * 200 + ".csv"}, "204 bytes long; the name of an output has at most 180"),
    ],
)
def test_what_cannot_be_done_is_refused(
    check: Callable[..., None], given: dict[str, Any], words: str
) -> None:
    assert words in refused(check, **given)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"a,b\n", "has a header and no rows"),
        (b"a,a\n1,2\n", "column 'a' occurs 2 times"),
        (b"a,\xff\n1,2\n", "is not UTF-8"),
        (b"a,\0\n1,2\n", "NUL byte"),
        (b"x" * (2 << 20), "no line end in its first 1 MiB"),
    ],
)
def test_a_bad_start_of_a_file_is_seen_here(
    check: Callable[..., None], tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "datasets" / "bad.csv").write_bytes(content)
    assert words in refused(check, file="bad.csv")
    (tmp_path / "datasets" / "bad.csv.gz").write_bytes(gzip.compress(content))
    if content:
        assert words in refused(check, file="bad.csv.gz")
    (tmp_path / "datasets" / "fake.csv.gz").write_bytes(b"no archive")
    assert "cannot be decompressed" in refused(check, file="fake.csv.gz")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"data_sources": ["../x.csv"]}, "outside"),
        ({"data_sources": ["in.cvs"]}, "Did you mean 'in.csv'?"),
        ({"group_by": ["z"]}, "group_by: column 'z' is not in"),
        ({"aggregations": {"z": ["sum"]}}, "aggregations: column 'z' is not in"),
        ({"output_path": "in.csv"}, "is the input file itself"),
        ({"output_path": "out"}, "ends neither in .csv nor in .parquet"),
    ],
)
def test_aggregates_that_cannot_be_are_refused(
    check: Callable[..., None], given: dict[str, Any], words: str
) -> None:
    check()
    request = AggregateRequest(
        data_sources=["in.csv"],
        output_path="out.csv",
        group_by=[],
        aggregations=None,
        overwrite=False,
        csv=CsvOptions(written=Written(separator=",")),
    )
    with pytest.raises(InvalidArgumentsError, match=re.escape(words)):
        datasets.check_sources(replace(request, **given), get_settings())
