"""What a deployment on a Ray cluster of others relies on, against a real one."""

import importlib.util
import platform
import uuid
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from celray_testing import PACKAGE

from tasks.ray_jobs.protocol import JobRequest
from tasks.settings import RayRuntimeEnv
from tasks.submission.errors import JobFailedError
from tasks.submission.jobs import submission_id
from tasks.submission.ray import RayJobs

pytestmark = pytest.mark.timeout(600)

MODULE = PACKAGE.parent / "roles" / "preflight" / "library" / "celray_ray.py"


@pytest.mark.skipif(not MODULE.is_file(), reason="the package is tested outside its repository")
def test_preflight_reads_a_real_clusters_versions(ray_cluster: Any) -> None:  # noqa: ANN401
    spec = importlib.util.spec_from_file_location("celray_ray", MODULE)
    assert spec is not None
    assert spec.loader is not None
    preflight = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(preflight)
    token = ray_cluster.token_file.read_text().strip()
    answer = preflight.ask(ray_cluster.address, token)
    assert (answer["status"], answer["error"]) == (200, "")
    assert (answer["ray"], answer["python"]) == (version("ray"), platform.python_version())
    assert preflight.ask(ray_cluster.address, "wrong" * 13)["status"] in {401, 403}


@pytest.fixture
def request_with(folders: Path) -> Callable[..., Callable[[str], JobRequest]]:
    places = [str(folders / name) for name in ("models/.runs", "datasets", "models")]

    def make(**parameters: str) -> Callable[[str], JobRequest]:
        runs_dir, datasets_dir, models_dir = places
        return lambda name: JobRequest(name, runs_dir, datasets_dir, models_dir, "t", parameters)

    return make


RequestWith = Callable[..., Callable[[str], JobRequest]]


def test_a_job_is_given_the_runtime_environment(
    ray_address: str, jobs: RayJobs, request_with: RequestWith
) -> None:
    given = RayRuntimeEnv(env_vars={"OWN": "it's ours"})
    ours = RayJobs(ray_address, jobs.patience, given)
    task_id = uuid.uuid4().hex
    request = request_with(variable="OWN")
    done = ours.run(task_id, "own_package.jobs.variable", request, lambda *_: None)
    assert done.result == {"value": "it's ours"}
    assert done.submission_id == submission_id(task_id)


def test_a_job_is_given_what_pip_installs(
    ray_address: str, jobs: RayJobs, request_with: RequestWith, tmp_path: Path
) -> None:
    wheel = tmp_path / "celray_brought-1.0-py3-none-any.whl"
    about = "celray_brought-1.0.dist-info"
    files = {
        "celray_brought.py": "VALUE = 'from pip'\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: celray-brought\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in files))
    request = request_with(module="celray_brought")
    ours = RayJobs(ray_address, jobs.patience, RayRuntimeEnv(pip=(str(wheel),)))
    done = ours.run(uuid.uuid4().hex, "own_package.jobs.brought", request, lambda *_: None)
    assert done.result == {"value": "from pip"}

    nowhere = RayRuntimeEnv(pip=(str(tmp_path / "nowhere-1.0-py3-none-any.whl"),))
    ours = RayJobs(ray_address, jobs.patience, nowhere)
    with pytest.raises(JobFailedError, match=r"ray_runtime_env: pip .*nowhere-1\.0"):
        ours.run(uuid.uuid4().hex, "own_package.jobs.brought", request, lambda *_: None)
