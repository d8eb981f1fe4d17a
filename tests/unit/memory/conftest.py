"""The stores of the memory service over a real state store: the embedded runtime's, on a real SQLite file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from everturn.dapr.client import DaprClient
from everturn.dapr.wire import Request, Response
from everturn.errors import TransientError
from everturn.memory.store import Stores
from everturn.runtime.building_blocks import AppView, BuildingBlocks
from everturn.runtime.clock import SystemClock
from everturn.runtime.database.database import Database
from everturn.runtime.http.api import DaprHttpApi
from everturn.runtime.resources.components import DEFAULT_COMPONENTS


class StateTransport:
    """A sidecar without sockets whose line can be cut at one write, before it or after it."""

    def __init__(self, api: DaprHttpApi) -> None:
        self._api = api
        self.writes: list[int] = []
        self.reads = 0
        self.cut_at: int | None = None
        self.cut_after = False
        self.is_away = False

    async def send(self, request: Request) -> Response:
        if self.is_away:
            raise TransientError("cannot reach the sidecar", kind="unreachable")
        if request.method == "GET" or request.target.endswith("/bulk"):
            self.reads += 1
            return await self._api.handle(request)
        number = len(self.writes)
        self.writes.append(len(request.body))
        if number == self.cut_at and not self.cut_after:
            raise TransientError("cut before the write", kind="unreachable")
        response = await self._api.handle(request)
        if number == self.cut_at:
            raise TransientError("cut after the write", kind="unreachable")
        return response

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[StateTransport]:
    database = await Database.open(tmp_path / "state.db")
    blocks = BuildingBlocks(database, SystemClock(), DEFAULT_COMPONENTS)
    yield StateTransport(DaprHttpApi(AppView("agent-memory-service", blocks)))
    await database.close()


@pytest.fixture
def dapr(transport: StateTransport) -> DaprClient:
    return DaprClient(transport)


@pytest.fixture
def stores(dapr: DaprClient) -> Stores:
    return Stores.create(dapr)
