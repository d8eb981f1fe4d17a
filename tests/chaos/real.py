"""A real machine for the client of the simulator: `everturn up` in its own process, its model on a real socket."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import apsw

from everturn.dapr.http_transport import HttpTransport
from everturn.errors import TransientError
from everturn.testing.model_answers import Answer, completion
from everturn.testing.model_endpoint import ModelEndpoint, ModelRequest
from tests.chaos.client import Client
from tests.chaos.journal import Exchange, Journal, ModelCall, summary_of
from tests.e2e.conftest import Machine


class WatchedJournal(Journal):
    """A journal for whose growth can be waited."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def tick(self) -> int:
        now = super().tick()
        for at, future in self._waiting:
            if at <= now and not future.done():
                future.set_result(None)
        return now

    async def grown_by(self, ticks: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self.now + ticks, future))
        if ticks > 0:
            await future


class RealModel(ModelEndpoint):
    """The client's model, over HTTP. It answers at once, so a call is answered if it is not cut off."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.life = 0
        self._journal = journal

    def _next_answer(self, request: ModelRequest) -> Answer:
        messages = request.body["messages"]
        if not request.body.get("tools"):
            return completion(summary_of(str(messages[-1]["content"])))
        said = [(str(message["role"]), str(message["content"])) for message in messages[1:]]
        call = ModelCall(self.life, self._journal.tick(), said[-1][1].split()[0], said[:-1])
        self._journal.calls.append(call)
        call.reply = f"re:{call.name}:{call.sent}"
        call.answered = self._journal.tick()
        return completion(call.reply)


class RealClient(Client):
    """What the process does not answer, because it was killed, is sent again to the next one."""

    patience_s = float("inf")

    def __init__(self, journal: Journal, machine: Machine) -> None:
        self.chat, self.memory = HttpTransport(machine.chat_url), HttpTransport(machine.memory_url)
        super().__init__(journal, 0, self.chat, self.memory, lambda: False)
        self.up = asyncio.Event()

    async def send(
        self, method: str, path: str, body: object = None, *, key: str | None = None, prefer: str | None = None
    ) -> Exchange:
        while True:
            await self.up.wait()
            try:
                return await super().send(method, path, body, key=key, prefer=prefer)
            except TransientError:
                await asyncio.sleep(0)  # the process is gone, or is about to be

    async def rest(self, seconds: float) -> None:  # noqa: ARG002
        """Look again at once: the time here is everybody's."""
        await asyncio.sleep(0)

    async def close(self) -> None:
        await self.chat.close()
        await self.memory.close()


@dataclass
class Kills:
    """Starts the process and kills it, `count` times; then it lives. `random` says when."""

    machine: Machine
    journal: WatchedJournal
    client: RealClient
    model: RealModel
    random: Random
    done: int = 0
    before_ready: int = 0
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def go(self, count: int) -> None:
        for _ in range(count):
            self._begin_life()
            if self.random.random() < 0.2:
                await self._kill_while_starting()
            else:
                await self._kill_at_work()
            self._mark_cut_off()
            self.done += 1
        self._begin_life()
        await self.machine.up()
        self.client.up.set()
        self.is_over.set()

    def _begin_life(self) -> None:
        self.client.life += 1
        self.model.life = self.client.life

    async def _kill_at_work(self) -> None:
        running = await self.machine.up()
        self.client.up.set()
        await self.journal.grown_by(self.random.randint(0, 60))
        self.client.up.clear()
        await running.kill()

    async def _kill_while_starting(self) -> None:
        """When it has the folder, or has just read what is in it."""
        running = await self.machine.run("up")
        lock = self.machine.folder / ".everturn" / "everturn.lock"

        async def has_begun() -> bool:
            return lock.exists() and lock.read_text().strip() == str(running.process.pid)

        await _until(has_begun)
        await running.kill()
        self.before_ready += 1

    def _mark_cut_off(self) -> None:
        """Look at a copy of the dead process's file, as it lies there."""
        calls = [call for call in self.journal.calls if call.life == self.client.life]
        with tempfile.TemporaryDirectory() as folder:
            for file in (self.machine.folder / ".everturn").glob("everturn.db*"):
                shutil.copy(file, folder)
            stored = b"\n".join(_turns(Path(folder) / "everturn.db"))
        for call in calls:
            call.cut_off = json.dumps(call.reply).encode() not in stored


def _turns(path: Path) -> list[bytes]:
    connection = apsw.Connection(str(path))
    if not connection.table_exists(None, "state"):
        return []
    rows = connection.execute("SELECT value FROM state WHERE key LIKE 'chat-service||turn:%'").fetchall()
    connection.close()
    return [row[0] if isinstance(row[0], bytes) else str(row[0]).encode() for row in rows]


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - a file, which nobody can wait for
        await asyncio.sleep(0)
