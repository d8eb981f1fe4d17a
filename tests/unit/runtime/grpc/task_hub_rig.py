"""A workflow engine behind a real gRPC socket; workers and clients are the SDK's own, or raw streams."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from dapr.ext.workflow import DaprWorkflowClient as SyncClient
from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient as AsyncClient

from everturn.dapr.sdk.worker_thread import close_client
from everturn.runtime.database.database import Database
from everturn.runtime.grpc.remote_worker import RemoteWorker
from everturn.runtime.grpc.server import GrpcServer
from everturn.runtime.grpc.task_hub import task_hub_handlers
from everturn.runtime.workflow.engine import WorkflowEngine
from everturn.testing.clock import ManualClock
from tests.unit.runtime.grpc.raw_worker import RawWorker

# How long a test waits for what must happen; it never passes by waiting.
PATIENCE_S = 30
# Of one connection at once: few, so that a test can have more.
MAX_CALLS = 200
MAX_CONNECTIONS = 150
HOST = "127.0.0.1"


class TaskHubRig:
    """Open with `open`; `close` ends everything that came from here, the SDK's threads too."""

    def __init__(self, folder: Path, api_token: str | None = None) -> None:
        self.clock = ManualClock()
        self.port = 0
        self._path = folder / "everturn.db"
        self._api_token = api_token
        self._workers: list[WorkflowRuntime] = []
        self._raw: list[RawWorker] = []
        self._channels: list[grpc.aio.Channel] = []
        self._async_clients: list[AsyncClient] = []
        self._sync_clients: list[SyncClient] = []

    async def open(self) -> None:
        self.database = await Database.open(self._path)
        self.engine = WorkflowEngine(self.database, clock=self.clock)
        await self.engine.start()
        self.remote = RemoteWorker(self.clock)
        self.engine.register("app", self.remote)
        handlers = task_hub_handlers(
            self.engine.task_hub("app"), self.remote, on_connect=lambda: self.engine.wake("app")
        )
        self.server = GrpcServer(
            [handlers], api_token=self._api_token, max_calls=MAX_CALLS, max_connections=MAX_CONNECTIONS
        )
        self.port = await self.server.start(HOST, self.port)

    async def stop_runtime(self) -> None:
        await self.server.stop(0)
        await self.engine.stop(0)
        await self.database.close()

    async def reopen(self) -> None:
        """The runtime again on the same file and port, as after a crash; workers and clients are left as they are."""
        await self.stop_runtime()
        await self.open()

    async def close(self) -> None:
        for raw in self._raw:
            await raw.leave()
        for worker in self._workers:
            await asyncio.to_thread(worker.shutdown)
        for client in self._async_clients:
            await close_client(client)
        for sync_client in self._sync_clients:
            await asyncio.to_thread(sync_client.close)
        for channel in self._channels:
            await channel.close(None)
        await self.stop_runtime()

    async def sdk_worker(self, *, workflows: list[Any], activities: list[Any] | None = None) -> WorkflowRuntime:
        """A worker of the SDK, with its threads, that is connected."""
        worker = WorkflowRuntime(host=HOST, port=str(self.port))
        for function in workflows:
            worker.register_workflow(_unmarked(function), name=function.__name__)
        for function in activities or []:
            worker.register_activity(_unmarked(function), name=function.__name__)
        await asyncio.to_thread(worker.start)
        self._workers.append(worker)
        return worker

    async def raw_worker(self, *capabilities: int) -> RawWorker:
        """A stream of work items whose answers the test gives."""
        before = self.remote.connected
        raw = RawWorker(self.channel(), capabilities)
        self._raw.append(raw)
        await until(lambda: self.remote.connected > before)
        return raw

    def channel(self) -> grpc.aio.Channel:
        """On a connection of its own, as of another process."""
        own = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(f"{HOST}:{self.port}", options=own)
        self._channels.append(channel)
        return channel

    def client(self) -> AsyncClient:
        client = AsyncClient(host=HOST, port=str(self.port))
        self._async_clients.append(client)
        return client

    def sync_client(self) -> SyncClient:
        client = SyncClient(host=HOST, port=str(self.port))
        self._sync_clients.append(client)
        return client


def _unmarked(function: Any) -> Any:
    """The function without the marks that the SDK leaves on what was registered once."""
    for mark in ("_workflow_registered", "_activity_registered", "_dapr_alternate_name"):
        function.__dict__.pop(mark, None)
    return function


async def until(condition: Callable[[], bool]) -> None:
    """Go on with the loop until `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any change in the loop may be the one
            await asyncio.sleep(0)
