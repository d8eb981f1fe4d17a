"""The systems that are attacked: real processes on free ports with empty folders, or addresses that were given."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from everturn.testing.model_answers import completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import free_ports
from tests.hostile.wire import Place

_HOST = "127.0.0.1"
_START_S = 60.0
_LOOK_S = 0.05
# Shown by `everturn up` and `everturn runtime` once they answer.
_UP_RUNS, _RUNTIME_RUNS = "  curl ", "data folder"
_MEMORY_APP = "agent-memory-service"
TOKEN = "the-token-of-the-sidecar"
CANARY_NAME, CANARY = "HOSTILE_CANARY", "canary-8c1f"
FEW_FILES = 256


class Stage(StrEnum):
    """A kind of system. Several of one kind keep attacks apart that would disturb one another."""

    UP = "everturn up"
    TEXTS = "everturn up, for texts"
    PATIENT = "everturn up, for what takes minutes"
    PATIENT_SIDECAR = "everturn runtime, for what takes minutes"
    FEW_FILES = f"everturn up, {FEW_FILES} descriptors"
    FEW_FILES_SIDECAR = f"everturn runtime, {FEW_FILES} descriptors"
    SCRIPTED = "everturn up, scripted model"
    TOKENS = "everturn runtime, tokens"
    SIDECAR = "everturn runtime, no tokens"


# What an address that was given can stand for.
_COMMON = (Stage.UP, Stage.TEXTS, Stage.PATIENT, Stage.SIDECAR, Stage.PATIENT_SIDECAR)


class NotHere(Exception):
    """The attack needs a system of our own, and addresses were given."""


@dataclass(slots=True)
class Site:
    """A system that runs. `folder`, `log`: of our own. `large`: attacks may use their whole size and time."""

    places: Mapping[str, Place]
    large: bool
    folder: Path = field(default_factory=Path)
    endpoint: ModelEndpoint | None = None
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def stall_limit_s(self) -> float:
        """Longest wait for health that counts as none. The short runs share their machine: they see the gross alone."""
        return 0.05 if self.large else 5.0

    @property
    def patience_s(self) -> float:
        return 30.0 if self.large else 8.0

    @property
    def chat(self) -> Place:
        return self._place("chat")

    @property
    def memory(self) -> Place:
        return self._place("memory")

    @property
    def sidecar(self) -> Place:
        return self._place("sidecar")

    @property
    def data(self) -> Path:
        return self.folder / ".everturn"

    @property
    def alive(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def _place(self, name: str) -> Place:
        """Raises NotHere if no address of that name was given."""
        if name not in self.places:
            raise NotHere
        return self.places[name]

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    async def end(self, *, at_once: bool = False) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)
            try:
                await asyncio.to_thread(process.wait, 15)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
        if self.endpoint is not None:
            await self.endpoint.__aexit__(None, None, None)


class Stages:
    """`async with Stages(large=...) as stages:`; each system is started when it is first asked for.

    `given`: URLs by name (chat, memory, sidecar) of a system that runs elsewhere; then nothing is started.
    """

    def __init__(self, *, large: bool, given: Mapping[str, str] | None = None) -> None:
        self._large = large
        self._given = {name: _place(url, name) for name, url in (given or {}).items()}
        self._sites: dict[Stage, Site] = {}
        self._starting: dict[Stage, asyncio.Lock] = {stage: asyncio.Lock() for stage in Stage}
        self._root = Path()

    async def __aenter__(self) -> Self:
        self._root = Path(tempfile.mkdtemp(prefix="hostile-"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for site in self._sites.values():
            await site.end(at_once=True)
        shutil.rmtree(self._root, ignore_errors=True)

    async def site(self, stage: Stage, *needed: str) -> Site:
        """The system `stage`, with the places `needed`. Raises NotHere where only addresses of others are known."""
        if self._given:
            asked = set(needed)
            if stage not in _COMMON or not asked <= self._given.keys():
                raise NotHere
            return Site(self._given, self._large)
        async with self._starting[stage]:
            if stage not in self._sites:
                self._sites[stage] = await self._start(stage)
            return self._sites[stage]

    async def restart(self, stage: Stage) -> None:
        """End a system that no longer answers; the next attack on it gets a new one."""
        if site := self._sites.pop(stage, None):
            await site.end(at_once=True)

    async def _start(self, stage: Stage) -> Site:
        folder = Path(tempfile.mkdtemp(dir=self._root))
        match stage:
            case Stage.TOKENS:
                return await self._start_beside_sidecar(folder)
            case Stage.SIDECAR | Stage.PATIENT_SIDECAR:
                return await self._start_sidecar(folder)
            case Stage.FEW_FILES_SIDECAR:
                return await self._start_sidecar(folder, FEW_FILES)
            case Stage.SCRIPTED:
                endpoint = ModelEndpoint(otherwise=completion("Noted."))
                await endpoint.__aenter__()
                # Readable for all, as an editor leaves it.
                (folder / ".env").write_text("EVERTURN_MODEL_API_KEY=sk-of-the-test\n", "utf-8")
                model = {"EVERTURN_MODEL_BASE_URL": endpoint.base_url, "EVERTURN_MODEL_NAME": "scripted"}
                return await self._start_up(folder, model, endpoint=endpoint)
            case Stage.FEW_FILES:
                return await self._start_up(folder, {}, files=FEW_FILES)
            case _:
                return await self._start_up(folder, {})

    async def _start_up(
        self, folder: Path, settings: Mapping[str, str], *, files: int = 0, endpoint: ModelEndpoint | None = None
    ) -> Site:
        chat, memory = free_ports(2)
        ports = {"EVERTURN_CHAT_PORT": str(chat), "EVERTURN_MEMORY_PORT": str(memory)}
        (folder / ".everturn").mkdir(mode=0o755)  # as older versions left it
        process = _spawn(folder, ["up"], {**ports, **settings}, files)
        await _until_said(process, folder, _UP_RUNS)
        places = {"chat": Place(_HOST, chat, process.pid), "memory": Place(_HOST, memory, process.pid)}
        return Site(places, self._large, folder, endpoint, [process])

    async def _start_sidecar(self, folder: Path, files: int = 0) -> Site:
        (http_port, grpc_port) = free_ports(2)
        arguments = ["runtime", "--app-id", "victim", "-H", str(http_port), "-G", str(grpc_port)]
        process = _spawn(folder, arguments, {CANARY_NAME: CANARY}, files)
        await _until_said(process, folder, _RUNTIME_RUNS)
        place = Place(_HOST, http_port, process.pid, health="/v1.0/healthz/outbound", grpc_port=grpc_port)
        return Site({"sidecar": place}, self._large, folder, None, [process])

    async def _start_beside_sidecar(self, folder: Path) -> Site:
        http_port, grpc_port, memory = free_ports(3)
        settings = {
            "DAPR_HTTP_PORT": str(http_port),
            "DAPR_GRPC_PORT": str(grpc_port),
            "EVERTURN_MEMORY_PORT": str(memory),
            "DAPR_API_TOKEN": TOKEN,
            "APP_API_TOKEN": TOKEN,
        }
        arguments = ["runtime", "--app-id", _MEMORY_APP, "--app-port", str(memory)]
        runtime = _spawn(folder, [*arguments, "-H", str(http_port), "-G", str(grpc_port)], settings)
        await _until_said(runtime, folder, _RUNTIME_RUNS)
        service = _spawn(folder, ["serve", "memory"], settings)
        sidecar = Place(_HOST, http_port, runtime.pid, TOKEN, "/v1.0/healthz/outbound", grpc_port)
        place = Place(_HOST, memory, service.pid, TOKEN)
        await _until_open(service, folder, place)
        return Site({"sidecar": sidecar, "memory": place}, self._large, folder, None, [runtime, service])


def _place(url: str, name: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"{url!r} is no URL that begins with http://")
    health = "/v1.0/healthz/outbound" if name == "sidecar" else "/healthz"
    return Place(parts.hostname, parts.port or 80, health=health)


def _spawn(
    folder: Path, arguments: list[str], settings: Mapping[str, str], files: int = 0
) -> "subprocess.Popen[bytes]":
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **settings}
    limit = f"ulimit -n {files} && " if files else ""
    command = [
        "/bin/sh",
        "-c",
        f'umask 022 && {limit}exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "everturn.cli",
        *arguments,
    ]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


async def _until_said(process: "subprocess.Popen[bytes]", folder: Path, wanted: str) -> None:
    async with asyncio.timeout(_START_S):
        while wanted not in (log := (folder / "log").read_text("utf-8", "replace")):
            if process.poll() is not None:
                raise RuntimeError(f"it did not start:\n{log}")
            await asyncio.sleep(_LOOK_S)


async def _until_open(process: "subprocess.Popen[bytes]", folder: Path, place: Place) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(place.host, place.port)
                writer.close()
                return
            if process.poll() is not None:
                raise RuntimeError(f"it did not start:\n{(folder / 'log').read_text('utf-8', 'replace')}")
            await asyncio.sleep(_LOOK_S)
