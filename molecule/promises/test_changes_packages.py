"""A new task package: made from the template, deployed, and called like any other task."""

from __future__ import annotations

from celery import Celery
from deployment import REPO, Deployment, in_default_alone
from test_changes import check_then_deploy

pytestmark = in_default_alone("a layer of the images, which compose has no part in")

#: The containers with the code layer, to which the package is added.
CODE = ("celery-worker-ml", "celery-worker-data", "celery-worker-default", "celery-beat", "flower")


def test_a_package_from_the_template_is_deployed_and_called(
    deployment: Deployment, client: Celery
) -> None:
    place = deployment.state / "sky-maps"
    # The command of `make new-tasks`, from this test's environment.
    options = ["--quiet", "--defaults", "--data", "name=sky-maps", "--data", f"celray={REPO}"]
    deployment.command("copier", "copy", *options, str(REPO / "tasks_pkg/template"), str(place))
    package = {"name": "sky-maps", "source": "path", "location": str(place), "queues": "default"}
    deployment.configure("packages", celery_packages=[package])
    check_then_deploy(deployment, dict.fromkeys(CODE, "recreate"))

    # The client does not know our routes, so it names the queue of the inventory.
    greeted = client.send_task("sky_maps.tasks.greet", kwargs={"name": "Ada"}, queue="default")
    assert greeted.get(timeout=60) == {"status": "success", "greeting": "Hello, Ada!"}
    squared = client.send_task(
        "sky_maps.tasks.squares", kwargs={"numbers": [1.0, 2.0]}, queue="default"
    )
    result = squared.get(timeout=180)
    assert result["squares"] == [1.0, 4.0]
    assert result["ray_submission_id"] == f"celray-{squared.id}"


def test_the_package_is_a_few_kilobytes_of_the_images(deployment: Deployment) -> None:
    worker = deployment.look().containers["celery-worker-default"]["Config"]["Image"]
    layers = deployment.docker("history", "--no-trunc", "--format", "{{.Size}}", worker)
    assert layers.split()[0].endswith("kB"), layers
