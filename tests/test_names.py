"""Every name in a comment or a document exists.

The kind of fault: `celray_host_workers` stood in a comment, and the variable has another name. A
name of ours (a variable, a module, a setting, a file, a make target) that prose mentions has to
occur in code as well: outside comments, docstrings and documents.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from functools import cache
from pathlib import Path

import pytest
from parts import REPO, ROLES

#: What carries one of our prefixes is ours; "tasks" and "tests" are folders, not prefixes.
PREFIXES = ("celray", "celery", *(role.name for role in ROLES))
WORD = re.compile(rf"\b(?:{'|'.join(PREFIXES)})_[a-z0-9_]*[a-z0-9]\b(?!\*)")
ENVIRONMENT = re.compile(r"\bCELRAY_[A-Z0-9_]*[A-Z0-9]\b(?![*…])")
SUFFIXES = "py|yml|j2|md|lock|in|toml|cfg|sh|json|Dockerfile"
PLACES = r"roles|playbooks|compose|inventory|molecule|tests|docs|tasks_pkg|\.ci"
FILE = re.compile(rf"(?<![\w/.~<-])(?:(?:{PLACES})/)?[\w.-]*\w\.(?:{SUFFIXES})\b(?![\w(/])")
PATH = re.compile(rf"(?<![\w/.~<-])(?:{PLACES})/[\w./-]*\w")
TARGET = re.compile(r"`make ([a-z][a-z-]*)")
#: Names of others, and what only looks like a file.
OTHER_FILES = {"thrift-compact-protocol.md": "Thrift's", "Session.json": "an attribute"}
#: What an operator makes, in the documents' examples.
EXAMPLES = ("inventory/lab",)
PROSE_ONLY = (".md",)
COMMENTED = (".yml", ".j2", ".toml", ".cfg", ".in", ".Dockerfile", "")


@cache
def tracked() -> list[Path]:
    """Files of the repository that are text, new ones included."""
    command = ["git", "-C", str(REPO), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [REPO / name for name in listed if not name.endswith((".lock", ".csv", ".parquet"))]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:1000]]


def python_parts(text: str) -> tuple[str, str]:
    """Comments and docstrings of a Python file, and the rest."""
    prose: list[str] = []
    code: list[str] = []
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(first.lineno)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        told = token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and token.start[0] in docstrings
        )
        (prose if told else code).append(token.string)
    return "\n".join(prose), "\n".join(code)


def parts(path: Path) -> tuple[str, str]:
    """What a file says to people, and what it does."""
    text = path.read_text()
    if path.suffix in PROSE_ONLY:
        return text, ""
    if path.suffix == ".py":
        return python_parts(text)
    comments = [
        *re.findall(r"(?:^|\s)#+ .*", text),
        *re.findall(r"\{#.*?#\}", text, flags=re.DOTALL),
    ]
    code = re.sub(r"\{#.*?#\}", "", re.sub(r"(^|\s)#+ .*", "", text), flags=re.DOTALL)
    return "\n".join(comments), code


@cache
def code_words() -> set[str]:
    """Every identifier, and every word with a suffix, that code holds."""
    words: set[str] = set()
    for path in tracked():
        if path.name == Path(__file__).name:
            continue  # names that are not there, to be found
        code = parts(path)[1]
        words.update(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", code))
        words.update(FILE.findall(code))
        words.update(Path(found).name for found in FILE.findall(code))
        words.update(re.findall(r"[\w.-]+", path.stem))
    return words


@cache
def file_names() -> set[str]:
    return {path.name for path in tracked()} | {
        path.name.removesuffix(".j2").removesuffix(".jinja") for path in tracked()
    }


def mentions() -> list[tuple[Path, str]]:
    """Files that say something."""
    found = ((path, parts(path)[0]) for path in tracked() if path.name != Path(__file__).name)
    return [(path, prose) for path, prose in found if prose]


@pytest.fixture(scope="module")
def told() -> list[tuple[Path, str]]:
    return mentions()


def test_every_name_that_prose_mentions_is_a_name_in_code(told: list[tuple[Path, str]]) -> None:
    missing = sorted(
        f"{path.relative_to(REPO)}: {name}"
        for path, prose in told
        for name in set(WORD.findall(prose))
        if name not in code_words()
    )
    assert missing == []


def test_every_variable_of_the_environment_is_read_somewhere(told: list[tuple[Path, str]]) -> None:
    words = code_words()
    missing = sorted(
        f"{path.relative_to(REPO)}: {name}"
        for path, prose in told
        for name in set(ENVIRONMENT.findall(prose))
        # settings.py derives a variable's name from its field's.
        if name not in words and name.removeprefix("CELRAY_").lower() not in words
    )
    assert missing == []


def test_every_file_that_prose_mentions_exists_or_is_made_by_code(
    told: list[tuple[Path, str]],
) -> None:
    words = code_words()
    missing = sorted(
        f"{path.relative_to(REPO)}: {name}"
        for path, prose in told
        for name in set(FILE.findall(prose))
        if Path(name).name not in {*file_names(), *words, *OTHER_FILES}
    )
    assert missing == []


def test_every_path_that_prose_mentions_exists(told: list[tuple[Path, str]]) -> None:
    missing = sorted(
        f"{path.relative_to(REPO)}: {name}"
        for path, prose in told
        for name in set(PATH.findall(prose))
        if not name.startswith(EXAMPLES)
        and not any((base / name).exists() for base in (REPO, REPO / "tasks_pkg", path.parent))
        and not list(REPO.glob(f"{name}*"))
    )
    assert missing == []


def test_every_make_target_that_prose_mentions_exists(told: list[tuple[Path, str]]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), flags=re.MULTILINE))
    missing = sorted(
        f"{path.relative_to(REPO)}: {name}"
        for path, prose in told
        for name in set(TARGET.findall(prose))
        if name not in targets
    )
    assert missing == []


def test_a_name_that_is_nowhere_is_missed() -> None:
    assert "celray_host_workers" not in code_words()
    assert {"celray_worker_names", "celray_compose", "settings.py"} <= code_words() | file_names()


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (WORD, "which host: celray_host_workers in its inventory", ["celray_host_workers"]),
        (WORD, "`celray_port_*` and celery", []),
        (FILE, "see settings.py, `a/b`, ~/x.yml and <name>.py", ["settings.py"]),
        (
            PATH,
            "in roles/celray/defaults/main/places.yml.",
            ["roles/celray/defaults/main/places.yml"],
        ),
        (TARGET, "`make deploy HOST=x` makes room; make sure", ["deploy"]),
    ],
)
def test_names_are_found_where_they_stand(
    pattern: re.Pattern[str], text: str, found: list[str]
) -> None:
    """These would pass for ever if they found nothing."""
    assert pattern.findall(text) == found
