"""The real state store, in a folder of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from everturn.dapr.client import DaprClient
from everturn.dapr.wire import AsgiTransport, Transport
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[Transport]:
    runtime = await EmbeddedRuntime.open(tmp_path, options=RuntimeOptions())
    yield runtime.add_app("chat-service", AsgiTransport()).transport
    await runtime.stop(1.0)


@pytest.fixture
def dapr(transport: Transport) -> DaprClient:
    return DaprClient(transport)
