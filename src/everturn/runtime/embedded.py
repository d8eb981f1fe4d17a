"""The embedded runtime: one data folder, one database, the workflow engine and the building blocks, in one loop."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dapr.ext.workflow import WorkflowRuntime

from everturn.dapr.origins import AllowedPages
from everturn.dapr.wire import AsgiApp, Transport
from everturn.dapr.workflows import Sidecar
from everturn.errors import StartError, TransientError
from everturn.runtime.building_blocks import AppView, BuildingBlocks
from everturn.runtime.clock import Clock, SystemClock, sleep
from everturn.runtime.database.database import DATABASE_FILE, Database
from everturn.runtime.embedded_client import EmbeddedClient
from everturn.runtime.grpc.dapr_service import dapr_handlers
from everturn.runtime.grpc.remote_worker import RemoteWorker
from everturn.runtime.grpc.server import MAX_CONNECTIONS, GrpcServer
from everturn.runtime.grpc.task_hub import task_hub_handlers
from everturn.runtime.http.api import DaprHttpApi
from everturn.runtime.http.asgi import as_asgi
from everturn.runtime.invocation.invoke import AppChannel
from everturn.runtime.lock import lock_folder
from everturn.runtime.peers.link import peer_api
from everturn.runtime.peers.router import PeerRouter
from everturn.runtime.resources.components import DEFAULT_COMPONENTS, DEFAULT_SECRET_STORE, read_components
from everturn.runtime.resources.configuration import (
    NO_CONFIGURATION,
    Configuration,
    SecretScope,
    read_configuration,
)
from everturn.runtime.state.store import STATE_STORES, OpenStateStore
from everturn.runtime.workflow.engine import WorkflowEngine
from everturn.runtime.workflow.rpc import Hub

log = logging.getLogger(__name__)

# Expired keys are absent at once; this only gives their space back.
_SWEEP_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """`components_dir`: folder of Dapr resource files (--resources-path), None for what both services need.

    `configuration`: a file (--config). `app_api_token` is sent to the apps with every request (APP_API_TOKEN).
    On a socket `api_token` is asked of callers (DAPR_API_TOKEN), and of web pages only `pages` may call. `app_stop_s`:
    seconds that an app's running deliveries and activities get when it stops. `state_stores`: by component type, what
    opens a store of it; any other type is kept in SQLite. `secrets`: without a `components_dir`, the variables of the
    environment that an app may read; a Configuration may say something else. `grpc_connections`: of each app's sidecar.
    """

    components_dir: Path | None = None
    configuration: Path | None = None
    app_api_token: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    pages: AllowedPages = field(default_factory=AllowedPages)
    app_stop_s: float = 2.0
    clock: Clock = field(default_factory=SystemClock)
    state_stores: Mapping[str, OpenStateStore] = field(default_factory=lambda: STATE_STORES)
    secrets: frozenset[str] = frozenset()
    grpc_connections: int = MAX_CONNECTIONS


@dataclass(frozen=True, slots=True)
class ServedApp:
    """The sidecar of an app in another process, to be put on sockets.

    `http` is the ASGI app of Dapr's HTTP API, `grpc` the server of its gRPC API, not yet started. `worker` says how
    many streams of work are open. `listens` is to be called once the app's port is open: only then is the sidecar
    healthy, and the app asked what it subscribes to.
    """

    app_id: str
    http: AsgiApp
    grpc: GrpcServer
    worker: RemoteWorker
    listens: Callable[[], None]


class EmbeddedRuntime:
    """Open with `open`, add the apps, then `start`; end with `stop`. All in one loop.

    `options`, `broker` (counters, dead letters) and `engine` (what was resumed) are there to be read.
    """

    def __init__(
        self, database: Database, lock: IO[str], options: RuntimeOptions, peers: PeerRouter | None = None
    ) -> None:
        """Raises StartError if a component file is wrong."""
        folder, file = options.components_dir, options.configuration
        components = read_components(folder) if folder is not None else DEFAULT_COMPONENTS
        configuration = read_configuration(file) if file is not None else NO_CONFIGURATION
        if folder is None:
            own = SecretScope(by_default=False, allowed=options.secrets)
            configuration = Configuration({DEFAULT_SECRET_STORE: own, **configuration.secret_scopes})
        self.options = options
        self.engine = WorkflowEngine(database, clock=options.clock, router=peers)
        self._lock = lock
        self._blocks = BuildingBlocks(
            database, options.clock, components, configuration, peers=peers, state_stores=options.state_stores
        )
        self.broker = self._blocks.broker
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, data_dir: Path, *, options: RuntimeOptions, peers: PeerRouter | None = None
    ) -> "EmbeddedRuntime":
        """Lock `data_dir`, open what is in it and resume its unfinished workflows.

        These run as soon as their app's sidecar is started; no message is delivered before `start`. Raises StartError
        if the folder is in use, cannot be written to or is damaged, or a resource file is wrong.
        """
        async with contextlib.AsyncExitStack() as undo:
            lock = lock_folder(data_dir)
            undo.callback(lock.close)
            database = await Database.open(data_dir / DATABASE_FILE)
            undo.push_async_callback(database.close)
            try:
                runtime = await cls.create(database, lock, options, peers)
            except TransientError as error:
                raise StartError(f"cannot resume from the data folder {str(data_dir)!r}: {error.message}") from error
            undo.pop_all()
        return runtime

    @classmethod
    async def create(
        cls, database: Database, lock: IO[str], options: RuntimeOptions, peers: PeerRouter | None = None
    ) -> "EmbeddedRuntime":
        """The runtime on an open `database`, whose folder is held by `lock`; `stop` ends both.

        Raises StartError if a component file is wrong, TransientError if the database cannot be read.
        """
        runtime = cls(database, lock, options, peers)
        await runtime.engine.start()
        return runtime

    def add_app(self, app_id: str, channel: Transport) -> Sidecar:
        """The sidecar of an app in this process that is reached over `channel`."""
        app = self._add(app_id, channel, self.engine.hub(app_id))
        self.broker.add_app(self._blocks.channels.by_id[app_id])
        return EmbeddedSidecar(app, self)

    def serve_app(self, app_id: str, channel: Transport | None) -> ServedApp:
        """The sidecar of an app in another process, which is reached over `channel`; None if it does not listen.

        The work of its workflows waits for it to connect.
        """
        hub = self.engine.hub(app_id)
        app = self._add(app_id, channel, hub)
        worker = RemoteWorker(self.options.clock)
        self.engine.register(app_id, worker)
        app.connected_workers = lambda: worker.connected
        app.is_up = channel is None

        def listens() -> None:
            app.is_up = True
            if channel is not None:
                self.broker.add_app(self._blocks.channels.by_id[app_id])

        options = self.options
        api = DaprHttpApi(app, api_token=options.api_token, pages=options.pages)
        handlers = [task_hub_handlers(hub, worker, lambda: self.engine.wake(app_id)), dapr_handlers(app)]
        server = GrpcServer(handlers, api_token=options.api_token, max_connections=options.grpc_connections)
        return ServedApp(app_id, as_asgi(api.handle), server, worker, listens)

    def peer_api(self, app_id: str) -> AsgiApp:
        """What this runtime, which is of that app, answers to its peers, once `PeerRouter.start` has announced it."""
        return peer_api(app_id, self._blocks, self.engine)

    def _add(self, app_id: str, channel: Transport | None, hub: Hub) -> AppView:
        if channel is not None:
            self._blocks.channels.add(AppChannel(app_id, channel, self.options.app_api_token))
        return AppView(app_id, self._blocks, hub)

    async def start(self) -> None:
        """Begin to deliver messages, and be healthy."""
        self.broker.start()
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self, limit_s: float) -> None:
        """Take no new work, let running work finish within `limit_s`, close the database and free the folder."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await asyncio.gather(self.broker.stop(limit_s), self.engine.stop(limit_s))
        await self._blocks.database.close()
        self._lock.close()

    async def _sweep(self) -> None:
        clock = self.options.clock
        while True:
            try:
                swept = await self._blocks.sweep()
                log.debug("state_swept", extra={"keys": swept})
            except TransientError as error:
                log.warning("state_not_swept", extra={"reason": error.message})
            await sleep(clock, _SWEEP_EVERY_S)


class EmbeddedSidecar:
    """`Sidecar` of one app of the runtime, without a socket or, for its `client`, HTTP."""

    def __init__(self, app: AppView, runtime: EmbeddedRuntime) -> None:
        self._app_id = app.app_id
        self._runtime = runtime
        self.transport = DaprHttpApi(app)
        self.client = EmbeddedClient(app)
        self.workflows = runtime.engine.client(app.app_id)

    async def start(self, worker: WorkflowRuntime) -> None:
        """Run what is registered on `worker`, in the running loop."""
        self._runtime.engine.register(self._app_id, worker)

    async def stop(self) -> None:
        """No further message and no further work goes to the app; what it has not finished is kept."""
        limit_s = self._runtime.options.app_stop_s
        await asyncio.gather(
            self._runtime.broker.stop_app(self._app_id, limit_s),
            self._runtime.engine.unregister(self._app_id, limit_s),
        )
