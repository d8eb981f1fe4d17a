"""One life of the machine: the real system, composed over the file that outlives it, until it dies or all is done."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

from fastapi import FastAPI

from everturn.chat.app import ChatParts
from everturn.chat.app import app_over as chat_app_over
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.memory.app import MemoryParts
from everturn.memory.app import app_over as memory_app_over
from everturn.runtime.components import DEFAULT_COMPONENTS
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.http_call import BuildingBlocks
from everturn.runtime.lock import FolderLock
from everturn.runtime.workflows import WorkflowEngine
from everturn.settings import Settings
from everturn.sidecar.asgi_transport import AsgiTransport
from everturn.sidecar.wire import Transport
from everturn.sidecar.workflows import Sidecar
from everturn.testing.simulated_loop import SimulatedClock, SimulatedLoop
from tests.chaos.channel import UnreliableChannel
from tests.chaos.client import Client
from tests.chaos.disk import Crash, Disk
from tests.chaos.journal import Journal
from tests.chaos.models import SummaryModel, TurnModel
from tests.chaos.shell import Shell

DATABASE_FILE = "everturn.db"


@dataclass(slots=True)
class Surroundings:
    """What outlives a crash beside the file: the time, and who cannot be reached."""

    wall: float
    away: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a planted bug replaces."""

    disk: type[Disk] = Disk
    chat_sidecar: Callable[[Sidecar], Sidecar] = lambda sidecar: sidecar
    memory_sidecar: Callable[[Sidecar], Sidecar] = lambda sidecar: sidecar
    events: Callable[[Transport], Transport] = lambda channel: channel
    on_start: Callable[[Disk], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong in one life, beside what the client does: its death, jumps of the clock (seconds, by the write
    before which they come), the share of events that go astray."""

    crash: Crash | None = None
    jumps: dict[int, float] = field(default_factory=dict)
    astray: float = 0.0


Work = Callable[["Life"], Awaitable[None]]


class Life:
    """`run` returns True where `work` was done, False where the machine died before."""

    def __init__(self, folder: Path, number: int, journal: Journal, around: Surroundings, random: Random) -> None:
        self.number = number
        self.journal = journal
        self.around = around
        self.astray: dict[str, int] = {}
        self.is_dead = False
        self.jumps = 0
        self.jumped_s = 0.0
        self._folder = folder
        self._random = random

    def run(self, parts: Parts, weather: Weather, work: Work) -> bool:
        loop = SimulatedLoop()
        loop.set_exception_handler(lambda *_: None)
        self._lock = FolderLock.take(self._folder)
        self.disk = parts.disk.on(loop, self._folder / DATABASE_FILE, weather.crash, self._random)
        main = loop.create_task(self._main(parts, weather, work))

        def stop(_: object) -> None:
            if not self.is_dead:  # it may end in the very round in which the machine dies
                loop.stop()

        main.add_done_callback(stop)
        try:
            loop.run_forever()
            main.remove_done_callback(stop)
            return self._outcome(main)
        finally:
            self.is_dead = self.disk.dead = True
            _drop_all(loop)
            self.around.wall += loop.time() + self.jumped_s
            self._mark_cut_off()
            self._lock.release()
            self.disk.drop()
            loop.close()

    def _outcome(self, main: "asyncio.Task[None]") -> bool:
        if not main.done():
            return False
        main.result()
        return True

    def _died(self) -> None:
        self.is_dead = True
        asyncio.get_running_loop().stop()

    async def _main(self, parts: Parts, weather: Weather, work: Work) -> None:
        async with contextlib.AsyncExitStack() as stack:
            self.clock = SimulatedClock(self.around.wall)
            self.disk.died = self._died
            self.disk.noticed = lambda write: self._jump(weather.jumps.get(write, 0.0))
            parts.on_start(self.disk)
            await self._compose(parts, weather, stack)
            await work(self)
            # Not a graceful stop either: every life ends as if the plug were pulled.
            stack.pop_all()

    async def _compose(self, parts: Parts, weather: Weather, stack: contextlib.AsyncExitStack) -> None:
        blocks = BuildingBlocks.over(self.disk, self.clock, DEFAULT_COMPONENTS)
        engine = WorkflowEngine(self.disk, clock=self.clock)
        await engine.start()
        self.runtime = EmbeddedRuntime(self._lock, blocks, engine, RuntimeOptions(clock=self.clock))
        for what, away in self.around.away.items():
            self._apply(what, away)
        memory_app, chat_app = AsgiTransport(), AsgiTransport()
        channel = UnreliableChannel(memory_app, weather.astray, self._random, self.astray)
        memory_sidecar = parts.memory_sidecar(self.runtime.add_app(MEMORY_APP_ID, parts.events(channel)))
        chat_sidecar = parts.chat_sidecar(self.runtime.add_app(CHAT_APP_ID, chat_app))
        model = (self.journal, self.number, lambda: self.is_dead)
        memory, chat = shells()
        memory.parts = MemoryParts.over(_settings(), memory_sidecar, SummaryModel(*model))
        chat.parts = ChatParts.over(_settings(), chat_sidecar, TurnModel(*model))
        for app, transport in ((memory.app, memory_app), (chat.app, chat_app)):
            await stack.enter_async_context(_lifespan(app))
            transport.connect(app)
        await self.runtime.start()
        for what, away in self.around.away.items():
            self._apply(what, away)
        self.client = Client(self.journal, self.number, chat_app, memory_app, lambda: self.is_dead)

    def set_away(self, what: Literal["broker", "memory"], away: bool) -> None:
        """As if the broker or the memory service could not be reached, over crashes too."""
        self.around.away[what] = away
        self._apply(what, away)

    def _apply(self, what: str, away: bool) -> None:
        if what == "broker":
            self.runtime.set_away("broker", away)
        elif MEMORY_APP_ID in self.runtime._blocks.channels.by_id:
            self.runtime.set_app_away(MEMORY_APP_ID, away)

    def _jump(self, seconds: float) -> None:
        if seconds:
            self.jumps += 1
            self.jumped_s += seconds
            self.clock.jump(seconds)

    def _mark_cut_off(self) -> None:
        for call in self.journal.calls:
            if call.life == self.number and (call.answered is None or call.reply is not None):
                call.cut_off = call.reply is None or not self.disk.has_reply(call.reply)


@cache
def shells() -> tuple[Shell[MemoryParts], Shell[ChatParts]]:
    """Of the memory service and of the chat service."""
    return Shell(_settings(), memory_app_over), Shell(_settings(), chat_app_over)


@cache
def _settings() -> Settings:
    """Few and quick attempts, so that a turn's every end is near."""
    return Settings(
        _env_file=None,
        fetch_attempts=2,
        fetch_first_delay_s=0.1,
        generate_attempts=4,
        save_attempts=2,
        save_first_delay_s=0.1,
        keep_workflows_hours=0.1,
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.router.lifespan_context(app):
        yield


def _drop_all(loop: SimulatedLoop) -> None:
    """Nothing of the dead machine goes on: its tasks end here, where none of them can reach anything."""
    for _ in range(20):
        left = asyncio.all_tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    raise AssertionError(f"{len(left)} tasks do not end: {left}")
