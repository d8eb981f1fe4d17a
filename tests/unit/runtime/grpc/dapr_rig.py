"""Two apps on the embedded runtime, as the SDK's `DaprClient` sees them: real sockets, both APIs."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dapr.aio.clients import DaprClient as AsyncDaprClient
from dapr.clients import DaprClient
from dapr.conf import settings as sdk_settings

from everturn.cli.process import WebServer
from everturn.dapr.wire import Request, Response
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions, ServedApp
from everturn.testing.clock import ManualClock

T = TypeVar("T")
PATIENCE_S = 30
HOST = "127.0.0.1"

COMPONENTS = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.redis, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: pubsub.redis, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: secretstore}
spec:
  type: secretstores.local.env
  version: v1
  metadata:
    - {name: prefix, value: RIG_}
"""


class ScriptedApp:
    """The app "callee": keeps what it is asked, answers as the test says."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer = Response(200, {"content-type": "text/plain"}, b"from the callee")

    async def send(self, request: Request) -> Response:
        if request.target == "/dapr/subscribe":
            return Response(404)
        self.requests.append(request)
        return self.answer

    async def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True)
class DaprRig:
    """`app` is the sidecar of "caller", which is reached at the two ports."""

    runtime: EmbeddedRuntime
    app: ServedApp
    callee: ScriptedApp
    clock: ManualClock
    http_port: int
    grpc_port: int

    async def sync(self, use: Callable[[DaprClient], T]) -> T:
        """What `use` does with the SDK's client, in a thread."""

        def run() -> T:
            with DaprClient(f"{HOST}:{self.grpc_port}") as client:
                return use(client)

        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(run)

    async def use(self, use: Callable[[AsyncDaprClient], Awaitable[T]]) -> T:
        """What `use` does with the SDK's asyncio client, in a loop of its own: making one blocks until it is heard."""

        async def run() -> T:
            async with AsyncDaprClient(f"{HOST}:{self.grpc_port}") as client:
                return await use(client)

        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(lambda: asyncio.run(run()))


@asynccontextmanager
async def dapr_rig(
    folder: Path, *, components: str = COMPONENTS, api_token: str | None = None
) -> AsyncIterator[DaprRig]:
    parts = folder / "components"
    parts.mkdir()
    (parts / "all.yaml").write_text(components, "utf-8")
    clock, callee = ManualClock(), ScriptedApp()
    options = RuntimeOptions(components_dir=parts, api_token=api_token, clock=clock)
    runtime = await EmbeddedRuntime.open(folder / "data", options=options)
    app = runtime.serve_app("caller", None)
    runtime.add_app("callee", callee)
    listener = socket.create_server((HOST, 0))
    web = WebServer(app.http, listener)
    grpc_port = await app.grpc.start(HOST, 0)
    await runtime.start()
    before: dict[str, Any] = dict(vars(sdk_settings))
    http_port = int(listener.getsockname()[1])
    sdk_settings.DAPR_HTTP_PORT = http_port
    sdk_settings.DAPR_API_TOKEN = api_token
    try:
        yield DaprRig(runtime, app, callee, clock, http_port, grpc_port)
    finally:
        vars(sdk_settings).clear()
        vars(sdk_settings).update(before)
        await web.stop(0)
        await app.grpc.stop(0)
        await runtime.stop(0)
