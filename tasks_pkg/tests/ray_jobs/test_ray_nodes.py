"""A second node of a Ray, as compose/ray-node.yml.j2 has it: it is trusted, works, is missed."""

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, TypeVar

import celray_deployed_ray as deployed
import grpc  # type: ignore[import-untyped]
import pytest
import requests
from celray_testing import free_port, wait_for

from tasks.operations import probes
from tasks.settings import Settings

# A head and a node start first, each of which takes long on a busy machine.
pytestmark = pytest.mark.timeout(300)

T = TypeVar("T")
SECRET = secrets.token_hex(32)
NAME = "second"
PORTS = (
    *("node-manager-port", "object-manager-port", "runtime-env-agent-port"),
    *("dashboard-agent-grpc-port", "dashboard-agent-listen-port", "metrics-export-port"),
)
#: Run where only the second node has a resource, and says which node that was.
JOB = """
import ray
ray.init()
here = ray.get_runtime_context().get_node_id()
@ray.remote(num_cpus=1, resources={"of_second": 1})
def there():
    return ray.get_runtime_context().get_node_id()
@ray.remote(num_cpus=1, label_selector={"disk": "fast"})
def chosen():
    return ray.get_runtime_context().get_node_id()
other, by_label = ray.get([there.remote(), chosen.remote()])
print("differ", other != here and other == by_label)
"""


def load(name: str) -> Any:  # noqa: ANN401 - a module
    """Return a program of the role ray as a module."""
    spec = importlib.util.spec_from_file_location(name, deployed.PROGRAMS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ray_node = load("ray_node")


def eventually(question: Callable[[], T], seconds: float = 90.0) -> T:
    """Ask once a second until the answer is true: more often, and a busy Ray would not start."""

    def patiently() -> T:
        time.sleep(1)
        return question()

    return wait_for(patiently, seconds)


class Head:
    """The head of a cluster, as its tests ask it."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401 - the conftest's OwnRay
        self.cluster, self.folder, self.ports = own.cluster, own.folder, own.ports
        self.token = own.cluster.token_file.read_text()

    @property
    def gcs(self) -> str:
        """Return the address to which nodes connect."""
        return f"127.0.0.1:{self.ports['port']}"

    def ask(self, method: str, path: str, **body: Any) -> Any:  # noqa: ANN401
        """Return an answer of the dashboard."""
        answer = requests.request(
            method,
            self.cluster.address + path,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
            json=body or None,
        )
        answer.raise_for_status()
        return answer.json()

    def run(self, code: str) -> str:
        """Return the log of a job, which has to succeed."""
        job = self.ask("POST", "/api/jobs/", entrypoint=f"{sys.executable} -c '{code}'")
        name = f"/api/jobs/{job['submission_id']}"
        ended = ("SUCCEEDED", "FAILED", "STOPPED")
        state = eventually(lambda: (s := self.ask("GET", name)["status"]) in ended and s, 120)
        log = str(self.ask("GET", f"{name}/logs")["logs"])
        assert state == "SUCCEEDED", log
        return log


class Node:
    """A second node, in folders of its own as on another host."""

    def __init__(self, head: Head, folder: Path) -> None:
        self.head, self.folder = head, folder
        self.token_file = folder / "token"
        self.token_file.write_text(head.token)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        program = Path(sys.executable)
        return {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_worker_niceness": "0",
            **deployed.environment(self.folder, SECRET),
        }

    def start(self) -> None:
        """Start it as the template does: once the head answers."""
        wait = [*self.program("wait"), self.head.cluster.address, str(self.token_file)]
        assert subprocess.run(wait, check=True, capture_output=True).stdout == b""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ray")),
                    *("start", f"--address={self.head.gcs}", "--block", f"--node-name={NAME}"),
                    *("--disable-usage-stats", "--node-ip-address=127.0.0.1", "--num-cpus=2"),
                    *(f"--{name}={free_port()}" for name in PORTS),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    *("--resources", json.dumps({"of_second": 1}), "--labels=disk=fast"),
                    *("--object-store-memory=100000000", f"--temp-dir={self.folder / 'r'}"),
                ],
                env=self.variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def joined(self) -> bool:
        """Return whether it is healthy; start it where it gave up, as the engine does."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        return self.health() == ""

    def program(self, what: str) -> list[str]:
        return [sys.executable, "-S", str(deployed.PROGRAMS / "ray_node.py"), what]

    def processes(self) -> list[int]:
        """Return what its container would hold."""
        return descendants(self.process.pid) if self.process and self.process.poll() is None else []

    def health(self) -> str:
        """Return what the health check finds wrong, where it sees this node's processes alone."""
        view = self.folder / "proc"
        view.mkdir(exist_ok=True)
        for old in view.iterdir():
            old.unlink()
        for pid in self.processes():
            (view / str(pid)).symlink_to(f"/proc/{pid}")
        found: str = ray_node.problem(self.head.cluster.address, self.token_file, view)
        return found

    def end(self, how: int = SIGTERM) -> None:
        """End it and what it started."""
        family = self.processes()
        if self.process is not None:
            self.process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=30)
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
            self.process.wait()


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in descendants(int(child)))]


@pytest.fixture(scope="module")
def head(start_ray: Callable[..., Any]) -> Head:
    return Head(start_ray(lambda folder: deployed.environment(folder, SECRET)))


@pytest.fixture(scope="module")
def node(head: Head) -> Iterator[Node]:
    # Ray's sockets lie below, and the path of a socket must be short.
    folder = head.folder / "n"
    folder.mkdir()
    node = Node(head, folder)
    assert node.health() == "no raylet runs in this container"
    try:
        try:
            eventually(node.joined, 150)
        except AssertionError as error:
            raise AssertionError(f"{node.health()}\n{(folder / 'log').read_text()}") from error
        yield node
    finally:
        node.end()


@pytest.fixture
def settings(
    head: Head, configure: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.cluster.token_file))
    return configure(ray_address=head.cluster.address)


def missing(settings: Settings) -> list[str]:
    return probes.missing_ray_nodes(settings, [NAME], 10)


def test_a_task_runs_on_the_node_that_has_what_it_asks_for(node: Node) -> None:
    assert "differ True" in node.head.run(JOB)


def test_only_who_has_the_clusters_secret_is_let_in(node: Node, tmp_path: Path) -> None:
    """The head's port and the node's: a certificate of another cluster is refused by both."""
    for folder, secret in ((tmp_path / "ours", SECRET), (tmp_path / "theirs", SECRET[::-1])):
        folder.mkdir()
        deployed.make_cluster_key(folder, secret)
    words = next(w for pid in node.processes() if (w := command(pid))[0].endswith("raylet"))
    port = next(w.partition("=")[2] for w in words if w.startswith("--node_manager_port="))
    for target in (node.head.gcs, f"127.0.0.1:{port}"):
        assert knock(target, tmp_path / "ours") != grpc.StatusCode.UNAVAILABLE
        assert knock(target, tmp_path / "theirs") == grpc.StatusCode.UNAVAILABLE


def command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def knock(target: str, folder: Path) -> grpc.StatusCode:
    """Return how a call without a token ends, with the certificate in a folder."""
    files = folder / "cluster-tls"
    mine = grpc.ssl_channel_credentials(
        *((files / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    )
    with grpc.secure_channel(target, mine) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_the_node_is_found_by_its_name(node: Node, settings: Settings) -> None:
    assert node.health() == ""
    assert missing(settings) == []
    assert probes.missing_ray_nodes(settings, ["third"], 10) == ["third"]
    assert probes.ray_state(settings, 10).nodes == 2


def test_a_head_that_refuses_or_is_away_is_said(node: Node) -> None:
    node.token_file.write_text("x" * 64)
    assert node.health().endswith("does not answer: HTTP 403")
    node.token_file.write_text(node.head.token)
    done = subprocess.Popen(
        [*node.program("wait"), f"http://127.0.0.1:{free_port()}", str(node.token_file)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout
    assert "waiting for the Ray head at" in done.stdout.readline()
    assert done.poll() is None
    done.kill()
    done.wait()


def test_a_node_that_was_drained_is_missed_though_its_program_goes_on(
    node: Node, settings: Settings
) -> None:
    listing = node.head.ask("GET", "/api/v0/nodes")["data"]["result"]["result"]
    (identity,) = [one["node_id"] for one in listing if one["node_name"] == NAME]
    ray = str(Path(sys.executable).with_name("ray"))
    subprocess.run(
        [
            *(ray, "drain-node", "--address", node.head.gcs, "--node-id", identity),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"),
            *("--deadline-remaining-seconds", "60"),
        ],
        env=node.variables,
        check=True,
        capture_output=True,
    )
    eventually(lambda: missing(settings) == [NAME], 60)
    assert eventually(node.health, 60)
    assert node.process
    assert node.process.poll() is None
