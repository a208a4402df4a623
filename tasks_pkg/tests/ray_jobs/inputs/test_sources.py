import os
from pathlib import Path

import pytest

from tasks.ray_jobs.csv.files import columns_of
from tasks.ray_jobs.inputs.sources import require_column, resolve
from tasks.ray_jobs.protocol import InputProblemError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    (folder / "a.csv").write_text("x,target\n1,2\n")
    (tmp_path / "secret.csv").write_text("x\n1\n")
    return folder


def refused(path: str, root: Path, kind: str) -> str:
    with pytest.raises(InputProblemError) as caught:
        resolve(path, [str(root)])
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_relative_path_is_taken_under_the_datasets_folder(root: Path) -> None:
    assert resolve("a.csv", [str(root)]).files == (root / "a.csv",)


@pytest.mark.parametrize("path", ["../secret.csv", "/etc/passwd", "x/../../secret.csv"])
def test_a_path_cannot_lead_out_of_the_roots(root: Path, path: str) -> None:
    assert "outside" in refused(path, root, "path_outside_roots")


def test_a_link_cannot_lead_out_of_the_roots(root: Path, tmp_path: Path) -> None:
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    refused("link.csv", root, "path_outside_roots")
    (root / "folder").symlink_to(tmp_path)
    refused("folder/secret.csv", root, "path_outside_roots")
    (root / "parts_part_0.csv").symlink_to(tmp_path / "secret.csv")
    refused("parts", root, "path_outside_roots")


def test_roots_may_be_links_themselves(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert len(resolve("a.csv", [str(tmp_path / "alias")]).files) == 1


def test_parts_count_in_the_order_of_their_numbers(root: Path) -> None:
    for i in range(12):
        (root / f"p_part_{i}.csv").write_text("x\n1\n")
    files = resolve("p", [str(root)]).files
    assert [f.name for f in files] == [f"p_part_{i}.csv" for i in range(12)]


def test_a_missing_part_is_named(root: Path) -> None:
    for i in (0, 1, 3):
        (root / f"p_part_{i}.csv").write_text("x\n1\n")
    assert "p_part_2 is missing" in refused("p", root, "dataset_part_missing")


def test_a_folder_gives_its_files_in_natural_order(root: Path) -> None:
    folder = root / "many"
    folder.mkdir()
    for name in ("b10.csv", "b9.csv", "_SUCCESS", ".hidden.csv", "notes.txt"):
        (folder / name).write_text("x\n1\n")
    assert [f.name for f in resolve("many", [str(root)]).files] == ["b9.csv", "b10.csv"]


def test_a_misspelt_file_gets_the_nearest_name(root: Path) -> None:
    (root / "winequality.csv").write_text("x\n1\n")
    assert "'winequality.csv'" in refused("winequalty.csv", root, "dataset_missing")


@pytest.mark.parametrize("path", ["", " ", "a\0b", "s3://bucket/a.csv", "\ud800.csv", "x" * 5000])
def test_what_is_no_path_is_refused(root: Path, path: str) -> None:
    refused(path, root, "path_invalid")


def test_an_unfit_file_is_refused(root: Path) -> None:
    (root / "a.xlsx").write_text("x")
    refused("a.xlsx", root, "dataset_format")
    (root / "empty.csv").touch()
    refused("empty.csv", root, "dataset_empty")
    os.mkfifo(root / "pipe.csv")
    refused("pipe.csv", root, "path_invalid")
    (root / "junk.parquet").write_text("PAR1 and no more")
    refused("junk.parquet", root, "dataset_damaged")
    (root / "bare").mkdir()
    refused("bare", root, "dataset_empty")
    (root / "mixed").mkdir()
    (root / "mixed" / "a.csv").write_text("x\n1\n")
    (root / "mixed" / "b.parquet").write_bytes(b"PAR1PAR1")
    refused("mixed", root, "dataset_mixed")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\n", "file_empty"),
        (b"a,a\n1,2\n", "columns_repeated"),
        (b"a,*\n1,2\n", "column_name_pattern"),
        (b"a,^b.*$\n1,2\n", "column_name_pattern"),
        (b"a,\xff\xfe,b\n1,2,3\n", "file_encoding"),
        (b"a,b\n1,\0\n", "file_damaged"),
    ],
)
def test_a_damaged_header_is_refused(root: Path, content: bytes, kind: str) -> None:
    (root / "bad.csv").write_bytes(content)
    with pytest.raises(InputProblemError) as caught:
        columns_of(root / "bad.csv")
    assert caught.value.kind == kind


def test_a_byte_order_mark_is_no_part_of_the_first_name(root: Path) -> None:
    (root / "bom.csv").write_bytes(b'\xef\xbb\xbfa,"b,c"\n1,2\n')
    assert columns_of(root / "bom.csv") == ["a", "b,c"]


def test_a_name_that_only_looks_like_a_pattern_is_a_name(root: Path) -> None:
    (root / "near.csv").write_text("a*,**,^b,c$,$^\n1,2,3,4,5\n")
    assert columns_of(root / "near.csv") == ["a*", "**", "^b", "c$", "$^"]


def test_a_missing_column_lists_those_that_exist() -> None:
    with pytest.raises(InputProblemError, match=r"'qualty' is not in f\.csv.*'quality'.*alcohol"):
        require_column("qualty", ["alcohol", "quality"], "model_config.target", "f.csv")
