"""Fixtures: the deployment that molecule has made, and clients that reach it from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra
from celery import Celery
from deployment import Deployment
from redis import Redis
from testinfra.host import Host


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    return Deployment(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]))


@pytest.fixture(scope="session")
def host(deployment: Deployment) -> Host:
    """Return testinfra's host over SSH, as root through sudo."""
    config = deployment.state / "ssh_config"
    return testinfra.get_host(f"ssh://{deployment.name}?ssh_config={config}&sudo=true")


@pytest.fixture(scope="session")
def broker_url(deployment: Deployment) -> str:
    """Return what a client of the old deployment knows: password, host, port."""
    password = deployment.canaries["redis_password"]
    return f"redis://:{password}@{deployment.address}:6380"


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    with Redis.from_url(f"{broker_url}/0", socket_timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def operator_url(deployment: Deployment) -> str:
    """Return an operator's access to Redis, with a user of his own."""
    password = deployment.canaries["redis_operator_password"]
    return f"redis://operator:{password}@{deployment.address}:6380"


@pytest.fixture
def operators_redis(operator_url: str) -> Iterator[Redis]:
    with Redis.from_url(f"{operator_url}/0", socket_timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def operator(operator_url: str) -> Iterator[Celery]:
    """Yield a stock Celery client with an operator's credentials."""
    with Celery("desk", broker=f"{operator_url}/0", backend=f"{operator_url}/1") as app:
        yield app


@pytest.fixture(scope="session")
def client(broker_url: str) -> Iterator[Celery]:
    """Yield a stock Celery client without any of our settings."""
    with Celery("somebody", broker=f"{broker_url}/0", backend=f"{broker_url}/1") as app:
        yield app
