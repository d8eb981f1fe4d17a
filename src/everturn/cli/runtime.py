"""`everturn runtime`: the embedded runtime alone, for services in processes of their own.

Without `--app-id` it is the sidecar of both services; with it, that of one app, with the flags of `dapr run`
(https://docs.dapr.io/reference/cli/dapr-run/).
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from everturn.cli.app_process import AppProcess
from everturn.cli.banner import address
from everturn.cli.listeners import WebServer, allow_many_connections, listen
from everturn.cli.peer_socket import among_neighbours
from everturn.cli.process import Deadline, end_at_once, loop_factory, spare_collector, stop_signal
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.errors import SettingError
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions
from everturn.runtime.grpc_app import GrpcAppTransport
from everturn.runtime.peers import PeerFolder
from everturn.runtime.served_app import ServedApp
from everturn.settings import Settings
from everturn.sidecar.http_transport import HttpTransport
from everturn.sidecar.wire import Transport

log = logging.getLogger(__name__)

# Sidecars and their apps are on the same machine.
_HOST = "127.0.0.1"
# Of the time for a graceful stop, what the app may use.
_SHARE_OF_APP = 0.8
# Seconds for requests that are under way when everything behind them has stopped.
_GOODBYE_S = 1.0
_LAST_PORT = 65_535
_LOG_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """What the command line says. A port is None where it is not given; `command` may be empty."""

    app_id: str | None = None
    app_port: int | None = None
    app_protocol: Literal["http", "grpc"] = "http"
    http_port: int | None = None
    grpc_port: int | None = None
    resources_path: Path | None = None
    configuration: Path | None = None
    log_level: str = "info"
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _App:
    """An app and the ports of its sidecar; 0 where the system is to choose."""

    app_id: str
    port: int | None
    http_port: int
    grpc_port: int
    speaks_grpc: bool = False


@dataclass(frozen=True, slots=True)
class _Listening:
    """A sidecar that is ready, at the ports that it has in the end."""

    app: ServedApp
    web: WebServer
    http_port: int
    grpc_port: int

    async def stop(self, limit_s: float) -> None:
        await asyncio.gather(self.web.stop(limit_s), self.app.grpc.stop(limit_s))


def run_runtime(settings: Settings, command: RuntimeCommand) -> int:
    """Run until SIGTERM or Ctrl-C, or until the command has ended; its exit code, 0 where there is none.

    Raises SettingError or StartError where it cannot start.
    """
    apps = _apps(settings, command)
    logging.getLogger("everturn").setLevel(_LOG_LEVELS[command.log_level])
    _check_configuration(command.configuration)
    allow_many_connections()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings, command, apps))


def _apps(settings: Settings, command: RuntimeCommand) -> list[_App]:
    if command.app_id is not None:
        speaks_grpc = command.app_protocol == "grpc"
        return [_App(command.app_id, command.app_port, command.http_port or 0, command.grpc_port or 0, speaks_grpc)]
    if command.app_port is not None or command.command:
        raise SettingError("--app-port and a command are for one app: name it with --app-id")
    http_port, grpc_port = command.http_port or settings.dapr_http_port, command.grpc_port or settings.dapr_grpc_port
    if _LAST_PORT in (http_port, grpc_port):
        raise SettingError(f"--dapr-http-port, --dapr-grpc-port: {_LAST_PORT} leaves none for the second service")
    return [
        _App(CHAT_APP_ID, settings.chat_port, http_port, grpc_port),
        _App(MEMORY_APP_ID, settings.memory_port, http_port + 1, grpc_port + 1),
    ]


def _check_configuration(file: Path | None) -> None:
    """A wrong path is a wrong setting, what is in the file is not."""
    if file is not None and not file.is_file():
        raise SettingError(f"--config: there is no file {str(file)!r}")


async def _run(settings: Settings, command: RuntimeCommand, apps: Sequence[_App]) -> int:
    stopping = asyncio.create_task(stop_signal().wait())
    deadline = Deadline(settings.shutdown_s)
    exit_code = 0
    async with contextlib.AsyncExitStack() as stack:
        runtime = await EmbeddedRuntime.open(_folder(settings, command), options=_options(settings, command))
        stack.push_async_callback(lambda: runtime.stop(deadline.left_s()))
        sidecars = [await _serve(runtime, app, stack, deadline) for app in apps]
        await runtime.start()
        if command.app_id is not None:
            neighbours = runtime.join(PeerFolder(settings.data_dir / "apps", command.app_id), command.app_id)
            await stack.enter_async_context(among_neighbours(neighbours, _GOODBYE_S))
        spare_collector(resumed=runtime.resumed)
        _say_what_runs(settings, sidecars)
        process = None
        if command.command:
            process = await AppProcess.start(command.command, _environment(apps[0], command, sidecars[0]))
            stack.push_async_callback(lambda: process.stop(deadline.left_s() * _SHARE_OF_APP))
            ended = asyncio.create_task(process.ended())
            await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
            exit_code = ended.result() if ended.done() else 0
            ended.cancel()
        else:
            await stopping
        log.info("stopping", extra={"limit_s": settings.shutdown_s})
        deadline.begin()
        asyncio.get_running_loop().call_later(settings.shutdown_s, end_at_once)
        if process is not None:
            await process.stop(deadline.left_s() * _SHARE_OF_APP)  # while it can still finish what it is doing
        connected = any(sidecar.app.worker.connected for sidecar in sidecars)
        await runtime.stop(deadline.left_s() if connected else 0)
    stopping.cancel()
    log.info("stopped")
    return exit_code


async def _serve(
    runtime: EmbeddedRuntime, app: _App, stack: contextlib.AsyncExitStack, deadline: Deadline
) -> _Listening:
    listener = stack.enter_context(listen(_HOST, app.http_port, "--dapr-http-port"))
    channel = _channel(app)
    if channel is not None:
        stack.push_async_callback(channel.close)
    served = runtime.serve_app(app.app_id, channel)
    grpc_port = await served.grpc.start(_HOST, app.grpc_port)
    sidecar = _Listening(served, WebServer(served.http, listener), int(listener.getsockname()[1]), grpc_port)
    stack.push_async_callback(lambda: sidecar.stop(min(_GOODBYE_S, deadline.left_s())))
    sidecar.web.start()
    return sidecar


def _channel(app: _App) -> Transport | None:
    if app.port is None:
        return None
    return GrpcAppTransport(f"{_HOST}:{app.port}") if app.speaks_grpc else HttpTransport(address(_HOST, app.port))


def _folder(settings: Settings, command: RuntimeCommand) -> Path:
    """Both services share the folder of `everturn up`; another app has one of its own in it."""
    if command.app_id is None:
        return settings.data_dir
    return PeerFolder(settings.data_dir / "apps", command.app_id).own_folder


def _options(settings: Settings, command: RuntimeCommand) -> RuntimeOptions:
    app_token, api_token = settings.app_api_token, settings.dapr_api_token
    return RuntimeOptions(
        components_dir=command.resources_path,
        configuration=command.configuration,
        app_api_token=app_token.get_secret_value() if app_token is not None else None,
        api_token=api_token.get_secret_value() if api_token is not None else None,
    )


def _environment(app: _App, command: RuntimeCommand, sidecar: _Listening) -> dict[str, str]:
    """What `dapr run` tells a command of its sidecar."""
    told = {
        "APP_ID": app.app_id,
        "APP_PROTOCOL": command.app_protocol,
        "DAPR_HTTP_PORT": str(sidecar.http_port),
        "DAPR_GRPC_PORT": str(sidecar.grpc_port),
    }
    return told if app.port is None else {**told, "APP_PORT": str(app.port)}


def _say_what_runs(settings: Settings, sidecars: Sequence[_Listening]) -> None:
    for sidecar in sidecars:
        print(
            f"sidecar of {sidecar.app.app_id}: HTTP {_HOST}:{sidecar.http_port}, gRPC {_HOST}:{sidecar.grpc_port}",
            flush=True,
        )
    print(f"data folder: {settings.data_dir.resolve()}. Ctrl-C stops it.", flush=True)
