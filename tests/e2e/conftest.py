"""A real `everturn up`, as a person would start it: its own process, free ports, an empty home, a clean environment."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

SOURCE = Path(__file__).parent.parent.parent / "src"
# Far longer than anything here takes: a limit for what hangs, not a measure.
PATIENCE_S = 60.0


def free_ports(count: int) -> list[int]:
    """`count` different ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Lines:
    """What a process writes, line by line, for tests that wait for a line."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._changed = asyncio.Condition()
        self._ended = False

    async def read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            await self._add(line.decode().rstrip("\n"))
        self._ended = True
        await self._add(None)

    async def _add(self, line: str | None) -> None:
        async with self._changed:
            if line is not None:
                self.all.append(line)
            self._changed.notify_all()

    async def first(self, wanted: Callable[[str], bool]) -> str:
        """The first line that is `wanted`, now or when it comes. Fails if the process ended without one."""

        def found() -> bool:
            return self._ended or any(wanted(line) for line in self.all)

        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(found)
        for line in self.all:
            if wanted(line):
                return line
        raise AssertionError("the process ended without that line; it wrote:\n" + "\n".join(self.all))


@dataclass
class Everturn:
    """One run of a command of `everturn`."""

    process: asyncio.subprocess.Process
    out: Lines
    err: Lines
    readers: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def exit_code(self) -> int:
        """How it ended; both outputs are complete then."""
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await asyncio.gather(*self.readers)
        return code

    async def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return await self.exit_code()

    async def kill(self) -> None:
        """As `kill -9` does it."""
        self.process.kill()
        await self.exit_code()

    async def event(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first log record with that event name and those fields, now or when it comes."""

        def wanted(line: str) -> bool:
            record = json.loads(line) if line.startswith("{") else {}
            return record.get("event") == name and all(record.get(key) == value for key, value in fields.items())

        record: dict[str, Any] = json.loads(await self.err.first(wanted))
        return record


@dataclass
class Machine:
    """A folder to run in, an empty home, two free ports: what is the same over a restart."""

    folder: Path
    chat_port: int
    memory_port: int
    settings: dict[str, str] = field(default_factory=dict)
    source: Path = SOURCE
    # The command `everturn` as it is installed, instead of that of the sources.
    installed: Path | None = None
    started: list[Everturn] = field(default_factory=list)

    @property
    def chat_url(self) -> str:
        return f"http://127.0.0.1:{self.chat_port}"

    @property
    def memory_url(self) -> str:
        return f"http://127.0.0.1:{self.memory_port}"

    def environment(self) -> dict[str, str]:
        source = {} if self.installed else {"PYTHONPATH": str(self.source)}
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            **source,
            "EVERTURN_CHAT_PORT": str(self.chat_port),
            "EVERTURN_MEMORY_PORT": str(self.memory_port),
            **self.settings,
        }

    async def run(
        self, *arguments: str, text: str | None = None, module: str = "everturn.cli", **settings: str
    ) -> Everturn:
        """Start `everturn` (or another `module` that can be run) with `arguments`, with `text` as its input."""
        program = [str(self.installed)] if self.installed else [sys.executable, "-m", module]
        process = await asyncio.create_subprocess_exec(
            *program,
            *arguments,
            cwd=self.folder,
            env={**self.environment(), **settings},
            stdin=asyncio.subprocess.PIPE if text is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        running = Everturn(process, Lines(), Lines())
        assert process.stdout is not None
        assert process.stderr is not None
        running.readers = [
            asyncio.create_task(running.out.read(process.stdout)),
            asyncio.create_task(running.err.read(process.stderr)),
        ]
        self.started.append(running)
        if text is not None and process.stdin is not None:
            process.stdin.write(text.encode())
            process.stdin.close()
        return running

    async def up(self, *arguments: str, **settings: str) -> Everturn:
        """`everturn up`, once it says that it runs."""
        running = await self.run("up", *arguments, **settings)
        try:
            await running.out.first(lambda line: line.startswith("  curl "))
        except AssertionError:
            raise AssertionError("it did not start:\n" + "\n".join(running.err.all)) from None
        return running

    async def end_all(self) -> None:
        for running in self.started:
            if running.process.returncode is None:
                running.process.kill()
            await running.exit_code()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    chat_port, memory_port = free_ports(2)
    (tmp_path / "home").mkdir()
    made = Machine(tmp_path, chat_port, memory_port)
    try:
        yield made
    finally:
        await made.end_all()


@dataclass
class Client:
    """A client of both services."""

    http: httpx2.AsyncClient
    machine: Machine

    async def say(
        self, text: str, *, user: str = "junaid", session: str = "s1", headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        body = {"user_id": user, "text": text, "metadata": {"session_id": session}}
        return await self.http.post(f"{self.machine.chat_url}/chat/", json=body, headers=dict(headers or {}))

    async def turn(self, turn_id: str) -> dict[str, Any]:
        response = await self.http.get(f"{self.machine.chat_url}/turns/{turn_id}")
        assert response.status_code == 200, response.text
        turn: dict[str, Any] = response.json()
        return turn

    async def history(self, session: str = "s1") -> list[dict[str, Any]]:
        response = await self.http.get(f"{self.machine.memory_url}/conversations/{session}")
        assert response.status_code == 200, response.text
        history: list[dict[str, Any]] = response.json()["history"]
        return history

    async def readiness(self) -> tuple[int, int]:
        """What `/readyz` of the chat service and of the memory service answer."""
        chat = await self.http.get(f"{self.machine.chat_url}/readyz")
        memory = await self.http.get(f"{self.machine.memory_url}/readyz")
        return chat.status_code, memory.status_code

    async def switch(self, what: str, *, away: bool) -> httpx2.Response:
        return await self.http.post(f"{self.machine.memory_url}/faults/{what}", json={"away": away})

    async def until(self, look: Callable[[], Awaitable[bool]]) -> None:
        """Look again and again, as a client would, until `look` says yes."""
        async with asyncio.timeout(PATIENCE_S):
            while not await look():
                pass


@pytest.fixture
async def client(machine: Machine) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        yield Client(http, machine)
