"""`everturn runtime`: the embedded runtime alone, for services in processes of their own.

Without `--app-id` it is the sidecar of both services; with it, that of one app, with the flags of `dapr run`
(https://docs.dapr.io/reference/cli/dapr-run/).
"""

import asyncio
import contextlib
import logging
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry

from everturn import logs
from everturn.cli.app_process import AppProcess
from everturn.cli.app_watch import watch_port, watch_worker
from everturn.cli.banner import address
from everturn.cli.bounded_http import BoundedHttp
from everturn.cli.process import (
    BACKLOG,
    GracefulStop,
    WebServer,
    bounded,
    freeze_gc,
    grpc_connections,
    listen,
    metrics_alone,
    refusals,
    run,
    share_of_files,
)
from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.origins import AllowedPages
from everturn.dapr.wire import Transport
from everturn.errors import SettingError, StartError
from everturn.runtime.clock import SystemClock
from everturn.runtime.database.database import DATABASE_FILE
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions, ServedApp
from everturn.runtime.grpc.app_callback import GrpcAppTransport
from everturn.runtime.grpc.server import MAX_CONNECTIONS
from everturn.runtime.peers.folder import PeerFolder
from everturn.runtime.peers.router import PeerRouter
from everturn.settings import Settings

log = logging.getLogger(__name__)

# Sidecars and their apps are on the same machine.
_HOST = "127.0.0.1"
# Of the time for a graceful stop, what the app may use.
_SHARE_OF_APP = 0.8
# Seconds for requests that are under way when everything behind them has stopped.
_GOODBYE_S = 1.0
_LAST_PORT = 65_535
_SOCKET_FOLDER_PREFIX, _SOCKET_NAME = "everturn-", "runtime.sock"


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """What the command line says. A port is None if it is not given; `command` may be empty."""

    app_id: str | None = None
    app_port: int | None = None
    app_protocol: Literal["http", "grpc"] = "http"
    http_port: int | None = None
    grpc_port: int | None = None
    resources_path: Path | None = None
    configuration: Path | None = None
    metrics_port: int | None = None
    log_level: str | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _App:
    """An app and the ports of its sidecar; 0 if the system is to choose."""

    app_id: str
    port: int | None
    http_port: int
    grpc_port: int
    speaks_grpc: bool = False


@dataclass(frozen=True, slots=True)
class _Listening:
    """A sidecar that is ready, at the ports that it has in the end."""

    app: ServedApp
    app_port: int | None
    web: WebServer
    http_port: int
    grpc_port: int

    def watch(self, stack: contextlib.AsyncExitStack) -> None:
        """Look for the app and its worker until `stack` ends."""
        watches = [watch_worker(self.app, self.grpc_port)]
        if self.app_port is not None:
            watches.append(watch_port(self.app, self.app_port))
        for watch in watches:
            stack.callback(asyncio.create_task(watch, name=f"watch of {self.app.app_id}").cancel)

    async def stop(self, limit_s: float) -> None:
        await asyncio.gather(self.web.stop(limit_s), self.app.grpc.stop(limit_s))


def run_runtime(settings: Settings, command: RuntimeCommand) -> int:
    """Run until SIGTERM or Ctrl-C, or until the command has ended; its exit code, 0 without one.

    Raises SettingError or StartError if it cannot start.
    """
    apps = _apps(settings, command)
    if command.log_level is not None:
        logs.set_level(command.log_level)
    if command.configuration is not None and not command.configuration.is_file():  # what is in it is no setting
        raise SettingError(f"--config: there is no file {str(command.configuration)!r}")
    return run(_run(settings, command, apps))


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


async def _run(settings: Settings, command: RuntimeCommand, apps: Sequence[_App]) -> int:
    stop = GracefulStop(settings.shutdown_s)
    stopping = asyncio.create_task(stop.asked.wait())
    exit_code = 0
    async with contextlib.AsyncExitStack() as stack:
        listeners = 2 * len(apps) + (command.metrics_port is not None)
        folder, peers = _folder(settings, command.app_id)
        runtime = await EmbeddedRuntime.open(folder, options=_options(settings, command, listeners), peers=peers)
        sidecars: list[_Listening] = []
        stack.push_async_callback(lambda: runtime.stop(_left_s(stop, sidecars)))
        registry = CollectorRegistry()
        protocol = partial(bounded, refusals(registry), listeners)
        if command.metrics_port is not None:
            _serve_metrics(command.metrics_port, registry, stack, stop, protocol())
        sidecars.extend([await _serve(runtime, app, stack, stop, protocol()) for app in apps])
        grpc_connections(registry, lambda: sum(sidecar.app.grpc.open_connections() for sidecar in sidecars))
        await runtime.start()
        if peers is not None:
            await stack.enter_async_context(serve_peers(runtime, peers, _GOODBYE_S))
        freeze_gc(resumed=runtime.engine.resumed)
        _print_what_runs(settings, sidecars)
        for sidecar in sidecars:
            sidecar.watch(stack)
        process = None
        if command.command:
            process = await AppProcess.start(command.command, _environment(apps[0], command, sidecars[0]))
            stack.push_async_callback(lambda: process.stop(stop.left_s() * _SHARE_OF_APP))
            ended = asyncio.create_task(process.ended())
            await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
            exit_code = ended.result() if ended.done() else 0
            ended.cancel()
        else:
            await stopping
        stop.begin()
        if process is not None:
            await process.stop(stop.left_s() * _SHARE_OF_APP)  # while it can still finish what it is doing
        await runtime.stop(_left_s(stop, sidecars))
    stopping.cancel()
    log.info("stopped")
    return exit_code


def _left_s(stop: GracefulStop, sidecars: Sequence[_Listening]) -> float:
    """Seconds for what is under way. Without a worker nothing is: a start that is refused is not to wait."""
    return stop.left_s() if any(sidecar.app.worker.connected for sidecar in sidecars) else 0.0


async def _serve(
    runtime: EmbeddedRuntime,
    app: _App,
    stack: contextlib.AsyncExitStack,
    stop: GracefulStop,
    protocol: type[BoundedHttp],
) -> _Listening:
    listener = stack.enter_context(listen(_HOST, app.http_port, "--dapr-http-port"))
    channel = _channel(app)
    if channel is not None:
        stack.push_async_callback(channel.close)
    served = runtime.serve_app(app.app_id, channel)
    try:
        grpc_port = await served.grpc.start(_HOST, app.grpc_port)
    except StartError as error:
        advice = "stop the program that uses it, or set --dapr-grpc-port to another port"
        raise StartError(f"{error.message}: {advice}") from error
    http_port = int(listener.getsockname()[1])
    sidecar = _Listening(served, app.port, WebServer(served.http, listener, protocol), http_port, grpc_port)
    stack.push_async_callback(lambda: sidecar.stop(min(_GOODBYE_S, stop.left_s())))
    return sidecar


def _serve_metrics(
    port: int,
    registry: CollectorRegistry,
    stack: contextlib.AsyncExitStack,
    stop: GracefulStop,
    protocol: type[BoundedHttp],
) -> None:
    """`/metrics` on a port of its own: on the API's ports it would be a route that Dapr has not."""
    server = WebServer(metrics_alone(registry), stack.enter_context(listen(_HOST, port, "--metrics-port")), protocol)
    stack.push_async_callback(lambda: server.stop(min(_GOODBYE_S, stop.left_s())))


def _channel(app: _App) -> Transport | None:
    if app.port is None:
        return None
    return GrpcAppTransport(f"{_HOST}:{app.port}") if app.speaks_grpc else HttpTransport(address(_HOST, app.port))


def _folder(settings: Settings, app_id: str | None) -> tuple[Path, PeerRouter | None]:
    """Both services share the folder of `everturn up`; with --app-id each app has its own in it, and peers there.

    Raises StartError if what was said under `everturn up` would seem to be lost by that.
    """
    if app_id is None:
        return settings.data_dir, None
    folder, shared = PeerFolder(settings.data_dir / "apps", app_id), settings.data_dir / DATABASE_FILE
    own = folder.own_folder
    if app_id in (CHAT_APP_ID, MEMORY_APP_ID) and shared.exists() and not (own / DATABASE_FILE).exists():
        raise StartError(
            f"{str(shared)!r} has what was said under `everturn up`, and --app-id would not read it: "
            "leave --app-id out, or set EVERTURN_DATA_DIR to another folder to begin with nothing"
        )
    return own, PeerRouter(folder, SystemClock())


def _options(settings: Settings, command: RuntimeCommand, listeners: int) -> RuntimeOptions:
    app_token, api_token = settings.app_api_token, settings.dapr_api_token
    return RuntimeOptions(
        components_dir=command.resources_path,
        configuration=command.configuration,
        app_api_token=app_token.get_secret_value() if app_token is not None else None,
        api_token=api_token.get_secret_value() if api_token is not None else None,
        pages=AllowedPages.of(settings),
        secrets=settings.secret_names,
        grpc_connections=min(MAX_CONNECTIONS, share_of_files(listeners)),
    )


def _environment(app: _App, command: RuntimeCommand, sidecar: _Listening) -> dict[str, str]:
    """What `dapr run` gives a command to know of its sidecar."""
    variables = {
        "APP_ID": app.app_id,
        "APP_PROTOCOL": command.app_protocol,
        "DAPR_HTTP_PORT": str(sidecar.http_port),
        "DAPR_GRPC_PORT": str(sidecar.grpc_port),
    }
    return variables if app.port is None else {**variables, "APP_PORT": str(app.port)}


def _print_what_runs(settings: Settings, sidecars: Sequence[_Listening]) -> None:
    for sidecar in sidecars:
        print(
            f"sidecar of {sidecar.app.app_id}: HTTP {_HOST}:{sidecar.http_port}, gRPC {_HOST}:{sidecar.grpc_port}",
            flush=True,
        )
    print(f"data folder: {settings.data_dir.resolve()}. Ctrl-C stops it.", flush=True)


@contextlib.asynccontextmanager
async def serve_peers(runtime: EmbeddedRuntime, peers: PeerRouter, limit_s: float) -> AsyncIterator[None]:
    """Hear the others, and be known to them. `limit_s`: seconds that requests under way get in the end.

    The socket lies in a folder of its own that only this user may enter, and not in the data folder: the path of a
    socket has little more than a hundred characters (unix(7)).
    """
    _remove(peers.left_socket())
    with tempfile.TemporaryDirectory(prefix=_SOCKET_FOLDER_PREFIX) as folder:
        path = Path(folder, _SOCKET_NAME)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
        server = WebServer(runtime.peer_api(peers.app_id), listener)
        await peers.start(path, runtime.broker, runtime.engine)
        try:
            yield
        finally:
            await peers.stop()
            await server.stop(limit_s)


def _remove(left: Path | None) -> None:
    """Clear away what a killed runtime left, and nothing that does not look like it."""
    if left is None or left.name != _SOCKET_NAME or not left.parent.name.startswith(_SOCKET_FOLDER_PREFIX):
        return
    with contextlib.suppress(OSError):
        left.unlink()
        left.parent.rmdir()
