"""Converging a project on a real engine: exactly what differs is touched, in both generations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
import pytest
from engine import Project, service
from generations import GENERATIONS

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("image")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    engine.make_image(tmp_path_factory.mktemp("image"))
    yield
    engine.docker("rmi", "--force", engine.IMAGE)


@pytest.fixture(params=GENERATIONS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """Two services, the first with a plain and a secret file."""
    made = Project(tmp_path / "projects/example", GENERATIONS[request.param]())
    made.files = {"files/settings": "one\n"}
    made.secret_files = {"files/password": "canary-1"}
    mounts = [made.mount("settings"), made.mount("password")]
    made.services = {"alpha": service("alpha", volumes=mounts), "beta": service("beta")}
    yield made
    made.remove()


def verbs(result: dict[str, Any]) -> dict[str, str]:
    assert not result.get("failed"), result
    return {name: verb for name, (verb, _) in result["actions"].items()}


def test_a_project_converges_and_only_what_differs_is_touched(project: Project) -> None:
    # Check mode says what a first deploy would do and does nothing.
    looked = project.converge(check=True)
    assert verbs(looked) == {"alpha": "create", "beta": "create"}
    assert project.running() == {}
    assert not project.folder.exists()

    assert verbs(project.converge()) == {"alpha": "create", "beta": "create"}
    first = project.running()
    assert set(first) == {"alpha", "beta"}

    # A second deploy changes nothing.
    assert project.converge()["changed"] is False
    assert project.running() == first

    # One changed service is recreated, the other is not even restarted.
    project.services["beta"]["environment"] = {"LEVEL": "2"}
    looked = project.converge(check=True)
    assert looked["actions"] == {"beta": ["recreate", "environment changed"]}
    assert project.running() == first
    assert project.converge()["actions"] == looked["actions"]
    second = project.running()
    assert second["alpha"] == first["alpha"]
    assert second["beta"][0] != first["beta"][0]

    # A changed file recreates what mounts it.
    project.files["files/settings"] = "two\n"
    result = project.converge()
    assert result["actions"] == {"alpha": ["recreate", "files/settings changed"]}
    third = project.running()
    assert third["beta"] == second["beta"]
    box = f"{engine.PREFIX}-alpha"
    assert engine.docker("exec", box, "busybox", "cat", "/etc/settings") == "two\n"

    # What stopped is started again, what is no longer defined goes.
    engine.docker("stop", box)
    assert verbs(project.converge()) == {"alpha": "start"}
    assert project.running()["alpha"][0] == third["alpha"][0]
    del project.services["beta"]
    assert verbs(project.converge()) == {"beta": "remove"}
    assert set(project.running()) == {"alpha"}


def test_a_failing_container_says_why_in_its_own_words(project: Project) -> None:
    project.services = {"broken": service("broken", "echo no such queue: 42 >&2; exit 7")}
    result = project.converge()
    assert result["failed"]
    assert f"{engine.PREFIX}-broken keeps failing (exit 7)" in result["msg"]
    assert "no such queue: 42" in result["msg"]


def test_files_have_their_modes_and_a_secret_is_shown_to_nobody(project: Project) -> None:
    del project.services["beta"]
    results = [project.converge(check=True), project.converge()]
    project.secret_files["files/password"] = "canary-2"
    results += [project.converge(check=True), project.converge()]
    assert results[-1]["actions"] == {"alpha": ["recreate", "files/password changed"]}
    for result in results:
        assert "canary" not in "".join([*result["lines"], *result["detail"]])
        assert any("password: secret" in row for row in result["detail"])
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in project.folder.rglob("*")}
    assert modes == {
        "files": "0o700",
        "settings": "0o440",
        "password": "0o400",
        "compose.yml": "0o640",
        "state.json": "0o640",
    }
    assert "canary" not in engine.docker("inspect", f"{engine.PREFIX}-alpha")


def test_a_dollar_sign_is_never_interpolated(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAK", "interpolated")
    project.services = {"dollar": service("dollar", environment={"TEXT": "$LEAK ${LEAK} $$"})}
    assert verbs(project.converge()) == {"dollar": "create"}
    printed = engine.docker("exec", f"{engine.PREFIX}-dollar", "sh", "-c", 'echo "$TEXT"')
    assert printed == "$LEAK ${LEAK} $$\n"


def test_an_unhealthy_container_is_not_called_deployed(project: Project) -> None:
    check = {"test": ["CMD", "busybox", "false"], "interval": "1s", "retries": 1}
    words = "echo I cannot reach the broker; exec busybox sleep 60"
    project.services = {"sick": service("sick", words, healthcheck=check, init=True)}
    project.wait_seconds = 4
    result = project.converge()
    assert result["failed"]
    assert "sick is not healthy after 4 s (running, unhealthy)" in result["msg"]
    assert "I cannot reach the broker" in result["msg"]


@pytest.mark.parametrize("may_restart", [True, False])
def test_a_service_that_needs_another_host_may_restart_until_that_is_there(
    may_restart: bool, project: Project
) -> None:
    """A Ray node whose head comes up later: `ray start` gives up, and is started again."""
    tries = project.folder.parent / "tries"
    tries.mkdir(parents=True)
    words = "echo . >>/tries/all; [ $(wc -l </tries/all) -gt 5 ] && exec busybox sleep 60; exit 1"
    project.services = {
        "patient": service(
            "patient",
            words,
            restart="unless-stopped",
            healthcheck={"test": ["CMD", "busybox", "true"], "interval": "1s"},
            init=True,
            volumes=[f"{tries}:/tries"],
        )
    }
    project.may_restart = may_restart
    result = project.converge()
    assert bool(result.get("failed")) != may_restart
    if not may_restart:
        assert "patient keeps failing (exit 1)" in result["msg"]


# -- one by one, behind a stand-in ---------------------------------------------------------------

#: Leaves a line for every container that is asked to prove itself, and for every one that ends.
DIARY = "/diary/lines"


def working(project: Project, name: str, level: str) -> dict[str, Any]:
    """A service that notes its start and its end."""
    note = f'echo "{name} {level} $0" >> {DIARY}'
    script = (
        f"trap '{note.replace('$0', 'ends')}; exit 0' TERM;"
        f" {note.replace('$0', 'begins')}; while :; do busybox sleep 0.1; done"
    )
    diary = project.folder.parent / "diary"
    diary.mkdir(parents=True, exist_ok=True)
    return service(name, script, environment={"LEVEL": level}, volumes=[f"{diary}:/diary"])


def diary(project: Project) -> list[str]:
    return (project.folder.parent / "diary/lines").read_text().splitlines()


def test_behind_a_stand_in_a_service_is_never_without_a_worker(project: Project) -> None:
    project.services = {name: working(project, name, "1") for name in ("alpha", "beta")}
    project.converge()
    project.services["alpha"] = working(project, "alpha", "2")
    beta = project.running()["beta"]

    result = project.converge(canary=f'echo "canary $LEVEL" >> {DIARY}')

    assert verbs(result) == {"alpha": "recreate"}
    assert "its stand-in worked after" in result["told"][0]
    assert diary(project)[2:] == [
        "alpha 2 begins",  # the stand-in
        "canary 2",
        "alpha 1 ends",
        "alpha 2 begins",
        "canary 2",
        "alpha 2 ends",  # the stand-in
    ]
    assert project.running()["beta"] == beta
    assert set(project.running()) == {"alpha", "beta"}
    assert not (project.folder / "stand-in.yml").exists()
    again = project.converge()
    assert not again["changed"], again


def test_a_new_version_whose_canary_fails_leaves_the_old_one_at_work(project: Project) -> None:
    project.services = {"alpha": working(project, "alpha", "1")}
    project.converge()
    before = project.running()
    files = {path: path.read_text() for path in project.folder.rglob("*") if path.is_file()}
    project.services["alpha"] = working(project, "alpha", "broken")

    result = project.converge(canary="echo no answer in 30 s >&2; exit 1")

    assert result["failed"]
    assert "alpha does not work; the old one never stopped" in result["msg"]
    assert "no answer in 30 s" in result["msg"]
    assert project.running() == before
    assert files == {p: p.read_text() for p in project.folder.rglob("*") if p.is_file()}


def test_a_new_version_that_fails_in_the_place_of_the_old_one_gives_way_to_it(
    project: Project,
) -> None:
    project.services = {"alpha": working(project, "alpha", "1")}
    project.converge()
    project.services["alpha"] = working(project, "alpha", "2")

    # Right for the stand-in, wrong for what takes the old one's place.
    result = project.converge(canary=f"test $(busybox grep -c '2 begins' {DIARY}) = 1")

    assert result["failed"]
    assert set(project.running()) == {"alpha"}
    assert diary(project)[-1] == "alpha 1 begins"
    project.services["alpha"] = working(project, "alpha", "1")
    assert project.converge()["changed"] is False
