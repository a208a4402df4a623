"""What Redis took is there after its end, and its rules hold before anybody gets in.

The kind: every way to write (a command, a transaction, a script, each by users with other rights),
every end of Redis, before and after a rewrite of its file; and all that a stranger could reach
meanwhile.
"""

import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from celray_acl import PASSWORD, keys, rights
from celray_testing import PACKAGE, free_port, wait_for
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

START = PACKAGE.parent / "roles" / "redis" / "files" / "redis_start.sh"
HASH = hashlib.sha256(PASSWORD.encode()).hexdigest()
RULES = {
    "default": [*keys(), *rights("sending")],
    "operator": rights("celery"),
    "celray": [*rights("celery"), "+info", "+config|get"],
    "admin": ["~*", "&*", "+@all"],
}


@dataclass
class Started:
    """A Redis that its container's own script has started."""

    folder: Path
    extra: str = ""
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def rules(self) -> Path:
        return self.folder / "users.acl"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self, *, wait: bool = True) -> None:
        for name in ("data", "tmp"):
            (self.folder / name).mkdir(exist_ok=True)
        config = self.folder / "redis.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.folder}/data\naclfile {self.rules}\n"
            f"appendonly yes\nappendfsync always\nsave ''\n{self.extra}\n"
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/bin/sh", str(START), str(config), str(self.rules), str(self.port)],
                env={"PATH": os.environ["PATH"], "TMPDIR": str(self.folder / "tmp")},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if wait:
            wait_for(self.answers)

    def end(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)
        self.process.wait(timeout=60)

    def answers(self) -> bool:
        with suppress(RedisConnectionError), self.user("admin") as admin:
            return bool(admin.ping()) and "opener" not in admin.acl_users()
        return False

    def user(self, name: str, db: int = 0) -> Redis:
        login = "" if name == "default" else name
        url = f"redis://{login}:{PASSWORD}@127.0.0.1:{self.port}/{db}"
        return Redis.from_url(url, decode_responses=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Started]:
    found = Started(tmp_path)
    lines = [f"user {name} on #{HASH} {' '.join(rules)}" for name, rules in RULES.items()]
    found.rules.write_text("\n".join([*lines, "user health on nopass -@all +ping", ""]))
    try:
        yield found
    finally:
        if found.process:
            with suppress(ProcessLookupError):
                os.killpg(found.process.pid, signal.SIGKILL)
            found.process.wait()


def command(redis: Redis, name: str) -> None:
    redis.lpush(name, "a")


def transaction(redis: Redis, name: str) -> None:
    with redis.pipeline(transaction=True) as pipe:
        pipe.lpush(name, "a")
        pipe.lpush(name, "b")
        pipe.execute()


def script(redis: Redis, name: str) -> None:
    text = "for i = 1, 2 do redis.call('LPUSH', KEYS[1], ARGV[i]) end"
    redis.register_script(text)(keys=[name], args=["a", "b"])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("rewritten", [False, True])
def test_what_redis_took_is_there_after_its_end(
    end: signal.Signals, rewritten: bool, server: Started
) -> None:
    server.start()
    ways: list[Callable[[Redis, str], None]] = [command, transaction, script]
    expected = {}
    for name in RULES:
        for way in ways:
            if name == "default" and way is script:
                continue  # who sends tasks has no scripts
            # A queue of the catalogue with a priority's name is what `default` may write.
            for key in ["default"] if name == "default" else [f"{name}-{way.__name__}", "default"]:
                for db in (0,) if key == "default" else (0, 1, 2):
                    with server.user(name, db) as redis:
                        way(redis, key)
    with server.user("admin") as admin:
        if rewritten:
            admin.bgrewriteaof()
            wait_for(lambda: not admin.info("persistence")["aof_rewrite_in_progress"])
            with server.user("celray") as redis:
                script(redis, "after")
    for db in (0, 1, 2):
        with server.user("admin", db) as admin:
            expected[db] = {key: admin.lrange(key, 0, -1) for key in admin.keys("*")}
    assert sum(map(len, expected.values())) > 20
    server.end(end)
    server.start()
    for db, there in expected.items():
        with server.user("admin", db) as admin:
            assert {key: admin.lrange(key, 0, -1) for key in admin.keys("*")} == there
    assert "NOPERM" not in server.log


def test_the_rules_of_the_file_hold_and_nobody_else_is_left(server: Started) -> None:
    for _ in range(2):
        server.start()
        with server.user("admin") as admin:
            assert set(admin.acl_users()) == {*RULES, "health"}
        with server.user("default") as redis:
            redis.lpush("default", "x")
            for refused in (
                lambda: redis.rpop("default"),
                lambda: redis.get("default-x"),
                redis.flushall,
            ):
                with pytest.raises(NoPermissionError):
                    refused()
        assert (server.folder / "tmp" / "users.acl").stat().st_mode & 0o077 == 0
        server.end(signal.SIGKILL)


def test_while_redis_loads_nobody_gets_in(server: Started) -> None:
    server.start()
    with server.user("celray") as redis, redis.pipeline(transaction=False) as pipe:
        for number in range(3000):
            pipe.set(f"key-{number}", "x")
        pipe.execute()
    with server.user("admin") as admin:
        admin.bgrewriteaof()  # a base file: its keys are what the delay counts
        wait_for(lambda: not admin.info("persistence")["aof_rewrite_in_progress"])
    server.end(signal.SIGKILL)
    server.extra = "key-load-delay 1000\nloading-process-events-interval-bytes 1024"
    server.start(wait=False)
    inside = str(server.folder / "tmp" / "redis.sock")

    def says(*lines: str) -> bytes:
        """What a stranger in the container would hear; nothing while there is no Redis."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as plain:
            plain.connect(inside)
            plain.sendall("".join(f"{line}\r\n" for line in lines).encode())
            return plain.recv(1000)
        return b""

    wait_for(lambda: says("GET key-1"))
    assert says("GET key-1").startswith(b"-NOAUTH")
    for login in (f"AUTH {PASSWORD}", f"AUTH default {PASSWORD}", "AUTH default x"):
        assert says(login).startswith(b"-WRONGPASS")
    assert says(f"AUTH admin {PASSWORD}", "GET key-1").startswith(b"+OK\r\n-LOADING")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
    wait_for(server.answers, 60)
    with server.user("celray") as redis:
        assert redis.dbsize() == 3000


@pytest.mark.parametrize("name", ["default", "celray"])
def test_rules_that_redis_refuses_end_it_with_its_words(name: str, server: Started) -> None:
    server.rules.write_text(
        server.rules.read_text().replace(f"user {name} on", f"user {name} +@no")
    )
    server.start(wait=False)
    assert server.process
    group = server.process.pid
    assert server.process.wait(timeout=60) is not None
    assert "Unknown command or category name" in server.log

    def is_gone() -> bool:
        with suppress(ProcessLookupError):
            os.killpg(group, 0)
            return False
        return True

    wait_for(is_gone)
