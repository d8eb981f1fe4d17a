"""The whole system in the test's own loop: runtime, both services, a scripted model, a clock that tests move."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from everturn import compose
from everturn.dapr.client import DaprClient
from everturn.dapr.wire import Request, Response, Transport
from everturn.dapr.workflows import Sidecar
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.settings import Settings
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.paid_turn import OURS
from tests.system.paid_assistant import keys, made

# For what hangs, not a measure.
PATIENCE_S = 30.0
ASYNC = {"Prefer": "respond-async"}


@dataclass
class System:
    """A running system; `chat` and `memory` are clients of the two services."""

    composed: compose.System
    faults: compose.Faults
    settings: Settings
    chat: httpx2.AsyncClient
    memory: httpx2.AsyncClient
    clock: ManualClock
    endpoint: ModelEndpoint

    @property
    def runtime(self) -> EmbeddedRuntime:
        return self.composed.runtime

    @property
    def of_the_sidecar(self) -> dict[str, str]:
        """The header by which the memory service knows its sidecar."""
        return {"dapr-api-token": self.runtime.options.app_api_token or ""}

    async def purge(self) -> int:
        """What both services do every few minutes; how many workflows it took away."""
        return await self.composed.chat.parts.purge() + await self.composed.memory.parts.purge()

    async def say(self, text: str, *, user: str = "ann", session: str = "s", **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"user_id": user, "text": text, "metadata": {"session_id": session}}
        return await self.chat.post("/chat/", json=body, headers=named)

    async def accept(self, text: str, *, user: str = "ann", session: str = "s", **headers: str) -> str:
        """Send `text` without waiting for its reply; the turn's id."""
        response = await self.say(text, user=user, session=session, Prefer="respond-async", **headers)
        assert response.status_code == 202, response.text
        return str(response.json()["turn_id"])

    async def turn(self, turn_id: str) -> dict[str, Any]:
        response = await self.chat.get(f"/turns/{turn_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def steer(self, turn_id: str, how: str) -> httpx2.Response:
        return await self.chat.post(f"/turns/{turn_id}/{how}")

    async def ended(self, turn_id: str) -> dict[str, Any]:
        """The turn once it has ended. The clock goes on to the next alarm whenever nothing else happens."""

        async def has_ended() -> bool:
            return (await self.turn(turn_id))["status"] in ("completed", "failed", "cancelled")

        await self.until(has_ended)
        return await self.turn(turn_id)

    async def until(self, condition: Callable[[], Awaitable[bool]], *, moving: bool = True) -> None:
        """Wait for `condition`; with `moving`, let the time pass that the runtime waits for."""
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():
                wait_s = self.clock.next_alarm_in_s
                if moving and wait_s is not None:
                    self.clock.advance(max(0.0, wait_s))
                await asyncio.sleep(0)

    async def history(self, session: str = "s") -> list[str]:
        """The contents of a conversation, in order."""
        response = await self.memory.get(f"/conversations/{session}")
        assert response.status_code == 200, response.text
        return [entry["content"] for entry in response.json()["history"]]

    async def history_of(self, count: int, session: str = "s") -> list[str]:
        """The same, once it has `count` entries."""

        async def is_there() -> bool:
            return len(await self.history(session)) >= count

        await self.until(is_there)
        return await self.history(session)

    def questions(self) -> list[list[dict[str, Any]]]:
        """The messages of each request of a turn to the model; a summary's offers no tools."""
        return [request.body["messages"] for request in self.endpoint.requests if request.body.get("tools")]


Start = Callable[..., Awaitable[System]]


class Gate:
    """The transport of the chat service's sidecar, in which the first request that is `wanted` waits for `release`."""

    def __init__(self) -> None:
        self.wanted: Callable[[Request], bool] = lambda _: False
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    def before(self, sidecar: Sidecar) -> Sidecar:
        self._inner = sidecar.transport
        return compose.SidecarOver(sidecar, DaprClient(self), self)

    async def send(self, request: Request) -> Response:
        if not self.reached.is_set() and self.wanted(request):
            self.reached.set()
            await self.release.wait()
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()


@asynccontextmanager
async def running(
    data_dir: Path,
    endpoint: ModelEndpoint,
    clock: ManualClock,
    *,
    gate: Gate | None = None,
    to_memory: Callable[[Transport], Transport] = lambda transport: transport,
    memory_sidecar: Callable[[Sidecar], Sidecar] = lambda sidecar: sidecar,
    with_faults: bool = True,
    components_dir: Path | None = None,
    **given: Any,
) -> AsyncIterator[System]:
    """A system over `data_dir`, with `gate` between the chat service and its sidecar; `given` are settings.

    `to_memory` wraps the runtime's way to the memory service, `memory_sidecar` what that has of the runtime; without
    `with_faults` there are no switches, as in production.
    """
    settings = Settings(
        _env_file=None,
        data_dir=data_dir,
        model_base_url=endpoint.base_url,
        model_name="scripted",
        **given,
    )
    faults = compose.Faults()
    wiring = compose.Wiring(
        clock=clock,
        faults=faults if with_faults else None,
        to_memory=to_memory,
        memory_sidecar=memory_sidecar,
        components_dir=components_dir,
    )
    if gate is not None:
        wiring = replace(wiring, chat_sidecar=gate.before)
    async with AsyncExitStack() as stack:
        runtime = await compose.open_runtime(stack, settings, wiring)
        composed = await compose.start_services(stack, settings, runtime, wiring)
        chat = await stack.enter_async_context(_client(composed.chat.app))
        memory = await stack.enter_async_context(_client(composed.memory.app))
        yield System(composed, faults, settings, chat, memory, clock, endpoint)


def _client(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost", timeout=PATIENCE_S)


@pytest.fixture
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    """Answers "hello" unless told otherwise."""
    async with ModelEndpoint(otherwise=completion("hello")) as started:
        yield started


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def system(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> AsyncIterator[System]:
    async with running(tmp_path, endpoint, clock) as started:
        yield started


@pytest.fixture
def fresh() -> None:
    """Nothing has been done by the tools of `paid_assistant`."""
    made.clear()
    keys.clear()


@pytest.fixture
async def ours(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, fresh: None) -> AsyncIterator[System]:
    """With `paid_assistant`."""
    async with running(tmp_path, endpoint, clock, assistant=OURS) as started:
        yield started
