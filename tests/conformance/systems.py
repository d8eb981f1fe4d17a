"""The two runtimes, as processes that a test can start, kill and ask over HTTP."""

import asyncio
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tools.dapr.build import binaries_folder
from tools.dapr.layout import HOST, Layout, Store, free_ports
from tools.dapr.process import Command, Process, start
from tools.dapr.system import DaprSystem

ROOT = Path(__file__).parent.parent.parent


class Addresses(Protocol):
    """Where both services are."""

    @property
    def chat_url(self) -> str: ...

    @property
    def memory_url(self) -> str: ...


class System(Addresses, Protocol):
    """Both services on one of the runtimes. Its processes are started and ended by the name of what they do."""

    def start(self) -> None:
        """Start everything that does not run, and wait until turns can run."""
        ...

    def kill_chat(self) -> None:
        """`kill -9` of the process that runs turns; `start` brings it back."""
        ...

    def take_memory_away(self) -> None:
        """Let the memory service be out of reach until `bring_memory_back`."""
        ...

    def bring_memory_back(self) -> None: ...

    async def stop(self) -> None:
        """End everything gently. Meanwhile the caller's loop goes on: what is under way may need the model in it."""
        ...

    def written(self) -> Iterator[Path]:
        """Every file that the system has written."""
        ...


@dataclass(slots=True)
class Embedded:
    """`everturn up`: one process."""

    folder: Path
    settings: Mapping[str, str]
    chat_port: int
    memory_port: int
    _process: Process | None = field(default=None)

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, str]) -> "Embedded":
        ports = free_ports()
        return cls(folder, settings, ports.chat.app, ports.memory.app)

    @property
    def chat_url(self) -> str:
        return f"http://{HOST}:{self.chat_port}"

    @property
    def memory_url(self) -> str:
        return f"http://{HOST}:{self.memory_port}"

    def start(self) -> None:
        if self._process is not None:
            return
        ports = {"EVERTURN_CHAT_PORT": str(self.chat_port), "EVERTURN_MEMORY_PORT": str(self.memory_port)}
        command = Command(
            "everturn",
            [sys.executable, "-m", "everturn.cli", "up", "--faults"],
            {**os.environ, **self.settings, **ports},
            self.chat_url,
        )
        self._process = start(command, self.folder, self.folder)
        while not answers(f"{self.chat_url}/readyz"):
            assert not self._process.has_ended, self._process.last_lines()

    def kill_chat(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process = None

    def take_memory_away(self) -> None:
        self._switch(away=True)

    def bring_memory_back(self) -> None:
        self._switch(away=False)

    def _switch(self, *, away: bool) -> None:
        body = b'{"away": true}' if away else b'{"away": false}'
        assert answers(f"{self.memory_url}/faults/memory", body)

    async def stop(self) -> None:
        if self._process is not None:
            await asyncio.to_thread(self._process.stop)
            self._process = None

    def written(self) -> Iterator[Path]:
        return (path for path in self.folder.rglob("*") if path.is_file())


@dataclass(slots=True)
class OnDapr:
    """Real Dapr: seven processes, with PostgreSQL eight."""

    system: DaprSystem

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, str], store: Store) -> "OnDapr":
        layout = Layout(folder, free_ports(), binaries_folder(), ROOT / "components", store)
        return cls(DaprSystem(layout, settings))

    @property
    def chat_url(self) -> str:
        return f"http://{HOST}:{self.system.layout.ports.chat.app}"

    @property
    def memory_url(self) -> str:
        return f"http://{HOST}:{self.system.layout.ports.memory.app}"

    def start(self) -> None:
        if not self.system.processes:
            self.system.start()
        for name in ("memory", "chat"):
            if name not in self.system.processes:
                self.system.restart(name)

    def kill_chat(self) -> None:
        self.system.kill("chat")

    def take_memory_away(self) -> None:
        self.system.kill("memory")

    def bring_memory_back(self) -> None:
        self.system.restart("memory")

    async def stop(self) -> None:
        await asyncio.to_thread(self.system.stop)

    def written(self) -> Iterator[Path]:
        return (path for path in self.system.layout.folder.rglob("*") if path.is_file())


def answers(url: str, body: bytes | None = None) -> bool:
    """Whether a GET, or a POST of `body`, gets a good answer."""
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"} if body else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as response:
            return bool(response.status < 300)
    except (OSError, urllib.error.URLError):
        return False
