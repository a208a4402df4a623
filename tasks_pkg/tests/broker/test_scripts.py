"""What runs inside Redis lies in files that a linter reads, and Redis takes each of them."""

import re
from pathlib import Path

from celray_testing import RedisServer

from tasks.broker.redis import scripts

SOURCE = Path(scripts.__file__).parents[2]
LUA = {path.stem: path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.lua")}
SCRIPTS = {
    name: value
    for name, value in vars(scripts).items()
    if isinstance(value, str) and "redis.call(" in value and not name.startswith("_")
}


def test_every_file_is_a_script_or_the_beginning_of_one() -> None:
    assert len(LUA) > 10
    assert [
        name for name, text in LUA.items() if not any(text in s for s in SCRIPTS.values())
    ] == []


def test_redis_takes_each_script(redis: RedisServer) -> None:
    with redis.client(0) as client:
        for script in SCRIPTS.values():
            client.script_load(script)


def test_each_file_says_what_it_is_given() -> None:
    """Its first line of prose, then KEYS and ARGV where it has them."""
    for name, text in LUA.items():
        comment, code = re.split(r"\n\n|\n(?=[^-#])", text, maxsplit=1)
        assert re.match(r"(#!lua flags=allow-oom\n)?-- [A-Z]", comment), name
        for given in ("KEYS", "ARGV"):
            assert (f"-- {given}  " in comment) == (given in code), f"{name}: {given}"


def test_no_lua_hides_in_python() -> None:
    """Three copies of one script lay in three modules, where no linter saw them."""
    hidden = [path.name for path in SOURCE.rglob("*.py") if "redis.call(" in path.read_text()]
    assert hidden == []


def test_a_key_is_removed_only_while_it_holds_what_was_seen(redis: RedisServer) -> None:
    with redis.client(1) as client:
        forget = client.register_script(scripts.FORGET)
        client.set("result", "new")
        assert forget(keys=["result"], args=["old"]) == 0
        assert client.get("result") == "new"
        assert forget(keys=["result"], args=["new"]) == 1
        assert forget(keys=["result"], args=["new"]) == 0
        assert not client.exists("result")
