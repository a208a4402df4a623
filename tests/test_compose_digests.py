"""A service's digest changes when something of that service changes, and never otherwise."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from generations import ENVIRONMENT, GENERATIONS
from hypothesis import given
from hypothesis import strategies as st
from parts import load

ACTION = "roles/compose_project/action_plugins/celray_compose.py"
FOLDER = "/home/somebody/celray/projects/example"
KEY = "not-guessable"

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
names = st.from_regex(r"[a-z][a-z0-9]{0,6}", fullmatch=True)
values = st.one_of(words, st.integers(), st.booleans(), st.lists(words, max_size=3))


@st.composite
def projects(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """A definition of two or three services, each with settings and a file of its own."""
    services: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name in draw(st.lists(names, min_size=2, max_size=3, unique=True)):
        files[f"files/{name}"] = draw(words)
        services[name] = {
            "container_name": f"example-{name}",
            "image": "celray/example:1",
            "environment": draw(st.dictionaries(names, values, max_size=3)),
            "volumes": [f"{FOLDER}/files/{name}:/etc/{name}:ro", "/srv/data:/data"],
        }
    return {"services": services}, files


def digests(definition: dict[str, Any], files: dict[str, str], key: str = KEY) -> dict[str, str]:
    text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
    _, services, _ = load(ACTION).prepare(text, FOLDER, files, key)
    return {name: service["digest"] for name, service in services.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


@given(project=projects(), data=st.data(), value=values)
def test_a_changed_setting_changes_that_service_and_no_other(
    project: tuple[dict[str, Any], dict[str, str]], data: st.DataObject, value: Any
) -> None:
    definition, files = project
    name = data.draw(st.sampled_from(sorted(definition["services"])))
    other = copy.deepcopy(definition)
    other["services"][name]["environment"]["NEW"] = value
    assert changed(digests(definition, files), digests(other, files)) == {name}


@given(project=projects(), data=st.data(), suffix=st.text("ab\n", min_size=1, max_size=3))
def test_a_changed_file_changes_what_mounts_it_and_nothing_else(
    project: tuple[dict[str, Any], dict[str, str]], data: st.DataObject, suffix: str
) -> None:
    definition, files = project
    name = data.draw(st.sampled_from(sorted(definition["services"])))
    other = {**files, f"files/{name}": files[f"files/{name}"] + suffix}
    assert changed(digests(definition, files), digests(definition, other)) == {name}


@given(project=projects(), seed=st.randoms())
def test_the_order_of_keys_means_nothing(
    project: tuple[dict[str, Any], dict[str, str]], seed: Any
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            seed.shuffle(items)
            return dict(items)
        return value

    definition, files = project
    assert digests(definition, files) == digests(shuffled(definition), files)


@given(project=projects())
def test_a_digest_cannot_be_tried_without_the_key(
    project: tuple[dict[str, Any], dict[str, str]],
) -> None:
    definition, files = project
    mine, other = digests(definition, files), digests(definition, files, "another-key")
    assert changed(mine, other) == set(mine)


@given(project=projects())
def test_compose_reads_back_what_the_template_meant(
    project: tuple[dict[str, Any], dict[str, str]],
) -> None:
    definition, files = project
    text = yaml.safe_dump(definition, allow_unicode=True)
    written, services, _ = load(ACTION).prepare(text, FOLDER, files, KEY)

    def unescaped(value: Any) -> Any:
        if isinstance(value, str):
            assert "$" not in value.replace("$$", ""), "compose would interpolate this"
            return value.replace("$$", "$")
        if isinstance(value, dict):
            return {key: unescaped(item) for key, item in value.items()}
        return [unescaped(item) for item in value] if isinstance(value, list) else value

    for name, service in unescaped(yaml.safe_load(written))["services"].items():
        assert service.pop("labels") == {"celray.digest": services[name]["digest"]}
        assert service == definition["services"][name]


def test_directories_to_make_are_the_mounts_that_are_no_files_of_ours() -> None:
    volumes = [f"{FOLDER}/files/a:/a:ro", "/srv/data:/data", "named:/x"]
    service = {"container_name": "c", "image": "i:1", "volumes": volumes}
    text = yaml.safe_dump({"services": {"s": service}})
    _, _, folders = load(ACTION).prepare(text, FOLDER, {"files/a": ""}, KEY)
    assert folders == ["/srv/data"]


MISTAKES = {
    "no YAML": ("services: [", "no YAML"),
    "no services": ("services:", "no services"),
    "an image without a tag": (
        "services: {a: {container_name: a, image: redis}}",
        "image redis is not pinned",
    ),
    "an image that moves": (
        "services: {a: {container_name: a, image: 'redis:latest'}}",
        "image redis:latest is not pinned",
    ),
    "no name": ("services: {a: {image: 'redis:7'}}", "service a lacks container_name"),
    "a file that nobody writes": (
        f"services: {{a: {{container_name: a, image: 'r:1', volumes: ['{FOLDER}/files/x:/x']}}}}",
        "not among the project's files",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_definition_that_cannot_work_is_refused_by_name(mistake: str) -> None:
    text, words = MISTAKES[mistake]
    action = load(ACTION)
    with pytest.raises(action.DefinitionError, match=words):
        action.prepare(text, FOLDER, {}, KEY)


#: Texts that YAML 1.1, YAML 1.2 or both would read as numbers.
LIKE_NUMBERS = ("4571474392e1", "1e5", "-1e3", "+7", "0o17", "0x1F", "12", "1_0", ".5", "1:20")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_text_that_looks_like_a_number_stays_a_text(generation: str, tmp_path: Path) -> None:
    service = {
        "image": "i:1",
        "container_name": "c",
        "environment": {f"V{number}": text for number, text in enumerate(LIKE_NUMBERS)},
        "labels": {f"v{number}": text for number, text in enumerate(LIKE_NUMBERS)},
    }
    text = yaml.safe_dump({"version": "2.4", "services": {"one": service}})
    written, _, _ = load(ACTION).prepare(text, FOLDER, {}, KEY)
    (tmp_path / "compose.yml").write_text(written)
    command = [GENERATIONS[generation](), "-f", str(tmp_path / "compose.yml"), "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    read = yaml.safe_load(done.stdout)["services"]["one"]
    for kind in ("environment", "labels"):
        values = {key.lower(): str(value) for key, value in read[kind].items()}
        assert [values[f"v{number}"] for number in range(len(LIKE_NUMBERS))] == [*LIKE_NUMBERS]


@given(project=projects(), data=st.data())
def test_what_is_stored_for_a_rollback_gives_the_same_digests_and_holds_no_secret(
    project: tuple[dict[str, Any], dict[str, str]], data: st.DataObject
) -> None:
    """Any split of the files into plain and secret ones, and files that came later."""
    definition, files = project
    secret = {n: data.draw(st.booleans()) for n in files}
    files = {n: f"canary-{n}-{text}" if secret[n] else text for n, text in files.items()}
    action = load(ACTION)
    kinds = {kind: {n: files[n] for n in files if secret[n] is kind} for kind in (True, False)}
    text = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
    _, services, _ = action.prepare(text, FOLDER, files, KEY)
    stored = json.loads(json.dumps(action.to_store(text, "", kinds, services)))
    assert "canary-" not in json.dumps(stored)
    assert stored["images"] == ["celray/example:1"]

    now = {True: {**kinds[True], "files/came-later": "x"}, False: {"files/plain": "y"}}
    again = action.as_stored(stored, now)
    _, back, _ = action.prepare(stored["definition"], FOLDER, again[True] | again[False], KEY)
    assert {n: one["digest"] for n, one in back.items()} == digests(definition, files)


def test_a_rotated_secret_stays_rotated_and_one_that_is_gone_stops_the_rollback() -> None:
    action = load(ACTION)
    stored = {"files": {}, "secret_files": ["files/password"]}
    assert action.as_stored(stored, {True: {"files/password": "new"}, False: {}}) == {
        True: {"files/password": "new"},
        False: {},
    }
    with pytest.raises(action.DefinitionError, match="files/password, which this checkout"):
        action.as_stored(stored, {True: {"files/token": "x"}, False: {}})
