"""The rights that roles/redis gives are enough for workers and clients, and no more are needed."""

import re
from pathlib import Path

import pytest
from celery import Celery
from celray_testing import PACKAGE, RedisServer, environment, worker
from redis.exceptions import NoPermissionError

ACL = PACKAGE.parent / "compose" / "users.acl.j2"


def rights() -> str:
    found = re.search(r"set celery = '([^']+)'", ACL.read_text())
    assert found, f"{ACL} no longer names the rights of Celery's users"
    return found.group(1)


def test_workers_and_plain_clients_work_with_the_deployed_rights(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    try:
        with server.client(0) as admin:
            for user in ("celray", "caller"):
                admin.execute_command("ACL", "SETUSER", user, "on", ">secret", *rights().split())
            admin.execute_command("ACL", "SETUSER", "celray", "+info", "+config|get")

            def url(user: str, db: int) -> str:
                return f"redis://{user}:secret@127.0.0.1:{server.port}/{db}"

            extra = {"CELRAY_BROKER_URL": url("celray", 0)}
            extra |= {"CELRAY_RESULT_BACKEND_URL": url("celray", 1)}
            env = environment(server, tmp_path, **extra)
            process = worker(env, tmp_path, "default", "default,celery", "extra_tasks")
            client = Celery("outside", broker=url("caller", 0), backend=url("caller", 1))
            try:
                result = client.send_task("extra.nap", args=[1, 0.1])
                assert result.get(timeout=20) == 1
                process.terminate()
            finally:
                process.kill()
                client.close()
            denials = [entry for entry in admin.acl_log() if entry["username"] != "default"]
            assert denials == []
            with server.client(0) as caller:
                caller.execute_command("AUTH", "caller", "secret")
                with pytest.raises(NoPermissionError):
                    caller.flushall()
    finally:
        server.stop()
