"""An operator's mistakes: one readable error each, all in one run, and nothing is changed."""

from __future__ import annotations

import json

from deployment import Deployment, in_default_alone

pytestmark = in_default_alone("what is wrong before compose is called")

MISTAKES = {
    "celery_workers": [
        {"name": "ml", "queue": ["ml"], "concurrency": 2, "memory": "1g"},
        # A name that no other promise has scaled: the value of make scale would override it.
        {"name": "idle", "queues": ["data"], "concurrency": 0, "memory": "1g"},
    ],
    "celray_home": "/proc/celray",
    "celray_port_flower": 22,
}
SAID = (
    "worker ml has an unknown key 'queue' (did you mean queues?)",
    "worker idle: concurrency is 0",
    "/proc/celray",
    "celray_home",
    "port 22",
    "sshd",
)


def test_mistakes_stop_before_anything_changes(deployment: Deployment) -> None:
    """The service keeps running; tests/test_preflight_*.py tries every kind of mistake."""
    before = deployment.look()
    run = deployment.play("site.yml", "--extra-vars", json.dumps(MISTAKES), code=2)
    after = deployment.look()
    for words in SAID:
        assert words in run.output
    assert "Traceback" not in run.output
    assert (after.running(), after.files) == (before.running(), before.files)


def test_wrong_user_is_named_with_the_way_out(deployment: Deployment) -> None:
    run = deployment.play("site.yml", "--extra-vars", "ansible_user=nobody-here", code=None)
    assert run.code != 0
    assert "nobody-here" in run.output
    assert "SSH_USER" in run.output
    assert "Traceback" not in run.output
