"""The memory service on a real socket over the embedded runtime, whose clock the test moves."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import uvicorn
from dapr.ext.workflow import WorkflowRuntime, WorkflowStatus
from dapr.ext.workflow.aio import DaprWorkflowClient
from fastapi import FastAPI

from everturn.contracts.events import MEMORY_APP_ID
from everturn.dapr.client import DaprClient
from everturn.dapr.wire import AsgiTransport, Request, Response
from everturn.dapr.workflows import Sidecar
from everturn.errors import TransientError
from everturn.memory.app import create_app
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.settings import Settings
from everturn.testing.clock import ManualClock

if TYPE_CHECKING:
    from agents import Model

_LIMIT_S = 30


class _Channel:
    """The runtime's way to the app, which is made after it."""

    def __init__(self) -> None:
        self.app: FastAPI | None = None

    async def send(self, request: Request) -> Response:
        if self.app is None:
            raise TransientError("the app has not started yet", kind="unreachable")
        return await AsgiTransport(self.app).send(request)

    async def close(self) -> None:
        """Nothing to close."""


class CuttableSidecar:
    """The service's sidecar, whose HTTP API can be taken away."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self.is_away = False

    @property
    def transport(self) -> "CuttableSidecar":
        return self

    @property
    def client(self) -> DaprClient:
        return DaprClient(self.transport)

    @property
    def workflows(self) -> DaprWorkflowClient:
        return self._sidecar.workflows

    async def start(self, worker: WorkflowRuntime) -> None:
        await self._sidecar.start(worker)

    async def stop(self) -> None:
        await self._sidecar.stop()

    async def send(self, request: Request) -> Response:
        if self.is_away:
            raise TransientError("cannot reach the sidecar", kind="unreachable")
        return await self._sidecar.transport.send(request)

    async def close(self) -> None:
        await self._sidecar.transport.close()


@dataclass(frozen=True, slots=True)
class MemoryService:
    """What a test has in its hands."""

    client: httpx2.AsyncClient
    runtime: EmbeddedRuntime
    sidecar: CuttableSidecar
    clock: ManualClock

    @property
    def dapr(self) -> DaprClient:
        return DaprClient(self.sidecar.transport)

    async def send(self, event: dict[str, Any]) -> str:
        """Post an event as the sidecar does; the status that it is answered with."""
        response = await self.client.post(
            "/conversations", json=event, headers={"content-type": "application/cloudevents+json"}
        )
        assert response.status_code == 200
        return str(response.json()["status"])

    async def history(self, session_id: str, query: str = "") -> list[dict[str, Any]]:
        response = await self.client.get(f"/conversations/{quote(session_id, safe='')}{query}")
        assert response.status_code == 200
        history: list[dict[str, Any]] = response.json()["history"]
        return history

    async def summary(self, user_id: str) -> str:
        return str((await self.client.get(f"/memories/{quote(user_id, safe='')}")).json()["user_summary"])

    async def metric(self, line: str) -> float:
        text = (await self.client.get("/metrics")).text
        return next((float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(f"{line} ")), 0.0)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Let time pass until `condition` holds."""
        async with asyncio.timeout(_LIMIT_S):
            while not await condition():
                self.clock.advance(0.5)
                await asyncio.sleep(0)

    async def until_summarised(self) -> None:
        """Let time pass until every summary workflow has ended, also those that were started by others."""

        async def all_ended() -> bool:
            states = [await self.sidecar.workflows.get_workflow_state(name) for name in await self.summaries()]
            return all(state is not None and state.runtime_status is WorkflowStatus.COMPLETED for state in states)

        await self.until(all_ended)

    async def summaries(self) -> list[str]:
        """The ids of the summary workflows that there have been."""
        return [name async for name in self.sidecar.workflows.iter_workflow_instance_ids()]


@asynccontextmanager
async def memory_service(
    data_dir: Path, settings: Settings | None = None, model: "Model | None" = None
) -> AsyncIterator[MemoryService]:
    """Start everything, end everything. The same `data_dir` again is a restart."""
    clock, channel = ManualClock(), _Channel()
    settings = settings or Settings(_env_file=None)
    token = settings.app_api_token.get_secret_value() if settings.app_api_token else None
    runtime = await EmbeddedRuntime.open(data_dir, options=RuntimeOptions(clock=clock, app_api_token=token))
    sidecar = CuttableSidecar(runtime.add_app(MEMORY_APP_ID, channel))
    channel.app = create_app(settings, sidecar, model)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # asyncio sets TCP_NODELAY on no other
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # so that a client can connect before the server accepts
        server = uvicorn.Server(uvicorn.Config(channel.app, http="httptools", log_config=None, lifespan="on"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await runtime.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=address, trust_env=False, timeout=_LIMIT_S) as client:
            yield MemoryService(client, runtime, sidecar, clock)
        server.should_exit = True
        await serving
    await runtime.stop(5)


def event(turn_id: str | None, sequence: int | None, **fields: object) -> dict[str, Any]:
    """The CloudEvent of a turn; `fields` replace those of its data, an `id` that of its envelope."""
    envelope_id = fields.pop("id", turn_id)
    data = {
        "event_type": "ConversationUpdated",
        "user_id": "junaid",
        "session_id": "s",
        "user_message": f"message of {turn_id}",
        "assistant_reply": f"reply of {turn_id}",
        "turn_id": turn_id,
        "sequence": sequence,
        "accepted_at": "2026-01-31T12:00:00.000Z",
        "occurred_at": "2026-01-31T12:00:01.000Z",
        **fields,
    }
    return {
        "specversion": "1.0",
        "id": envelope_id,
        "source": "chat-service",
        "type": "com.dapr.event.sent",
        "datacontenttype": "application/json",
        "time": "2026-01-31T12:00:02Z",
        "data": data,
    }
