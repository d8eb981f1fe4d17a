"""Two apps with a sidecar each, on either runtime, as processes: what any program of the SDK finds around it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tools.dapr.build import binaries_folder
from tools.dapr.layout import HOST, Layout, Store, free_ports
from tools.dapr.process import Command, Process, start
from tools.dapr.system import DaprSystem

from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from tests.conformance.sdk.app import App
from tests.conformance.systems import answers

COMPONENTS = Path(__file__).parent / "components"
API_TOKEN, APP_TOKEN = "token-of-the-sidecar", "token-of-the-app"
TOKENS = {"DAPR_API_TOKEN": API_TOKEN, "APP_API_TOKEN": APP_TOKEN}


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The sidecar of `app`, on loopback."""

    app_id: str
    app: App
    http_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}/v1.0"

    @property
    def grpc_address(self) -> str:
        return f"{HOST}:{self.grpc_port}"


class Sidecars(Protocol):
    """`open` is the sidecar of an app that asks for no token, `guarded` that of one that does."""

    @property
    def open(self) -> Sidecar: ...

    @property
    def guarded(self) -> Sidecar: ...

    def start(self) -> None:
        """Start both; they are ready when this returns."""
        ...

    def stop(self) -> None: ...


@dataclass(slots=True)
class EmbeddedSidecars:
    """`everturn runtime`, twice."""

    folder: Path
    settings: Mapping[str, str]
    open: Sidecar
    guarded: Sidecar
    _processes: list[Process] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, str], apps: tuple[App, App]) -> "EmbeddedSidecars":
        ports = free_ports()
        return cls(
            folder,
            settings,
            Sidecar(CHAT_APP_ID, apps[0], ports.chat.http, ports.chat.grpc),
            Sidecar(MEMORY_APP_ID, apps[1], ports.memory.http, ports.memory.grpc),
        )

    def start(self) -> None:
        for sidecar, tokens in ((self.open, {}), (self.guarded, TOKENS)):
            process = start(self.command_of(sidecar, tokens), self.folder, self.folder)
            self._processes.append(process)
            while not answers(f"{sidecar.url}/healthz"):
                assert not process.has_ended, process.last_lines()

    def stop(self) -> None:
        for process in self._processes:
            process.stop()

    def command_of(self, sidecar: Sidecar, tokens: Mapping[str, str]) -> Command:
        arguments = [
            *(sys.executable, "-m", "everturn.cli", "runtime"),
            *("--app-id", sidecar.app_id, "--app-port", str(sidecar.app.port)),
            *("--dapr-http-port", str(sidecar.http_port), "--dapr-grpc-port", str(sidecar.grpc_port)),
            *("--resources-path", str(COMPONENTS)),
        ]
        environment = {**os.environ, **self.settings, **tokens}
        return Command(f"runtime-of-{sidecar.app_id}", arguments, environment, sidecar.url)


@dataclass(slots=True)
class DaprSidecars:
    """The stores, placement, scheduler and two times daprd."""

    system: DaprSystem
    open: Sidecar
    guarded: Sidecar

    @classmethod
    def make(cls, folder: Path, settings: Mapping[str, str], apps: tuple[App, App], store: Store) -> "DaprSidecars":
        ports = free_ports()
        ports = replace(
            ports, chat=replace(ports.chat, app=apps[0].port), memory=replace(ports.memory, app=apps[1].port)
        )
        layout = Layout(folder, ports, binaries_folder(), COMPONENTS, store)
        return cls(
            _WithoutServices(layout, settings),
            Sidecar(CHAT_APP_ID, apps[0], ports.chat.http, ports.chat.grpc),
            Sidecar(MEMORY_APP_ID, apps[1], ports.memory.http, ports.memory.grpc),
        )

    def start(self) -> None:
        self.system.start()

    def stop(self) -> None:
        self.system.stop()


class _WithoutServices(DaprSystem):
    """A system whose apps run elsewhere: in the tests' own process."""

    def start(self) -> None:
        self._prepare_folder()
        for name in (*self.stores, "placement", "scheduler", "memory-sidecar", "chat-sidecar"):
            self.begin(name)
            self.wait_for(name)

    def command_of(self, name: str) -> Command:
        command = DaprSystem.command_of(self, name)
        if name != "memory-sidecar":
            return command
        return replace(command, environment={**command.environment, **TOKENS})

    def _sidecar_runs_workflows(self, port: int) -> bool:
        return answers(f"http://{HOST}:{port}/v1.0/healthz")
