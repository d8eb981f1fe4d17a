"""The embedded runtime: one data folder, one database, the workflow engine and the building blocks, in one loop."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient

from everturn.errors import StartError, TransientError
from everturn.runtime.channels import AppChannel
from everturn.runtime.clock import Clock, SystemClock, wait_until
from everturn.runtime.components import DEFAULT_COMPONENTS, read_components
from everturn.runtime.configuration import NO_CONFIGURATION, read_configuration
from everturn.runtime.grpc_worker import RemoteWorker
from everturn.runtime.http_call import BuildingBlocks
from everturn.runtime.http_front import HttpFront
from everturn.runtime.in_process import InProcessTransport
from everturn.runtime.lock import FolderLock
from everturn.runtime.neighbours import Neighbours
from everturn.runtime.peer_hub import OtherHubs
from everturn.runtime.peers import PeerFolder
from everturn.runtime.served_app import ServedApp
from everturn.runtime.state import sweep_expired
from everturn.runtime.store.database import Database
from everturn.runtime.task_hub import TaskHub
from everturn.runtime.workflows import WorkflowEngine
from everturn.sidecar.wire import Transport
from everturn.sidecar.workflows import Sidecar

log = logging.getLogger(__name__)

_DATABASE_FILE = "everturn.db"
# Expired keys are absent at once; this only gives their space back.
_SWEEP_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """`components_dir`: folder of Dapr component files, None for what both services need; `configuration`: a file.

    `app_api_token` goes to the apps with every request (APP_API_TOKEN). `api_token` is asked of callers on a socket
    (DAPR_API_TOKEN). `app_stop_s`: seconds that an app's deliveries and activities under way get when it stops.
    """

    components_dir: Path | None = None
    configuration: Path | None = None
    app_api_token: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    app_stop_s: float = 2.0
    clock: Clock = field(default_factory=SystemClock)


class EmbeddedRuntime:
    """Open with `open`, add the apps, then `start`; end with `stop`. All in one loop.

    `options`, `broker` (counters, dead letters), `engine` (counts) and `others` are there to be read.
    """

    def __init__(
        self, lock: FolderLock, blocks: BuildingBlocks, engine: WorkflowEngine, options: RuntimeOptions
    ) -> None:
        self.options = options
        self.engine = engine
        self.broker = blocks.broker
        self._lock = lock
        self._blocks = blocks
        self._fronts: dict[str, HttpFront] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self.others = OtherHubs()

    @classmethod
    async def open(cls, data_dir: Path, *, options: RuntimeOptions) -> "EmbeddedRuntime":
        """Lock `data_dir`, open what is in it and take up its unfinished workflows.

        These run as soon as their app's sidecar is started; no message is delivered before `start`. Raises StartError
        where the folder is in use, cannot be written to or is damaged, or a component file is wrong.
        """
        folder = options.components_dir
        components = read_components(folder) if folder is not None else DEFAULT_COMPONENTS
        file = options.configuration
        configuration = read_configuration(file) if file is not None else NO_CONFIGURATION
        async with contextlib.AsyncExitStack() as undo:
            lock = FolderLock.take(data_dir)
            undo.callback(lock.release)
            database = await Database.open(data_dir / _DATABASE_FILE)
            undo.push_async_callback(database.close)
            blocks = BuildingBlocks.over(database, options.clock, components, configuration)
            engine = WorkflowEngine(database, clock=options.clock)
            try:
                await engine.start()
            except TransientError as error:
                raise StartError(f"cannot resume from the data folder {str(data_dir)!r}: {error.message}") from error
            undo.pop_all()
        return cls(lock, blocks, engine, options)

    @property
    def resumed(self) -> int:
        """How many unfinished top-level workflows `open` found."""
        return self.engine.resumed

    def resumed_of(self, workflow: str) -> int:
        """How many of them are of the workflow registered as `workflow`."""
        return self.engine.resumed_by_name.get(workflow, 0)

    def front(self, app_id: str) -> HttpFront:
        """The HTTP API of an app that was added, to be served on a socket. Raises KeyError for another one."""
        return self._fronts[app_id]

    def add_app(self, app_id: str, channel: Transport) -> Sidecar:
        """The sidecar of an app in this process that is reached over `channel`."""
        return EmbeddedSidecar(app_id, self._add(app_id, channel, self.engine.task_hub(app_id)), self)

    def serve_app(self, app_id: str, channel: Transport | None) -> ServedApp:
        """The sidecar of an app in another process, which is reached over `channel`; None where it does not listen.

        The work of its workflows waits for it to connect.
        """
        hub = self.engine.routed_hub(app_id, self.others)
        front = self._add(app_id, channel, hub)
        return ServedApp.over(front, self.engine, RemoteWorker(self.options.clock), hub)

    def join(self, folder: PeerFolder, app_id: str) -> Neighbours:
        """Deal with the other runtimes of the folder on behalf of `app_id`, the one app of this runtime."""
        return Neighbours(folder, app_id, self._blocks, self.engine, self.others)

    def _add(self, app_id: str, channel: Transport | None, hub: TaskHub) -> HttpFront:
        if channel is not None:
            app = AppChannel(app_id, channel, self.options.app_api_token)
            self._blocks.channels.add(app)
            self.broker.add_app(app)
        front = HttpFront(app_id, self._blocks, api_token=self.options.api_token, task_hub=hub)
        self._fronts[app_id] = front
        return front

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
        self._lock.release()

    def set_away(self, what: Literal["broker"], away: bool) -> None:
        """As if the broker could not be reached: a publish is a 500, nothing is delivered."""
        assert what == "broker"
        self.broker.set_away(away)

    def set_app_away(self, app_id: str, away: bool) -> None:
        """As if the app could not be reached, by invocation or delivery. Raises KeyError for an unknown app."""
        self._blocks.channels.by_id[app_id].away = away
        if not away:
            self.broker.app_is_back(app_id)

    async def _sweep(self) -> None:
        clock = self.options.clock
        while True:
            try:
                swept = await sweep_expired(self._blocks.database, clock)
                log.debug("state_swept", extra={"keys": swept})
            except TransientError as error:
                log.warning("state_not_swept", extra={"reason": error.message})
            await wait_until(clock, clock.now() + _SWEEP_EVERY_S)


class EmbeddedSidecar:
    """`Sidecar` of one app of the runtime, without a socket."""

    def __init__(self, app_id: str, front: HttpFront, runtime: EmbeddedRuntime) -> None:
        self._app_id = app_id
        self._runtime = runtime
        self._transport = InProcessTransport(front)
        self._workflows = runtime.engine.client(app_id)

    @property
    def transport(self) -> InProcessTransport:
        return self._transport

    @property
    def workflows(self) -> DaprWorkflowClient:
        return self._workflows

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
