"""The runtimes of one data folder, each with an app."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient

from everturn.cli.runtime import serve_peers
from everturn.dapr.wire import Request, Response
from everturn.dapr.workflows import Sidecar
from everturn.errors import TransientError
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.peers.folder import PeerFolder
from everturn.runtime.peers.router import PeerRouter
from everturn.testing.clock import ManualClock


class App:
    """An app that subscribes to `topics`, keeps what it is sent, and answers everything with `answer`."""

    def __init__(self, *topics: str) -> None:
        self.topics = topics
        self.requests: list[Request] = []
        self.answer = Response(200, {"content-type": "text/plain"}, b"here")
        self.away = False

    async def send(self, request: Request) -> Response:
        if self.away:
            raise TransientError("cannot reach the app", kind="unreachable")
        if request.target == "/dapr/subscribe":
            subscribed = [{"pubsubname": "pubsub", "topic": topic, "route": f"/{topic}"} for topic in self.topics]
            return Response(200, {}, json.dumps(subscribed).encode())
        self.requests.append(request)
        return self.answer

    async def close(self) -> None:
        """Nothing to close."""

    @property
    def heard(self) -> list[str]:
        return [json.loads(request.body)["data"] for request in self.requests]


@dataclass
class Running:
    """One runtime, its app, the end of both, and what the app's worker ran."""

    runtime: EmbeddedRuntime
    sidecar: Sidecar
    clock: ManualClock
    ending: contextlib.AsyncExitStack
    ran: list[str]

    @property
    def client(self) -> DaprWorkflowClient:
        return self.sidecar.workflows

    async def publish(self, text: str, topic: str = "news") -> int:
        request = Request("POST", f"/v1.0/publish/pubsub/{topic}", {"content-type": "text/plain"}, text.encode())
        return (await self.sidecar.transport.send(request)).status

    async def call(self, app_id: str) -> Response:
        return await self.sidecar.transport.send(Request("GET", f"/v1.0/invoke/{app_id}/method/where?x=1"))

    async def look(self) -> None:
        """Let the time pass after which it looks around."""
        self.clock.advance(1)
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.ending.aclose()


class Runtimes:
    """The runtimes of one data folder. `worker`: what makes an app's worker, which notes what it runs."""

    def __init__(self, folder: Path, worker: Callable[[str, list[str]], WorkflowRuntime] | None = None) -> None:
        self.folder = folder
        self._worker = worker
        self._running: list[Running] = []

    async def start(self, app_id: str, app: App | None = None) -> Running:
        ending = contextlib.AsyncExitStack()
        clock = ManualClock()
        folder = PeerFolder(self.folder, app_id)
        peers, options = PeerRouter(folder, clock), RuntimeOptions(clock=clock, app_stop_s=0)
        runtime = await EmbeddedRuntime.open(folder.own_folder, options=options, peers=peers)
        ending.push_async_callback(runtime.stop, 0)
        sidecar = runtime.add_app(app_id, app or App())
        ran: list[str] = []
        if self._worker is not None:
            await sidecar.start(self._worker(app_id, ran))
        await runtime.start()
        await ending.enter_async_context(serve_peers(runtime, peers, 0))
        await runtime.broker.subscribed(app_id)
        running = Running(runtime, sidecar, clock, ending, ran)
        self._running.append(running)
        return running

    async def end(self) -> None:
        for running in self._running:
            await running.stop()


@pytest.fixture
async def runtimes(tmp_path: Path) -> AsyncIterator[Runtimes]:
    made = Runtimes(tmp_path)
    try:
        yield made
    finally:
        await made.end()
