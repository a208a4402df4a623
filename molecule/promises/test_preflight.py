"""An operator's mistake: one readable error, and nothing has changed."""

from __future__ import annotations

import json

import pytest
from deployment import Deployment

WRONG = {
    "a misspelt key": (
        {"celery_workers": [{"name": "ml", "queue": ["ml"], "concurrency": 2, "memory": "1g"}]},
        ("queue", "did you mean queues"),
    ),
    "a queue that nobody consumes": (
        {
            "celery_workers": [
                {"name": "ml", "queues": ["ml"], "concurrency": 2, "memory": "1g"},
                {"name": "data", "queues": ["data"], "concurrency": 2, "memory": "1g"},
            ]
        },
        ("default", "no worker consumes"),
    ),
    "concurrency 0": (
        {"celery_workers": [{"name": "ml", "queues": ["ml"], "concurrency": 0, "memory": "1g"}]},
        ("worker ml", "concurrency is 0"),
    ),
    "a path that cannot be written": ({"celray_home": "/proc/celray"}, ("/proc", "celray_home")),
    "a port that sshd has": ({"celray_port_flower": 22}, ("port 22", "sshd")),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_stops_before_anything_changes(deployment: Deployment, mistake: str) -> None:
    variables, words = WRONG[mistake]
    before = deployment.look()
    run = deployment.play("site.yml", "--extra-vars", json.dumps(variables), code=None)
    after = deployment.look()
    assert run.code != 0
    for word in words:
        assert word in run.output
    assert "Traceback" not in run.output
    assert (after.running(), after.files) == (before.running(), before.files)


def test_wrong_user_is_named_with_the_way_out(deployment: Deployment) -> None:
    run = deployment.play("site.yml", "--extra-vars", "ansible_user=nobody-here", code=None)
    assert run.code != 0
    assert "nobody-here" in run.output
    assert "SSH_USER" in run.output
    assert "Traceback" not in run.output
