"""The main path: the modules that a turn enters from `POST /chat/` to its reply. A newcomer can read all of them."""

import asyncio
import gc
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from everturn.dapr.wire import Request, Response, Transport
from everturn.runtime.embedded import EmbeddedRuntime
from everturn.testing.clock import ManualClock
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import running

MOST_MODULES = 49
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

    async with running(tmp_path, endpoint, clock, to_memory=hold, with_faults=False) as system:
        await system.say("warm up")
        await system.history_of(2)
        await system.until(lambda: is_at_rest(system.runtime), moving=False)
        held[0].release.clear()
        gc.collect()  # a workflow that is dropped is entered once more, to be closed

        with Entered() as entered:
            reply = await system.say("hello")
        held[0].release.set()

    assert reply.status_code == 200
    assert len(entered.modules) <= MOST_MODULES, sorted(entered.modules)


async def is_at_rest(runtime: EmbeddedRuntime) -> bool:
    """Whether the turn before is over, with its event, so that nothing of it is taken for the next one's."""
    return runtime.broker.counts.delivered > 0 and runtime.engine.active_instances == 0
