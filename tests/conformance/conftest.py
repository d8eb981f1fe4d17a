"""Every test here runs on both runtimes: `embedded` always, `dapr` with EVERTURN_CONFORMANCE=both (make conformance).

Starting a system takes seconds, so a runtime's tests share one; each has users and sessions of its own, and what it
kills is started again.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from tools.dapr.build import are_built

from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.systems import Embedded, OnDapr, System

CANARY_KEY = "canary-key-of-the-model"


def require_dapr() -> None:
    """Skip where real Dapr is not wanted or not built; where CI wants it, that it is missing is a failure."""
    if os.environ.get("EVERTURN_CONFORMANCE") != "both":
        pytest.skip("the tests on real Dapr run with `make conformance`")
    if not are_built():
        if os.environ.get("CI"):
            pytest.fail("Dapr is not built: run `make dapr`")
        pytest.skip("Dapr is not built: `make dapr` builds it and needs Go")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    """The model of both services. It says "hello" unless a test tells it what to say to its own messages."""
    async with ModelEndpoint(otherwise=completion("hello")) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["embedded", "dapr"])
async def shared_system(
    request: pytest.FixtureRequest, endpoint: ModelEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    settings = {
        "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
        "EVERTURN_MODEL_NAME": "scripted",
        "EVERTURN_MODEL_API_KEY": CANARY_KEY,
        "EVERTURN_GENERATE_ATTEMPTS": "3",
        "EVERTURN_GENERATE_FIRST_DELAY_S": "0.1",
        # Enough to outlast a restart of the memory service.
        "EVERTURN_FETCH_ATTEMPTS": "1000",
        "EVERTURN_FETCH_MAX_DELAY_S": "0.5",
    }
    system = _make(request.param, tmp_path_factory.mktemp(request.param), settings)
    try:
        system.start()
        yield system
    finally:
        await system.stop()


def _make(runtime: str, folder: Path, settings: dict[str, str]) -> System:
    if runtime == "embedded":
        return Embedded.make(folder, settings)
    require_dapr()
    return OnDapr.make(folder, settings)


@pytest_asyncio.fixture(loop_scope="session")
async def client(shared_system: System, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of a system that runs, and that runs again when the test is over."""
    shared_system.start()
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        yield Client(http, shared_system, request.node.name)
    shared_system.start()
