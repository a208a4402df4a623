"""uv gets what pip's own settings say (.ci/pip-settings)."""

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / ".ci" / "pip-settings"


@pytest.fixture(scope="module")
def program() -> Any:
    loader = importlib.machinery.SourceFileLoader("pip_settings", str(PROGRAM))
    spec = importlib.util.spec_from_loader("pip_settings", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        (
            "global.index-url='https://mirror.example/simple'",
            {"UV_DEFAULT_INDEX": "https://mirror.example/simple"},
        ),
        (
            "global.extra-index-url='https://a.example https://b.example\\n https://c.example'",
            {"UV_INDEX": "https://a.example https://b.example https://c.example"},
        ),
        ("install.find-links='/a /b'", {"UV_FIND_LINKS": "/a,/b"}),
        ("global.cert='/old.crt'\n:env:.cert='/new.crt'", {"SSL_CERT_FILE": "/new.crt"}),
        ("global.trusted-host='mirror.example'", {"UV_INSECURE_HOST": "mirror.example"}),
        ("global.constraint='/x'\nglobal.disable-pip-version-check='1'", {}),
        ("", {}),
    ],
)
def test_uv_gets_what_pip_is_set_to(program: Any, listed: str, wanted: dict[str, str]) -> None:
    assert program.settings(listed) == wanted


def test_one_lock_pins_uv() -> None:
    lock = (PROGRAM.parents[1] / "requirements-dev.txt").read_text()
    assert len([line for line in lock.splitlines() if line.startswith("uv==")]) == 1
