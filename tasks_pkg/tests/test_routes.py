"""Tasks, routes and the catalogue agree, also for who reads them without importing anything."""

import ast
from pathlib import Path

import pytest
import yaml
from celery import Celery
from celray_testing import PACKAGE

from tasks.routes import ROUTES
from tasks.samples import SAMPLES

CATALOGUE = PACKAGE.parent / "roles" / "celray" / "defaults" / "main.yml"


def test_the_routes_are_a_literal_that_needs_no_import() -> None:
    tree = ast.parse(Path(PACKAGE, "src", "tasks", "routes.py").read_text())
    found = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    assert [ast.literal_eval(node.value) for node in found if node.value] == [ROUTES]
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_every_registered_task_is_routed_and_every_routed_one_exists(app: Celery) -> None:
    app.loader.import_default_modules()
    assert {name for name in app.tasks if name.startswith("tasks.")} == set(ROUTES)


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="the package is tested outside its repository")
def test_no_task_is_routed_to_a_queue_that_nobody_consumes_by_default() -> None:
    workers = yaml.safe_load(CATALOGUE.read_text())["celery_workers"]
    consumed = {queue for worker in workers for queue in worker["queues"]}
    assert set(ROUTES.values()) <= consumed
    assert "celery" in consumed  # where a client that names no queue lands


def test_samples_are_for_tasks_that_exist() -> None:
    assert set(SAMPLES) <= set(ROUTES)


def test_a_task_goes_where_it_is_routed(app: Celery) -> None:
    for name, queue in ROUTES.items():
        assert app.amqp.router.route({}, name)["queue"].name == queue
