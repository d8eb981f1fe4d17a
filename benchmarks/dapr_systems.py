"""The three ways to run, as processes that wait for load: real Dapr, one process, apart on the embedded runtime."""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.dapr.build import binaries_folder
from tools.dapr.layout import HOST, Layout, Ports, free_ports
from tools.dapr.process import Command, Process, start
from tools.dapr.system import DaprSystem

from benchmarks.service import pause

_ROOT = Path(__file__).parent.parent
_COMPONENTS = _ROOT / "components"
_APPS = {"chat": "benchmarks.dapr_apps:chat", "memory": "benchmarks.dapr_apps:memory"}
_PATIENCE_S = 60.0
_PAUSE_S = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A system is idle if it uses less than this share of a core; summaries of turns come up to half a minute later, and
# are not waited for.
_IDLE = 0.15
_LOOK_EVERY_S = 0.2
_SETTLE_S = 10.0
DAPR, ONE_PROCESS, APART = "Dapr and Redis", "one process", "apart"


@dataclass(frozen=True, slots=True)
class Running:
    """A system that answers at `chat_url`; `processes` by name."""

    name: str
    chat_url: str
    processes: Mapping[str, Process]

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU since the start, by process (proc(5), /proc/pid/stat fields 14 and 15)."""
        return {name: _cpu_s(process.pid) for name, process in self.processes.items()}

    def settle(self) -> None:
        """Wait until it has done what earlier loads have left; ten seconds at most."""
        for _ in range(round(_SETTLE_S / _LOOK_EVERY_S)):
            before = sum(self.cpu_s().values())
            pause(_LOOK_EVERY_S)
            if sum(self.cpu_s().values()) - before < _IDLE * _LOOK_EVERY_S:
                return


@contextlib.contextmanager
def on_dapr(folder: Path) -> Iterator[Running]:
    """Real Dapr with Redis. Raises SystemFailedError and MissingRedisError."""
    layout = Layout(folder, free_ports(), binaries_folder(), _COMPONENTS)
    system = DaprSystem(layout, _settings(folder), apps=_APPS)
    try:
        system.start()
        yield Running(DAPR, f"http://{HOST}:{layout.ports.chat.app}", system.processes)
    finally:
        system.stop()


@contextlib.contextmanager
def in_one_process(folder: Path) -> Iterator[Running]:
    """`everturn up`."""
    ports = free_ports()
    up = Command("up", [sys.executable, "-m", "benchmarks.dapr_apps"], _environment(folder, ports), "")
    with _started(folder, {"up": up}, lambda _: ports.chat.app) as processes:
        yield Running(ONE_PROCESS, f"http://{HOST}:{ports.chat.app}", processes)


@contextlib.contextmanager
def apart(folder: Path) -> Iterator[Running]:
    """`everturn runtime` as the sidecar of both services, and a process for each of them."""
    ports = free_ports()
    environment = _environment(folder, ports)
    # The second service's sidecar is at the next ports: free ones may not be neighbours, so each app has a runtime.
    commands: dict[str, Command] = {}
    for service, app_id in (("memory", "agent-memory-service"), ("chat", "chat-service")):
        own = ports.services[service]
        sidecar = {"DAPR_HTTP_PORT": str(own.http), "DAPR_GRPC_PORT": str(own.grpc)}
        arguments = [sys.executable, "-m", "everturn.cli", "runtime", "--app-id", app_id, "--app-port", str(own.app)]
        arguments += ["--dapr-http-port", str(own.http), "--dapr-grpc-port", str(own.grpc), "-d", str(_COMPONENTS)]
        commands[f"{service}-runtime"] = Command(f"{service}-runtime", arguments, environment, "")
        uvicorn = [sys.executable, "-m", "uvicorn", _APPS[service], "--host", HOST, "--port", str(own.app)]
        commands[service] = Command(service, [*uvicorn, "--no-access-log"], {**environment, **sidecar}, "")
    listens = {"memory": ports.memory.app, "chat": ports.chat.app}
    with _started(folder, commands, listens.get) as processes:
        yield Running(APART, f"http://{HOST}:{ports.chat.app}", processes)


@contextlib.contextmanager
def _started(
    folder: Path, commands: Mapping[str, Command], service_port: Callable[[str], int | None]
) -> Iterator[dict[str, Process]]:
    folder.mkdir()
    processes: dict[str, Process] = {}
    try:
        for name, command in commands.items():
            processes[name] = start(command, folder, folder)
        for name, process in processes.items():
            port = service_port(name)
            if port is not None:
                _wait_until_ready(port, process)
        yield processes
    finally:
        for process in reversed(processes.values()):
            process.stop()


def _settings(folder: Path) -> dict[str, str]:
    return {"EVERTURN_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(_ROOT)}


def _environment(folder: Path, ports: Ports) -> dict[str, str]:
    own = {"EVERTURN_CHAT_PORT": str(ports.chat.app), "EVERTURN_MEMORY_PORT": str(ports.memory.app)}
    return {**os.environ, **_settings(folder), **own}


def _wait_until_ready(port: int, process: Process) -> None:
    waited_s = 0.0
    while not _answers(port):
        if process.has_ended:
            raise RuntimeError(f"{process.command.name} has ended:\n{process.last_lines()}")
        if waited_s > _PATIENCE_S:
            raise RuntimeError(f"{process.command.name} is not ready after {_PATIENCE_S:g} s:\n{process.last_lines()}")
        pause(_PAUSE_S)
        waited_s += _PAUSE_S


def _answers(port: int) -> bool:
    try:
        # No proxy of the environment: this is loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{HOST}:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
