"""Every test here runs on every runtime (`counts.SAME`): one that runs on one of them alone belongs elsewhere.

Those of the services run a third time, `apart`: on the embedded runtime with each service in a process of its own.

Starting a system takes seconds, so a runtime's tests share one; each has users and sessions of its own, and what it
kills is started again. With several processes, a runtime's tests stay in one of them.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.apart import Apart
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.counts import (  # noqa: F401 - pytest finds its hooks here
    RUNTIMES,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_xdist_make_scheduler,
)
from tests.conformance.replicas import pair, system  # noqa: F401 - fixtures
from tests.conformance.systems import Embedded, OnDapr, System
from tests.real_dapr import require_dapr

CANARY_KEY = "canary-key-of-the-model"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    """The model of both services. It says "hello" unless a test tells it what to say to its own messages."""
    async with ModelEndpoint(otherwise=completion("hello")) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=RUNTIMES)
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
        "EVERTURN_SUMMARY_QUIET_S": "2",
    }
    made = make_system(request.param, tmp_path_factory.mktemp(request.param), settings)
    try:
        made.start()
        yield made
    finally:
        await made.stop()


def make_system(runtime: str, folder: Path, settings: dict[str, str]) -> System:
    """A system on that runtime, not yet started. Skips if the machine has not what it needs."""
    if runtime == "embedded":
        return Embedded.make(folder, settings)
    if runtime == "apart":
        return Apart.make(folder, settings)
    return OnDapr.make(folder, settings, require_dapr(runtime))


@pytest_asyncio.fixture(loop_scope="session")
async def client(shared_system: System, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of a system that runs, and that runs again when the test is over."""
    shared_system.start()
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        yield Client(http, shared_system, request.node.name)
    shared_system.start()
