"""Both services apart on either runtime: each role a process that a test can kill, and perhaps replicas of the chat
service.

On the embedded runtime one process, the runtime of the chat app, is its sidecar, scheduler, placement and state store.
Its folder belongs to one process, so replicas of an app share one runtime, each as a worker of its own.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tools.dapr.build import binaries_folder
from tools.dapr.layout import HOST, Layout, Ports, SidecarPorts
from tools.dapr.process import Command, Process, start
from tools.dapr.system import DaprSystem

from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from tests.conformance.systems import ROOT, answers
from tests.real_dapr import require_dapr

_CHAT_RUNTIME = "chat-sidecar"
_PLAYED_BY = {"chat-2-sidecar": _CHAT_RUNTIME, **dict.fromkeys(("scheduler", "placement", "store"), _CHAT_RUNTIME)}


class Fleet(Protocol):
    """The processes of a system, by role: `chat`, `chat-2`, `memory`, a `…-sidecar` of each, `scheduler`, `placement`,
    `store`."""

    @property
    def ports(self) -> Ports: ...

    def start(self) -> None:
        """Start everything that does not run, and wait until it does its work."""
        ...

    def kill(self, role: str) -> None:
        """`kill -9` of the process that plays `role`, unless it is dead already."""
        ...

    def restart(self, role: str) -> None:
        """Start the process that plays `role` again, if it was killed, and wait until it does its work."""
        ...

    async def stop(self) -> None:
        """End everything gently. Meanwhile the caller's loop goes on: what is under way may need the model in it."""
        ...


@dataclass(slots=True)
class DaprFleet:
    """Real Dapr, its state in Redis or PostgreSQL."""

    system: DaprSystem

    @property
    def ports(self) -> Ports:
        return self.system.layout.ports

    def start(self) -> None:
        if not self.system.processes:
            self.system.start()
        wanted = [name for service in self.ports.services for name in (service, f"{service}-sidecar")]
        missing = [name for name in wanted if name not in self.system.processes]
        for name in missing:
            self.system.begin(name)
        for name in missing:
            self.system.wait_for(name)

    def kill(self, role: str) -> None:
        name = self._played_by(role)
        if name in self.system.processes:
            self.system.kill(name)

    def restart(self, role: str) -> None:
        name = self._played_by(role)
        if name not in self.system.processes:
            self.system.restart(name)

    def _played_by(self, role: str) -> str:
        return str(self.system.layout.store) if role == "store" else role

    async def stop(self) -> None:
        await asyncio.to_thread(self.system.stop)


@dataclass(slots=True)
class EmbeddedFleet:
    """`everturn runtime` for each app, and `everturn serve` for each service beside them."""

    folder: Path
    ports: Ports
    settings: Mapping[str, str]
    own_settings: Mapping[str, Mapping[str, str]]
    _processes: dict[str, Process] = field(default_factory=dict)

    def start(self) -> None:
        for name in self._names():
            if name not in self._processes:
                self._begin(name)
        for name in self._names():
            self._wait_for(name)

    def kill(self, role: str) -> None:
        name = _PLAYED_BY.get(role, role)
        if name in self._processes:
            self._processes.pop(name).kill()

    def restart(self, role: str) -> None:
        name = _PLAYED_BY.get(role, role)
        if name not in self._processes:
            self._begin(name)
            self._wait_for(name)

    async def stop(self) -> None:
        for name in reversed([*self._names()]):
            if name in self._processes:
                await asyncio.to_thread(self._processes.pop(name).stop)

    def _names(self) -> Iterator[str]:
        yield from ("memory-sidecar", _CHAT_RUNTIME)
        yield from self.ports.services

    def _begin(self, name: str) -> None:
        self._processes[name] = start(self.command_of(name), self.folder, self.folder)

    def _wait_for(self, name: str) -> None:
        while not answers(self._sign_of_life(name)):
            assert not self._processes[name].has_ended, self._processes[name].last_lines()

    def _sign_of_life(self, name: str) -> str:
        if name in self.ports.services:
            return f"{address(self.ports.services[name].app)}/readyz"
        return f"{address(self._sidecar(name).http)}/v1.0/healthz/outbound"

    def _sidecar(self, name: str) -> SidecarPorts:
        return self.ports.memory if name == "memory-sidecar" else self.ports.chat

    def command_of(self, name: str) -> Command:
        everturn = [sys.executable, "-m", "everturn.cli"]
        if name not in self.ports.services:
            ports = self._sidecar(name)
            app_id = MEMORY_APP_ID if name == "memory-sidecar" else CHAT_APP_ID
            options = ["--app-id", app_id, "--app-port", str(ports.app), "--resources-path", str(ROOT / "components")]
            options += ["--dapr-http-port", str(ports.http), "--dapr-grpc-port", str(ports.grpc)]
            tokens = {
                name: self.settings[name] for name in ("APP_API_TOKEN", "DAPR_API_TOKEN") if name in self.settings
            }
            return Command(name, [*everturn, "runtime", *options], {**os.environ, **tokens}, address(ports.http))
        service = "memory" if name == "memory" else "chat"
        sidecar = self.ports.memory if service == "memory" else self.ports.chat
        app = self.ports.services[name].app
        told = {
            f"EVERTURN_{service.upper()}_PORT": str(app),
            "DAPR_HTTP_PORT": str(sidecar.http),
            "DAPR_GRPC_PORT": str(sidecar.grpc),
        }
        environment = {**os.environ, **told, **self.settings, **self.own_settings.get(name, {})}
        return Command(name, [*everturn, "serve", service], environment, address(app))


def make_fleet(
    runtime: str,
    folder: Path,
    ports: Ports,
    settings: Mapping[str, str],
    own_settings: Mapping[str, Mapping[str, str]],
) -> Fleet:
    """A fleet that does not run yet, with `settings` for its services and `own_settings` for one by its role."""
    if runtime == "embedded":
        return EmbeddedFleet(folder, ports, settings, own_settings)
    layout = Layout(folder, ports, binaries_folder(), ROOT / "components", require_dapr(runtime))
    return DaprFleet(DaprSystem(layout, settings, own_settings))


def sidecar_ports(runtime: str, ports: Ports, replica: str) -> SidecarPorts:
    """Of the sidecar of a replica of the chat service: its own, or the one that all of them share."""
    return ports.chat if runtime == "embedded" else ports.services[replica]


def address(port: int) -> str:
    return f"http://{HOST}:{port}"


@dataclass(frozen=True, slots=True)
class Door:
    """The system as seen through one replica of the chat service, by its name."""

    fleet: Fleet
    replica: str

    @property
    def chat_url(self) -> str:
        return address(self.fleet.ports.services[self.replica].app)

    @property
    def memory_url(self) -> str:
        return address(self.fleet.ports.memory.app)
