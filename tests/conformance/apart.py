"""The services apart on the embedded runtime: a runtime for each app, and each service in a process of its own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.dapr.layout import free_ports

from tests.conformance.fleet import Door, EmbeddedFleet


@dataclass(slots=True)
class Apart:
    """A `System` of four processes."""

    fleet: EmbeddedFleet

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, str]) -> "Apart":
        return cls(EmbeddedFleet(folder, free_ports(), settings, {}))

    @property
    def chat_url(self) -> str:
        return Door(self.fleet, "chat").chat_url

    @property
    def memory_url(self) -> str:
        return Door(self.fleet, "chat").memory_url

    def start(self) -> None:
        self.fleet.start()

    def kill_chat(self) -> None:
        self.fleet.kill("chat")

    def take_memory_away(self) -> None:
        self.fleet.kill("memory")

    def bring_memory_back(self) -> None:
        self.fleet.restart("memory")

    async def stop(self) -> None:
        await self.fleet.stop()

    def written(self) -> Iterator[Path]:
        return (path for path in self.fleet.folder.rglob("*") if path.is_file())
