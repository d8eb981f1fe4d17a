"""The main path: the modules that a turn enters from the socket to its reply, as `make up` serves it, with component
files, listener and log. A newcomer can read all of them.
"""

import asyncio
import gc
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2

from everturn import logs
from everturn.cli.process import WebServer, bounded, listen
from everturn.dapr.wire import Request, Response, Transport
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running

MOST_MODULES = 51
COMPONENTS = Path(__file__).parents[2] / "components"
# Of `compose` only the switches of faults are on the way, which production does not have.
_NOT_PRODUCTION = ("everturn.testing", "everturn.compose")


class HeldEvents:
    """The way to the memory service, on which events wait until `release`: what comes after the reply is no part."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.release = asyncio.Event()
        self.release.set()

    async def send(self, request: Request) -> Response:
        if request.method == "POST":
            await self.release.wait()
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()


class Entered:
    """The modules of Everturn in which a function is called in this thread, while the block runs."""

    def __init__(self) -> None:
        self.modules: set[str] = set()

    def __enter__(self) -> "Entered":
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("everturn.") and not name.startswith(_NOT_PRODUCTION):
            self.modules.add(name)


async def test_a_turn_enters_few_modules(tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint) -> None:
    held: list[HeldEvents] = []

    def hold(inner: Transport) -> Transport:
        held.append(HeldEvents(inner))
        return held[0]

    production: Any = {"with_faults": False, "components_dir": COMPONENTS}
    async with running(tmp_path, endpoint, clock, to_memory=hold, **production) as inside, served(inside) as chat:
        system = replace(inside, chat=chat)
        await system.say("warm up")
        await system.history_of(2)
        await system.until(lambda: is_at_rest(system.runtime), moving=False)
        held[0].release.clear()
        gc.collect()  # a workflow that is dropped is entered once more, to be closed

        logs.configure(stream=io.StringIO())
        with Entered() as entered:
            reply = await system.say("hello")
        held[0].release.set()

    assert reply.status_code == 200
    assert len(entered.modules) <= MOST_MODULES, sorted(entered.modules)


@asynccontextmanager
async def served(system: System) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the chat service behind the listener of the command."""
    with listen("127.0.0.1", 0, "EVERTURN_CHAT_PORT") as listener:
        server = WebServer(system.composed.chat.app, listener, bounded())
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=address, trust_env=False) as client:
            yield client
        await server.stop(1)


async def is_at_rest(runtime: EmbeddedRuntime) -> bool:
    """Whether the turn before is over, with its event, so that nothing of it is taken for the next one's."""
    return runtime.broker.counts.delivered > 0 and runtime.engine.active_instances == 0
