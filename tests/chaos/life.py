"""One life of the machine: the real system, composed over the file that outlives it, until it dies or all is done."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal

from fastapi import FastAPI

from everturn.chat.app import ChatParts
from everturn.chat.app import app_over as chat_app_over
from everturn.compose import Faults, Wiring, runtime_options, start_services
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.dapr.wire import AsgiTransport, Transport
from everturn.dapr.workflows import Sidecar
from everturn.memory.app import MemoryParts
from everturn.memory.app import app_over as memory_app_over
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.lock import lock_folder
from everturn.settings import Settings
from tests.chaos import paid
from tests.chaos.channel import UnreliableChannel
from tests.chaos.client import Client
from tests.chaos.disk import SimulatedDatabase, SimulatedDisk, rows
from tests.chaos.journal import Journal
from tests.chaos.models import SummaryModel, TurnModel
from tests.chaos.power import Crash, Power
from tests.chaos.replicas import SharedTransport, Team
from tests.chaos.shell import Shell
from tests.chaos.simulated_loop import SimulatedClock, SimulatedLoop
from tests.chaos.stores import NO_TROUBLE, STORES, StoreServer, Trouble

DATABASE_FILE = "everturn.db"
_HAS = "SELECT 1 FROM state WHERE key LIKE 'chat-service||turn:%{fact}%' AND instr(value, ?)"


WaitingTurns = Literal["hold", "pass"]


@dataclass(slots=True)
class Surroundings:
    """What outlives a crash beside the file: the time, who cannot be reached, and the services' state store, by its
    name in `STORES`; None if that is the file too. `replicas` of each service share its work. `assistant`,
    `waiting_turns`: as the settings of those names."""

    wall: float
    faults: Faults = field(default_factory=Faults)
    store: str | None = None
    replicas: int = 1
    assistant: str | None = None
    waiting_turns: WaitingTurns = "hold"
    server: StoreServer = field(default_factory=StoreServer)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a planted bug replaces."""

    disk: type[SimulatedDisk] = SimulatedDisk
    database: type[SimulatedDatabase] = SimulatedDatabase
    chat_sidecar: Callable[[Sidecar], Sidecar] = lambda sidecar: sidecar
    memory_sidecar: Callable[[Sidecar], Sidecar] = lambda sidecar: sidecar
    events: Callable[[Transport], Transport] = lambda channel: channel
    on_start: Callable[[Path], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong in one life, beside what the client does: its death, jumps of the clock (seconds, by the write
    before which they come), the share of events that go astray, trouble with the state store, the share of commits for
    which the disk is full."""

    crash: Crash | None = None
    jumps: dict[int, float] = field(default_factory=dict)
    astray: float = 0.0
    trouble: Trouble = NO_TROUBLE
    full: float = 0.0


Work = Callable[["Life"], Awaitable[None]]


class Life:
    """`run` returns True if `work` was done, False if the machine died before."""

    def __init__(self, folder: Path, number: int, journal: Journal, around: Surroundings, random: Random) -> None:
        self.number = number
        self.journal = journal
        self.around = around
        self.astray: dict[str, int] = {}
        self.is_dead = False
        self.jumps = 0
        self.jumped_s = 0.0
        self._folder = folder
        # Of its own: what a dead machine's tasks draw as they end, in any order, changes nothing for the next life.
        self._random = Random(random.getrandbits(64))

    def run(self, parts: Parts, weather: Weather, work: Work) -> bool:
        loop = SimulatedLoop()
        loop.set_exception_handler(lambda *_: None)
        self._lock = lock_folder(self._folder)
        self.power = Power(weather.crash, self._random)
        self.power.died = self._died
        self.power.noticed = lambda write: self._jump(weather.jumps.get(write, 0.0))
        parts.on_start(self._file)
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
            self.is_dead = self.power.dead = True
            _drop_all(loop)
            self.around.wall += loop.time() + self.jumped_s
            self._lock.close()
            self._disk.drop()
            loop.close()
            self._mark_cut_off()

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
            await self._compose(parts, weather, stack)
            await work(self)
            # Not a graceful stop either: every life ends as if the plug were pulled.
            stack.pop_all()

    async def _compose(self, parts: Parts, weather: Weather, stack: contextlib.AsyncExitStack) -> None:
        paid.connect(*self._model)
        settings = _settings(self.around.assistant, self.around.waiting_turns)
        self._disk = parts.disk(self.power, weather.full, self.astray)
        database = await parts.database.open(self._file, disk=self._disk)
        database.disk = self._disk
        to_memory = SharedTransport(self._random)
        options = self._options(runtime_options(settings, Wiring(clock=self.clock)), weather.trouble)
        runtime = await EmbeddedRuntime.create(database, self._lock, options)
        chat_team, memory_team = Team(CHAT_APP_ID, runtime, self._random), Team(MEMORY_APP_ID, runtime, self._random)
        wiring = Wiring(
            clock=self.clock,
            faults=self.around.faults,
            chat_model=TurnModel(*self._model),
            summary_model=SummaryModel(*self._model),
            chat_sidecar=lambda sidecar: parts.chat_sidecar(chat_team.sidecar(sidecar)),
            memory_sidecar=lambda sidecar: parts.memory_sidecar(memory_team.sidecar(sidecar)),
            to_memory=lambda app: parts.events(self._unreliable(to_memory, app, weather.astray)),
            chat_app=shells(0)[1].fill,
            memory_app=shells(0)[0].fill,
        )
        system = await start_services(stack, settings, runtime, wiring)
        to_chat = SharedTransport(self._random, system.chat.transport)
        for number in range(1, self.around.replicas):
            memory, chat = shells(number)
            memory_parts = MemoryParts(
                settings,
                parts.memory_sidecar(memory_team.sidecar()),
                SummaryModel(*self._model),
                options.app_api_token,
            )
            chat_parts = ChatParts.create(settings, parts.chat_sidecar(chat_team.sidecar()), TurnModel(*self._model))
            to_memory.ways.append(await _started(stack, memory.fill(settings, memory_parts)))
            to_chat.ways.append(await _started(stack, chat.fill(settings, chat_parts)))
        self.client = Client(self.journal, self.number, to_chat, to_memory, lambda: self.is_dead)

    @property
    def _model(self) -> tuple[Journal, int, Callable[[], bool]]:
        return self.journal, self.number, lambda: self.is_dead

    def _unreliable(self, to_memory: SharedTransport, app: Transport, astray: float) -> Transport:
        """The way of the runtime to the memory service, of which `app` is the first replica."""
        to_memory.ways.append(app)
        return UnreliableChannel(to_memory, astray, self._random, self.astray)

    @property
    def _file(self) -> Path:
        return self._folder / DATABASE_FILE

    def _options(self, options: RuntimeOptions, trouble: Trouble) -> RuntimeOptions:
        """With the state store that the world has."""
        if self.around.store is None:
            return options
        store = STORES[self.around.store](self.around.server, self.clock, self.power, trouble, self.astray)
        return dataclasses.replace(options, state_stores={"state.sqlite": lambda *_: store})

    def _jump(self, seconds: float) -> None:
        if seconds:
            self.jumps += 1
            self.jumped_s += seconds
            self.clock.jump(seconds)

    def _mark_cut_off(self) -> None:
        for call in self.journal.calls:
            if call.life == self.number and (call.answered is None or call.reply is not None):
                call.cut_off = call.reply is None or not self._has(call.reply, ":verdict")
        for made in self.journal.paid:
            if made.life == self.number:
                made.cut_off = not self._has(made.answer, ":call:")

    def _has(self, text: str, fact: str) -> bool:
        """Whether a stored fact of that kind holds `text`: what only who pulls the plug can look up."""
        if self.around.store is not None:
            return self.around.server.has(text, fact)
        return bool(rows(self._file, _HAS.format(fact=fact), text.encode()))


@cache
def shells(_replica: int) -> tuple[Shell[MemoryParts], Shell[ChatParts]]:
    """Of a replica of the memory service and one of the chat service."""
    return Shell(_settings(), memory_app_over), Shell(_settings(), chat_app_over)


@cache
def _settings(assistant: str | None = None, waiting_turns: WaitingTurns = "hold") -> Settings:
    """Few and quick attempts of what a turn does without. Those of the reply have no number, as they have none unless
    it is set: the errors of a model and trouble with a store, which a world makes by chance, could use any few up.
    """
    return Settings(
        _env_file=None,
        fetch_attempts=2,
        fetch_first_delay_s=0.1,
        save_attempts=2,
        save_first_delay_s=0.1,
        keep_workflows_hours=0.1,
        assistant=assistant,
        waiting_turns=waiting_turns,
    )


async def _started(stack: contextlib.AsyncExitStack, app: FastAPI) -> Transport:
    await stack.enter_async_context(app.router.lifespan_context(app))
    return AsgiTransport(app)


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
