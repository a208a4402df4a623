"""A Ray as compose/_ray.j2 has it: nobody without its key ends it, or reads ids from it."""

import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import celray_deployed_ray as deployed
import grpc  # type: ignore[import-untyped]
import pytest
import requests
from celray_testing import wait_for

ID = "celray-0d5b7a52-6f0e-4e0e-9b0e-4b5f4f0f8a11"


class Guarded:
    """The Ray, as its tests use it; ``own`` is the conftest's OwnRay."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401
        self.cluster, self.folder, self.ports = own.cluster, own.folder, own.ports
        self.token = own.cluster.token_file.read_text()

    def jobs(self, method: str, path: str, **body: Any) -> requests.Response:  # noqa: ANN401
        return requests.request(
            method,
            f"{self.cluster.address}/api/jobs/{path}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
            json=body or None,
        )

    def metrics(self) -> str:
        port = self.ports["metrics-export-port"]
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text


@pytest.fixture(scope="module")
def ray(start_ray: Callable[..., Any]) -> Guarded:
    return Guarded(start_ray(deployed.environment))


def calls(port: int) -> list[tuple[str, str]]:
    """Every way to this machine that others have too, with the call that ends a Ray."""
    name = "/ray.rpc.syncer.RaySyncer/StartSync"
    return [(f"{host}:{port}", name) for host in ("127.0.0.1", "[::1]", own_address())]


def own_address() -> str:
    return socket.gethostbyname(socket.gethostname())


def test_the_call_that_ends_a_ray_ends_nothing(ray: Guarded) -> None:
    for target, name in calls(ray.ports["port"]):
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(name)(b"", timeout=5)
        # By TLS too, without the cluster's key.
        anybody = grpc.ssl_channel_credentials((ray.folder / "tls" / "cert.pem").read_bytes())
        with grpc.secure_channel(target, anybody) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(name)(b"", timeout=5)
    time.sleep(2)  # a head whose GCS is gone takes a moment to go
    assert ray.cluster.process.poll() is None
    assert ray.jobs("GET", "").ok


def test_jobs_run_as_before_and_metrics_do_not_name_them(ray: Guarded) -> None:
    code = "import ray; ray.init(); print(ray.get(ray.remote(lambda: 6 * 7).remote()))"
    sent = ray.jobs("POST", "", submission_id=ID, entrypoint=f'{sys.executable} -c "{code}"')
    assert sent.ok, sent.text
    seen = ""
    deadline = time.monotonic() + 90
    while (state := ray.jobs("GET", ID).json()["status"]) not in ("SUCCEEDED", "FAILED"):
        assert time.monotonic() < deadline
        seen += ray.metrics()
        time.sleep(0.5)
    log = ray.jobs("GET", f"{ID}/logs").json()["logs"]
    assert state == "SUCCEEDED", log
    assert "42" in log
    page = wait_for(lambda: _with_tasks(ray), 30)
    assert "ray_actors" in page, "the metrics were not looked at"
    assert ID not in seen + page


def _with_tasks(ray: Guarded) -> str:
    page = ray.metrics()
    return page if "ray_actors" in page else ""


def test_ray_client_works_with_the_key_and_token(ray: Guarded) -> None:
    address = f"ray://127.0.0.1:{ray.ports['ray-client-server-port']}"
    code = f"import ray; ray.init('{address}'); print(ray.get(ray.remote(lambda: 42).remote()))"
    variables = {
        "HOME": str(ray.folder),
        "PATH": "/usr/bin:/bin",
        "RAY_AUTH_TOKEN_PATH": str(ray.cluster.token_file),
        **deployed.environment(ray.folder),
    }
    # Ray gives its client's server 30 s to start, and fails in other words where it dies meanwhile:
    # on a busy machine either happens, with a right key too.
    not_started = ("Starting Ray client server failed", "Initialization failure from server")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=variables,
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )
        if not any(words in done.stderr for words in not_started):
            break
    logs = (ray.folder / "r" / "session_latest" / "logs").glob("ray_client_server*")
    assert "42" in done.stdout, "\n".join([done.stderr, *(log.read_text()[-2000:] for log in logs)])


def test_logs_of_jobs_that_ended_go_and_ray_goes_on(ray: Guarded) -> None:
    logs = ray.folder / "r" / "session_latest" / "logs"
    wait_for(lambda: list(logs.glob("job-driver-*")), 30)
    program = deployed.PROGRAMS / "ray_logs.py"
    command = [sys.executable, str(program), str(ray.folder / "r"), "0", "0", "once"]

    def gone() -> bool:
        subprocess.run(command, check=True)
        return not list(logs.glob("job-driver-*"))

    wait_for(gone, 60)
    assert (logs / "gcs_server.out").exists()
    sent = ray.jobs("POST", "", entrypoint="echo still here")
    name = sent.json()["submission_id"]
    wait_for(lambda: ray.jobs("GET", name).json()["status"] == "SUCCEEDED", 60)
    assert "still here" in ray.jobs("GET", f"{name}/logs").json()["logs"]


@pytest.mark.slow
def test_the_key_is_kept_and_nobody_else_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    deployed.make_key(tmp_path)
    key, cert = (folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes()
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    deployed.make_key(tmp_path)
    assert (folder / "cert.pem").read_bytes() == cert
    (folder / "cert.pem").write_bytes(b"half a certif")
    deployed.make_key(tmp_path)
    assert (folder / "key.pem").read_bytes() == key, "copies of the key stay good"
    assert (folder / "cert.pem").read_bytes() != cert
