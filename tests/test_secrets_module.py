"""Secrets are made once, never change by themselves, and are never told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from parts import play, run_module

MODULE = "roles/secrets/library/celray_secrets.py"
WANTED = {"redis_password": 32, "ray_auth_token": 64}
CANARY = "canary-from-the-vault"


def keep(path: Path, *, check: bool = False, **overrides: Any) -> dict[str, Any]:
    args = {"path": str(path), "wanted": WANTED, "overrides": overrides}
    return run_module(MODULE, args, check=check)


def told(result: dict[str, Any]) -> str:
    """What an operator gets to see of a failure: the rest is under the task's no_log."""
    assert result["failed"]
    return str(result["msg"])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "secrets/secrets.json"


def test_missing_secrets_are_generated_alphanumeric_and_as_long_as_wanted(store: Path) -> None:
    result = keep(store)
    assert result["changed"]
    assert result["made"] == sorted(WANTED)
    for name, length in WANTED.items():
        assert len(result["secret"][name]) == length
        assert result["secret"][name].isalnum()
    assert result["secret"]["redis_password"] != result["secret"]["ray_auth_token"][:32]


def test_a_second_deploy_and_a_second_operator_get_the_same(store: Path) -> None:
    first = keep(store)
    second = keep(store)
    assert second["changed"] is False
    assert second["made"] == []
    assert second["secret"] == first["secret"]


def test_an_override_wins_and_stays_when_it_is_no_longer_given(store: Path) -> None:
    first = keep(store)["secret"]
    second = keep(store, redis_password=CANARY)
    assert second["changed"]
    assert second["secret"] == {**first, "redis_password": CANARY}
    assert keep(store, redis_password=CANARY)["changed"] is False
    assert keep(store)["secret"]["redis_password"] == CANARY


def test_channels_stay_where_an_operator_gives_none_and_go_where_he_says_so(store: Path) -> None:
    def channels(given: Any) -> dict[str, Any]:
        args = {"path": str(store), "wanted": WANTED, "channels": given}
        return run_module(MODULE, args)

    assert "notify_channels" not in channels(None)["secret"]
    given = {"ops": f"json://127.0.0.1/{CANARY}"}
    assert channels(given)["changed"]
    assert channels(given)["changed"] is False
    kept = channels(None)
    assert kept["changed"] is False
    assert json.loads(kept["secret"]["notify_channels"]) == given
    assert channels({})["secret"]["notify_channels"] == "{}"


@pytest.mark.parametrize("wrong", [CANARY, [CANARY], {"ops": [CANARY]}])
def test_channels_that_are_no_mapping_are_named_and_not_told(store: Path, wrong: Any) -> None:
    args = {"path": str(store), "wanted": WANTED, "channels": wrong}
    said = told(run_module(MODULE, args))
    assert "celray_notify_channels" in said
    assert CANARY not in said


def test_a_secret_that_is_no_longer_wanted_is_kept(store: Path) -> None:
    store.parent.mkdir()
    store.write_text(json.dumps({"retired": "value-of-old"}))
    assert keep(store)["secret"]["retired"] == "value-of-old"


def test_only_the_owner_can_read_them(store: Path) -> None:
    keep(store)
    assert store.stat().st_mode & 0o777 == 0o600
    assert store.parent.stat().st_mode & 0o777 == 0o700
    assert list(store.parent.iterdir()) == [store]


def test_check_mode_says_what_would_be_and_writes_nothing(store: Path) -> None:
    assert keep(store, check=True)["changed"]
    assert not store.parent.exists()


@pytest.mark.parametrize("damage", [CANARY, f'["{CANARY}"]', f'"{CANARY}"', ""])
def test_a_damaged_store_is_an_error_and_never_replaced(store: Path, damage: str) -> None:
    store.parent.mkdir()
    store.write_text(damage)
    words = told(keep(store))
    assert str(store) in words
    assert "restore it" in words
    assert CANARY not in words
    assert store.read_text() == damage


@pytest.mark.parametrize("value", ["short", f"{CANARY} blank", f"{CANARY}\n", 12345678, None])
def test_an_unusable_override_is_named_without_its_value(store: Path, value: Any) -> None:
    words = told(keep(store, redis_password=value))
    assert "celray_secrets.redis_password" in words
    assert str(value) not in words
    assert not store.exists()


@pytest.mark.parametrize("overrides", [CANARY, [CANARY], 5])
def test_overrides_that_are_no_mapping_are_refused_without_repeating_them(
    store: Path, overrides: Any
) -> None:
    args = {"path": str(store), "wanted": WANTED, "overrides": overrides}
    words = told(run_module(MODULE, args))
    assert "must map names to values" in words
    assert CANARY not in words


def test_an_unknown_override_is_named_with_the_known_names(store: Path) -> None:
    words = told(keep(store, redis_pasword=CANARY))
    assert "'redis_pasword'" in words
    assert "ray_auth_token, redis_password" in words
    assert CANARY not in words


def test_an_operator_reads_the_reason_and_no_value_at_any_verbosity(tmp_path: Path) -> None:
    given = {"celray_secrets": {"redis_pasword": CANARY}, "celray_home": str(tmp_path / "celray")}
    (tmp_path / "given.json").write_text(json.dumps(given))
    hosts = tmp_path / "hosts"
    hosts.write_text("[redis]\nhere\n")
    (tmp_path / "play.yml").write_text("- {hosts: redis, gather_facts: false, roles: [secrets]}\n")
    variables = ("-e", f"@{tmp_path}/given.json", "-c", "local")
    played = play(f"{tmp_path}/play.yml", "-i", str(hosts), "-vvv", "--diff", *variables)
    assert played.code != 0
    assert "celray_secrets names 'redis_pasword'" in played.output
    assert CANARY not in played.output
    assert not (tmp_path / "celray").exists()
