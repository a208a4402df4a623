"""Fixtures: the deployment on several hosts that molecule has made, and clients outside of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

# What reaches a host is the same for one and for several.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "promises"))
from deployment import Deployment
from placement import PLACED


@pytest.fixture(scope="session")
def fleet() -> dict[str, Deployment]:
    state = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return {name: Deployment(state, name) for name in PLACED}


@pytest.fixture(scope="session")
def broker(fleet: dict[str, Deployment]) -> Deployment:
    """Return the host of Redis, from which a fleet's operations are run."""
    return fleet["broker"]


@pytest.fixture(scope="session")
def broker_url(broker: Deployment) -> str:
    return f"redis://:{broker.canaries['redis_password']}@{broker.address}:6380"


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    with Redis.from_url(f"{broker_url}/0", socket_timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def client(broker_url: str) -> Iterator[Celery]:
    """Yield a stock Celery client without any of our settings."""
    with Celery("somebody", broker=f"{broker_url}/0", backend=f"{broker_url}/1") as app:
        yield app
