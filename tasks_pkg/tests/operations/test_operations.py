"""What operators see: status, and the report that is made by measuring."""

import json
import subprocess
from collections.abc import Callable, Iterator

import celray_programs
import pytest
from celery import Celery
from celray_testing import Answer, HttpService, Process, http_service, ray_answers

from tasks import samples
from tasks.operations import verify
from tasks.operations.__main__ import progress_line
from tasks.operations.report import Check, Container, Report, markdown
from tasks.settings import Settings, get_settings

Configure = Callable[..., Settings]


def ops(
    env: dict[str, str], *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return celray_programs.run("tasks.ops", *arguments, env=env, stdin=stdin)


@pytest.fixture
def ray() -> Iterator[HttpService]:
    with http_service(ray_answers()) as service:
        yield service


def test_status_names_what_is_missing(env: dict[str, str]) -> None:
    done = ops(env, "status")
    assert done.returncode == 1
    assert "status   unhealthy" in done.stdout
    assert "unhealthy: queue ml: nobody consumes it" in done.stdout
    assert "last tick never" in done.stdout
    assert done.stderr == ""


def test_status_for_programs(env: dict[str, str]) -> None:
    document = json.loads(ops(env, "status", "--json").stdout)
    assert document["queues"] == {"ml": 0, "data": 0, "default": 0, "celery": 0}
    assert document["nodes"] == {}


def test_status_names_the_ray_nodes_that_are_not_alive(
    env: dict[str, str], ray: HttpService
) -> None:
    nodes = {"ray-2": "ALIVE", "ray-3": "DEAD"}
    listing = [
        {"node_id": name, "node_name": name, "state": state, "resources_total": {}}
        for name, state in nodes.items()
    ]
    ray.answers["/api/v0/nodes"] = Answer(body={"data": {"result": {"result": listing}}})
    asked = [f"--ray-node={name}" for name in (*nodes, "ray-4")]
    done = ops({**env, "CELRAY_RAY_ADDRESS": ray.url}, "status", *asked)
    assert done.returncode == 1
    for name in ("ray-3", "ray-4"):
        assert f"unhealthy: ray node {name}: the head does not list it as alive" in done.stdout
    assert "ray node ray-2" not in done.stdout
    assert "nodes 1 of 4" in done.stdout


@pytest.mark.parametrize(("wanted", "detail"), [("b2", "1 nodes"), ("b3", "not alive: b3")])
def test_verify_looks_for_the_ray_nodes_that_it_is_told(
    wanted: str, detail: str, app: Celery, configure: Configure, ray: HttpService
) -> None:
    settings = configure(ray_address=ray.url)
    asked = verify.Verification(app, settings, verify.Request(ray_nodes=[wanted]))
    assert asked.check("ray", asked._ray) == (wanted == "b2")
    assert detail in asked.checks[0].detail


def test_verify_refuses_what_it_does_not_know(env: dict[str, str]) -> None:
    done = ops(env, "verify", stdin='{"flowr": {}}')
    assert done.returncode == 2
    assert done.stderr == "celray: standard input: flowr: Extra inputs are not permitted\n"


def test_verify_without_redis_says_that_and_stops(env: dict[str, str]) -> None:
    done = ops({**env, "CELRAY_BROKER_URL": "redis://127.0.0.1:1/0"}, "verify", stdin="{}")
    report = Report.model_validate_json(done.stdout)
    assert done.returncode == 1
    assert [check.name for check in report.checks] == ["redis"]


def test_verify_uses_every_part(
    alone: Process,
    app: Celery,
    configure: Configure,
    ray: HttpService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert alone.popen.poll() is None
    configure(ray_address=ray.url)
    # No Ray here that could run a job, and the worker knows only that there is none.
    light = {
        name: sample
        for name, sample in samples.SAMPLES.items()
        if name.startswith("tasks.simple_tasks.") and not name.endswith("check_cluster_health")
    }
    monkeypatch.setattr(verify, "SAMPLES", light)
    flower = {"/api/workers": Answer(401)}
    with http_service(flower) as closed:
        request = verify.Request(
            flower=verify.Flower(url=closed.url, user="admin", password="x"),  # noqa: S106
            containers=[
                Container(name="redis-celery", state="running", health="healthy"),
                Container(name="flower", state="running", health="unhealthy", code="other"),
            ],
        )
        monkeypatch.setattr(verify, "_FLOWER_SECONDS", 0.5)
        report = verify.Verification(app, get_settings(), request).run()
    checks = {check.name: check for check in report.checks}
    right = ["redis", "ray", "workers answer", "tasks registered", "queues consumed"]
    right += ["queue ml", "queue default", "queue celery", "result round trip"]
    right += ["task ping", "task send_notification", "task cleanup_old_results"]
    assert {name: checks[name].detail for name in right if not checks[name].ok} == {}
    assert "different code runs" in checks["code versions"].detail
    assert checks["beat"].detail == "it has never ticked"
    assert checks["flower access"].detail == (
        "its API answers HTTP 401 with the password, it should be 200"
    )
    assert "it shows nothing of a ping" in checks["flower shows tasks"].detail
    assert checks["containers"].detail == "flower is running and unhealthy"
    assert not report.ok
    assert report.versions["ray head"] == "2.60.0"


def test_progress_is_told_while_there_is_some() -> None:
    step = {"phase": "training", "done": 3, "total": 20, "message": "boosting rounds"}
    told = progress_line({"status": "PROGRESS", "result": step})
    assert told == "training: 3 of 20 (boosting rounds)"
    assert progress_line({"status": "SUCCESS", "result": {"status": "success"}}) == "SUCCESS"
    assert progress_line({"status": "PENDING", "result": None}) == "PENDING"


def test_a_report_reads_well() -> None:
    report = Report(
        ok=False,
        started="2026-11-21T01:02:03+00:00",
        seconds=12.34,
        host={"name": "server"},
        versions={"celery": "5.7.0"},
        containers=[Container(name="flower", state="running", health="healthy", image="w:1")],
        checks=[
            Check(name="redis", ok=True, seconds=0.01, detail="fine | really"),
            Check(name="beat", ok=False, seconds=0.5, detail="it has never ticked"),
        ],
    )
    lines = markdown(report).splitlines()
    assert lines[0] == "# celray on server: 1 of 2 fail"
    assert lines[2] == "2026-11-21 01:02:03 UTC, 2 checks in 12.3 s."
    assert "- **beat**: it has never ticked" in lines
    assert "| ok   | redis | 0.01    | fine \\| really      |" in lines
    assert "| flower    | running | healthy | w:1   | -    |" in lines


def test_a_good_report_starts_with_the_good_news() -> None:
    report = Report(
        ok=True, started="2026-11-21T00:00:00+00:00", seconds=1, host={}, versions={},
        containers=[], checks=[],
    )  # fmt: skip
    assert markdown(report).startswith("# celray on this host: everything works\n")
