"""What a second deploy, and a second operator, must find."""

from __future__ import annotations

from deployment import Deployment, in_default_alone


def test_second_deploy_changes_nothing_and_restarts_nothing(deployment: Deployment) -> None:
    before = deployment.look()
    again = deployment.deploy("-vvv", "--diff")
    after = deployment.look()
    assert again.changed == 0
    assert not again.actions
    assert after.running() == before.running()
    assert (after.files, after.images) == (before.files, before.images)


@in_default_alone("how a host is asked for what it has, which no compose has a part in")
def test_second_operator_with_nothing_but_the_address_changes_nothing(
    deployment: Deployment,
) -> None:
    """With another inventory, another host name and no vault, the host's secrets are used."""
    before = deployment.look()
    again = deployment.make("deploy")
    after = deployment.look()
    assert again.changed == 0
    assert (after.running(), after.files) == (before.running(), before.files)


def test_second_operator_gets_the_same_credentials(deployment: Deployment, broker_url: str) -> None:
    said = deployment.make("credentials", logged=False).output
    pairs = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert pairs["CELERY_BROKER_URL"] == f"{broker_url}/0"
    assert pairs["CELERY_RESULT_BACKEND"] == f"{broker_url}/1"
    assert pairs["FLOWER_PASSWORD"] == deployment.canaries["flower_password"]
    assert pairs["RAY_AUTH_TOKEN"] == deployment.canaries["ray_auth_token"]
    assert pairs["RAY_DASHBOARD_URL"] == f"http://{deployment.address}:8265"
    assert set(pairs) >= {"FLOWER_URL", "FLOWER_USER", "RAY_ADDRESS"}


def test_status_names_every_worker_and_queue(deployment: Deployment) -> None:
    said = deployment.make("status").output
    for word in ("celery-worker-ml", "celery-worker-data", "celery-worker-default", "ray-head"):
        assert word in said
