"""The building blocks over a real database, called directly or over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TransientError
from everturn.runtime.building_blocks import AppView, BuildingBlocks
from everturn.runtime.database.database import Database
from everturn.runtime.http.api import DaprHttpApi
from everturn.runtime.http.asgi import as_asgi
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, Components
from everturn.runtime.state.store import STATE_STORES, OpenStateStore
from everturn.testing.clock import ManualClock

APP = "app-a"
# A test that would wait for ever fails instead.
PATIENCE_S = 20


@dataclass(slots=True)
class ScriptedApp:
    """An app behind its channel: keeps what it gets, answers as scripted, else SUCCESS. While `away`, not at all."""

    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Response | Exception | Awaitable[Response]] = field(default_factory=list)
    default: Response | Exception = field(default_factory=lambda: Response(200))
    received: list[Request] = field(default_factory=list)
    away: bool = False
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def send(self, request: Request) -> Response:
        if self.away:
            raise unreachable()
        if request.target == "/dapr/subscribe":
            return Response(200, {}, json.dumps(self.subscriptions).encode())
        answer = self.answers.pop(0) if self.answers else self.default
        async with self._changed:
            self.received.append(request)
            self._changed.notify_all()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Response) else await answer

    async def close(self) -> None: ...

    async def got(self, count: int) -> list[Request]:
        """Returns once `count` requests have come."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= count)
        return self.received

    def bodies(self) -> list[Any]:
        return [json.loads(request.body)["data"] for request in self.received]


def subscription(topic: str = "orders", **more: Any) -> dict[str, Any]:
    return {"pubsubname": "pubsub", "topic": topic, "route": f"/{topic}", **more}


def unreachable() -> TransientError:
    return TransientError("cannot reach the app", kind="unreachable")


@dataclass(slots=True)
class Rig:
    """An open runtime without its engine."""

    database: Database
    blocks: BuildingBlocks
    clock: ManualClock

    def api(self, app_id: str = APP, *, api_token: str | None = None) -> DaprHttpApi:
        return DaprHttpApi(AppView(app_id, self.blocks), api_token=api_token)

    def add_app(self, app_id: str, transport: Transport, *, token: str | None = None) -> AppChannel:
        channel = AppChannel(app_id, transport, token)
        self.blocks.channels.add(channel)
        self.blocks.broker.add_app(channel)
        return channel

    async def start(self, *app_ids: str) -> None:
        self.blocks.broker.start()
        for app_id in app_ids:
            await self.blocks.broker.subscribed(app_id)

    async def publish(self, data: Any, topic: str = "orders", app_id: str = APP) -> Response:
        request = Request(
            "POST", f"/v1.0/publish/pubsub/{topic}", {"content-type": "application/json"}, json.dumps(data).encode()
        )
        return await self.api(app_id).handle(request)

    async def written(self) -> None:
        """Everything that was given to the database so far is on disk, and its waiters have resumed."""
        await self.database.write(lambda _: None)

    async def settled(self) -> None:
        """Nothing is in flight any more: several rounds of the loop, each with its writes."""
        for _ in range(20):
            await self.written()


OpenRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def open_rig(tmp_path: Path) -> AsyncIterator[OpenRig]:
    """Opens a rig over the test's one database file; opened again, it is what a restart finds."""
    async with AsyncExitStack() as stack:

        async def open_one(
            components: Components = DEFAULT_COMPONENTS,
            clock: ManualClock | None = None,
            state_stores: Mapping[str, OpenStateStore] | None = None,
            kind: type[Database] = Database,
        ) -> Rig:
            database = await kind.open(tmp_path / "everturn.db")
            stack.push_async_callback(database.close)
            moved = clock or ManualClock()
            blocks = BuildingBlocks(database, moved, components, state_stores=state_stores or STATE_STORES)
            stack.push_async_callback(lambda: blocks.broker.stop(1))
            return Rig(database, blocks, moved)

        yield open_one


@pytest.fixture
async def rig(open_rig: OpenRig) -> Rig:
    return await open_rig()


@asynccontextmanager
async def served(api: DaprHttpApi, **headers: str) -> AsyncIterator[HttpTransport]:
    """`api` on a real socket of this machine."""
    config = uvicorn.Config(as_asgi(api.handle), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()
    task = asyncio.create_task(server.serve([socket]))
    port = socket.getsockname()[1]
    transport = HttpTransport(f"http://127.0.0.1:{port}", headers=headers)
    try:
        yield transport
    finally:
        await transport.close()
        server.should_exit = True
        await task
        socket.close()


@pytest.fixture(params=["in the process", "over a socket"])
async def sidecar(request: pytest.FixtureRequest, rig: Rig) -> AsyncIterator[Transport]:
    """The sidecar of `APP`, in the process and over a socket: the same tests hold for both."""
    if request.param == "in the process":
        yield rig.api()
        return
    async with served(rig.api()) as transport:
        yield transport
