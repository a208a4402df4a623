"""What a deployment on a Ray cluster of others relies on, against a real one."""

import importlib.util
import platform
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from celray_testing import PACKAGE

from tasks.ray_jobs.protocol import JobRequest
from tasks.settings import RayRuntimeEnv
from tasks.submission import RayJobs, submission_id

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


def test_a_job_is_given_the_runtime_environment(
    ray_address: str, jobs: RayJobs, folders: Path
) -> None:
    given = RayRuntimeEnv(env_vars={"OWN": "it's ours"})
    ours = RayJobs(ray_address, jobs.patience, given)
    task_id = uuid.uuid4().hex
    places = [str(folders / name) for name in ("models/.runs", "datasets", "models")]

    def request(name: str) -> JobRequest:
        runs_dir, datasets_dir, models_dir = places
        parameters = {"variable": "OWN"}
        return JobRequest(name, runs_dir, datasets_dir, models_dir, "t", parameters)

    done = ours.run(task_id, "own_package.jobs.variable", request, lambda *_: None)
    assert done.result == {"value": "it's ours"}
    assert done.submission_id == submission_id(task_id)
