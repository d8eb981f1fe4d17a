"""A terminal of a person: a command runs in it, and what is on its screen can be read."""

import asyncio
import fcntl
import os
import pty
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pyte

from tests.e2e.conftest import PATIENCE_S, Machine

COLUMNS, ROWS = 72, 60


@dataclass
class Terminal:
    """`screen` is what a person sees, line by line."""

    process: asyncio.subprocess.Process
    device: int
    screen: pyte.Screen
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    has_ended: bool = False

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def sentence(self) -> str:
        """The same, with a blank for each break of a line."""
        return " ".join(self.text.split())

    def type(self, text: str) -> None:
        os.write(self.device, text.encode())

    async def until(self, wanted: Callable[[str], bool]) -> str:
        """The screen once it is as `wanted`. Fails if the command ends before."""
        try:
            async with asyncio.timeout(PATIENCE_S), self.changed:
                await self.changed.wait_for(lambda: self.has_ended or wanted(self.text))
        except TimeoutError:
            raise AssertionError(f"the screen was never like that:\n{self.text}") from None
        assert wanted(self.text), f"the command ended:\n{self.text}"
        return self.text

    async def shows(self, text: str, times: int = 1) -> str:
        """The screen once `text` is on it that often, whatever line breaks are in it."""
        return await self.until(lambda shown: " ".join(shown.split()).count(text) >= times)

    async def exit_code(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            async with self.changed:
                await self.changed.wait_for(lambda: self.has_ended)
        return code

    async def read(self) -> None:
        """Draw what the command writes, until it has ended."""
        stream, loop = pyte.ByteStream(self.screen), asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.device, readable.set)
        try:
            while await readable.wait():
                readable.clear()
                try:
                    piece = os.read(self.device, 65_536)
                except BlockingIOError:
                    continue
                except OSError:  # Linux says so at the end
                    piece = b""
                async with self.changed:
                    stream.feed(piece)
                    self.has_ended = not piece
                    self.changed.notify_all()
                if not piece:
                    return
        finally:
            loop.remove_reader(self.device)


@asynccontextmanager
async def in_terminal(machine: Machine, *arguments: str) -> AsyncIterator[Terminal]:
    """Run `everturn` with `arguments` in a terminal of its own, and end it with the block."""
    async with running_in_terminal(machine, sys.executable, "-m", "everturn.cli", *arguments) as terminal:
        yield terminal


@asynccontextmanager
async def running_in_terminal(machine: Machine, *command: str) -> AsyncIterator[Terminal]:
    """Run `command` in a terminal of its own, and end it with the block."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=machine.folder,
        env={**machine.environment(), "TERM": "linux"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # Ctrl-C reaches who has the terminal.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    terminal = Terminal(process, ours, pyte.Screen(COLUMNS, ROWS))
    reading = asyncio.create_task(terminal.read())
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
        os.close(ours)
