import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celray_testing import RedisServer, environment, free_port

from tasks.ray_jobs import cluster
from tasks.ray_jobs.protocol import ENGINE_VARIABLE, JobRequest
from tasks.settings import Settings

# Of what tests compare with (scikit-learn, XGBoost alone), read when that is imported. Threads that
# wait for each other take ten times as long where others work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Of every cluster of a run: Ray's client reads a token once per process.
TOKEN = secrets.token_hex(32)
SAMPLE = Path(__file__).parents[2] / "samples" / "winequality.csv"


#: Each starts a Ray, which takes ten seconds of a processor before the first job.
RAY_FIXTURES = {"ray_cluster", "mortal_ray", "start_ray", "two_nodes"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test on a Ray cluster as slow, before ``-m`` chooses."""
    for item in items:
        if RAY_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Refuse a test module that imports Ray: how it authenticates, Ray reads then, and once."""
    if "ray" in sys.modules:
        message = "a test module imports Ray, before a test can say how it authenticates"
        raise pytest.UsageError(message)


@dataclass(frozen=True)
class RayCluster:
    """A one-node Ray of this run's own: two CPUs, token authentication, ports of its own."""

    address: str
    token_file: Path
    process: "subprocess.Popen[bytes]"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "CELRAY_RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
        }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The datasets folder of folders of its own."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "models").mkdir()
    return tmp_path / "datasets"


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Jobs run in this process, on one CPU; what else is to be otherwise is set by this."""
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    monkeypatch.setattr(cluster, "cpus", lambda: 1)
    return monkeypatch


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _descendants(int(child)))]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End Ray's head and what it started, by process id: `ray stop` would end every Ray here."""
    family = _descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):  # what Ray takes to leave is not what is tested
        process.wait(timeout=60)
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _options(folder: Path) -> list[str]:
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    options = [f"--{name}={free_port()}" for name in names]
    options += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2"]
    options += ["--object-store-memory=100000000", f"--temp-dir={folder / 'r'}"]
    return [*options, "--min-worker-port=0", "--max-worker-port=0"]


def _start(
    cluster_folder: Path, options: list[str], variables: dict[str, str] | None = None
) -> RayCluster:
    """Start a head and wait until it takes jobs; a second time with the same options, once dead."""
    program = Path(sys.executable).with_name("ray")
    token_file = cluster_folder / "token"
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(cluster_folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",  # 30 s, waiting for Ray's own actors
        "RUNTIME_ENV_RETRY_TIMES": "1",  # 3, each with a new virtual environment
        "RAY_worker_niceness": "0",  # 15, which on a busy machine is next to nothing
        **(variables or {}),
    }
    with (cluster_folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(program), "start", "--head", "--block", *options],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    port = next(word.partition("=")[2] for word in options if word.startswith("--dashboard-port"))
    cluster = RayCluster(f"http://127.0.0.1:{port}", token_file, process)
    try:
        _wait_until_it_answers(cluster, cluster_folder / "log")
    except BaseException:
        _end(process)
        raise
    return cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    with _folder() as folder:
        cluster = _start(folder, _options(folder))
        try:
            yield cluster
        finally:
            _end(cluster.process)


class MortalRay:
    """A cluster of one test's own, which it may kill and start again at the same address."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._options = folder, _options(folder)
        self.cluster = _start(folder, self._options)
        self.jobs = _jobs_of(self.cluster, monkeypatch)

    def kill(self) -> None:
        """Kill the head with all that runs below it, as a host that loses power does."""
        process = self.cluster.process
        family = _descendants(process.pid)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def start(self) -> None:
        """Start it again: it knows nothing of what was."""
        self.cluster = _start(self._folder, self._options)


@pytest.fixture
def mortal_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[MortalRay]:
    with _folder() as folder:
        mortal = MortalRay(folder, monkeypatch)
        try:
            yield mortal
        finally:
            if mortal.cluster.process.poll() is None:
                _end(mortal.cluster.process)


@contextmanager
def _folder() -> Iterator[Path]:
    # Ray's sockets lie below, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="celray-ray-", dir="/tmp"))
    (folder / "token").write_text(TOKEN)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(cluster: RayCluster, log: Path) -> None:
    import requests  # noqa: PLC0415 - only here

    headers = {"Authorization": f"Bearer {cluster.token_file.read_text()}"}
    deadline = time.monotonic() + 90
    while True:
        try:
            if requests.get(f"{cluster.address}/api/jobs/", headers=headers, timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert cluster.process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@dataclass(frozen=True)
class OwnRay:
    """A cluster of one module's own, with its folder and the ports of its options."""

    cluster: RayCluster
    folder: Path
    ports: dict[str, int]


@pytest.fixture(scope="module")
def start_ray() -> Iterator[Callable[[Callable[[Path], dict[str, str]]], OwnRay]]:
    """Start a Ray with more variables, which are asked for with the folder that it will have."""
    with ExitStack() as stack:

        def start(variables: Callable[[Path], dict[str, str]]) -> OwnRay:
            folder = stack.enter_context(_folder())
            options = [*_options(folder), f"--metrics-export-port={free_port()}"]
            cluster = _start(folder, options, variables(folder))
            stack.callback(_end, cluster.process)
            words = (option.removeprefix("--").partition("=") for option in options)
            ports = {name: int(port) for name, _, port in words if name.endswith("port")}
            return OwnRay(cluster, folder, ports)

        yield start


@pytest.fixture
def ray_address(ray_cluster: RayCluster) -> str:
    return ray_cluster.address


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets and models of this run, with the wine sample where a deployment has it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "datasets" / "examples").mkdir(parents=True)
    (folder / "models" / ".runs").mkdir(parents=True)
    shutil.copy(SAMPLE, folder / "datasets" / "examples")
    return folder


@pytest.fixture
def datasets(folders: Path) -> Path:
    return folders / "datasets"


@pytest.fixture
def env(
    redis: RedisServer, folders: Path, tmp_path: Path, ray_cluster: RayCluster
) -> dict[str, str]:
    """The variables of one Celery process, beside a real Ray."""
    return environment(
        redis,
        tmp_path,
        **ray_cluster.variables,
        CELRAY_DATASETS_DIR=str(folders / "datasets"),
        CELRAY_MODELS_DIR=str(folders / "models"),
        CELRAY_RUNS_DIR=str(folders / "models" / ".runs"),
        CELRAY_VISIBILITY_TIMEOUT_SECONDS="6",
        CELRAY_SOFT_SHUTDOWN_SECONDS="1",
    )


@pytest.fixture
def settings(folders: Path) -> Settings:
    """Settings with this run's folders, for what needs neither Redis nor Ray."""
    return Settings.model_construct(
        datasets_dir=folders / "datasets",
        models_dir=folders / "models",
        runs_dir=folders / "models" / ".runs",
        code_version="test",
    )


@pytest.fixture
def jobs(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """The seam, on the real Ray."""
    return _jobs_of(ray_cluster, monkeypatch)


def _jobs_of(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    from tasks.submission.ray import Patience, RayJobs  # noqa: PLC0415 - needs no environment before

    for name, value in ray_cluster.variables.items():
        monkeypatch.setenv(name, value)
    return RayJobs(ray_cluster.address, Patience(poll_seconds=0.3, away_seconds=30))


@pytest.fixture(scope="session")
def request_for(folders: Path) -> Callable[..., Any]:
    """Make the request of a training job from what differs from the defaults."""
    from celray_jobs import request_in  # noqa: PLC0415

    from tasks.schemas.models import model_config_from  # noqa: PLC0415

    def make(dataset_path: str, **config: object) -> Callable[[str], JobRequest]:
        parameters = model_config_from(config).training(dataset_path).as_json()
        return lambda name: request_in(folders, name, parameters)

    return make
