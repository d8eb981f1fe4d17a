"""The workflow engine as the rest of the runtime sees it: open, register workers, give clients, stop."""

import asyncio
import logging
from typing import Protocol

import grpc
from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow.aio import DaprWorkflowClient

from everturn.dapr.sdk.execution import client_over
from everturn.errors import TransientError
from everturn.runtime.clock import Clock, SystemClock
from everturn.runtime.database.database import Database
from everturn.runtime.workflow.rpc import Hub, RpcFault
from everturn.runtime.workflow.scheduler import Scheduler
from everturn.runtime.workflow.store import WorkflowStore
from everturn.runtime.workflow.task_hub import Stub, TaskHub
from everturn.runtime.workflow.worker import LocalWorker, Worker, Workers

log = logging.getLogger(__name__)

# So many instances are woken in one round of the loop: recovery leaves room for requests.
_WAKE_BATCH = 50
_RECOVERY_RETRY_S = 1.0
_ROOM_LOOKS = 100
_ROOM_LOOK_S = 0.001


class Router(Protocol):
    """Which hub and which worker serve an app, if there are other runtimes beside this one."""

    def hub(self, own: TaskHub) -> Hub:
        """What answers the calls for the app of `own`, its hub in this runtime."""
        ...

    def worker(self, app_id: str) -> Worker | None:
        """The worker of an app that has none in this runtime; None if there is none anywhere."""
        ...


class WorkflowEngine:
    """The workflows of every app over one database. `start` it before the first call; one engine a database.

    `router` says what serves an app if other runtimes may do so; without one the engine itself does.

    `resumed` is the number of unfinished top-level instances that `start` found, `resumed_by_name` by workflow name.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None, router: Router | None = None) -> None:
        self._store = WorkflowStore(database)
        self._router = router
        self._workers = Workers(router.worker if router is not None else None)
        self._scheduler = Scheduler(self._store, clock or SystemClock(), self._workers)
        self.resumed = 0
        self.resumed_by_name: dict[str, int] = {}

    async def start(self) -> None:
        """Recover what is unfinished: timers now, work as soon as its app has a worker.

        Raises TransientError if the database cannot be read or written.
        """
        await self._store.drop_orphans()
        self._store.recover_counters()
        self.resumed_by_name = self._store.unfinished()
        self.resumed = sum(self.resumed_by_name.values())
        for owner, timer in self._store.timers():
            self._scheduler.timers.arm(owner, timer)

    def register(self, app_id: str, worker: WorkflowRuntime | Worker) -> None:
        """Run the app's workflows and activities with `worker`. Raises ValueError if the app has one already.

        With a `WorkflowRuntime`, workflows and coroutine activities run in this loop, other activities in threads.
        """
        if app_id in self._workers.own:
            raise ValueError(f"app {app_id!r} has a worker already")
        self._workers.own[app_id] = LocalWorker(worker) if isinstance(worker, WorkflowRuntime) else worker
        self.wake(app_id)

    def wake(self, app_id: str) -> None:
        """Give the app's worker what waits on disk for it: one has come, or code that may fit a stalled workflow."""
        self._scheduler.spawn(self._recover(app_id))

    async def unregister(self, app_id: str, limit_s: float = 0.0) -> None:
        """Stop giving work to the app's worker. Its activities get `limit_s` seconds to finish; others run again."""
        worker = self._workers.own.pop(app_id, None)
        if worker is not None:
            await self._scheduler.activities.stop(app_id, limit_s)
            worker.close()

    def client(self, app_id: str) -> DaprWorkflowClient:
        """The SDK's asyncio client for the app, without a socket. To be used in the engine's loop."""
        return client_over(Stub(self.hub(app_id)))

    def hub(self, app_id: str) -> Hub:
        """What answers the calls for the app's workflows, wherever they are."""
        own = self.task_hub(app_id)
        return own if self._router is None else self._router.hub(own)

    def task_hub(self, app_id: str) -> TaskHub:
        """The app's workflows in this runtime alone."""
        return TaskHub(app_id, self._scheduler)

    def worker_of(self, app_id: str) -> Worker | None:
        """What runs the app's code, None if nothing does."""
        return self._workers.find(app_id)

    async def stop(self, limit_s: float) -> None:
        """Finish what is under way within `limit_s` seconds; the rest stays on disk, for the next start.

        Callers that still wait for an instance get CANCELLED.
        """
        self._scheduler.stopping = True
        self._scheduler.timers.stop()
        deadline = asyncio.get_running_loop().time() + limit_s
        own = (self.unregister(app_id, limit_s) for app_id in list(self._workers.own))
        await asyncio.gather(self._scheduler.activities.stop(None, limit_s), *own)
        await self._scheduler.finish(max(0.0, deadline - asyncio.get_running_loop().time()))
        self._scheduler.watchers.fail_all(RpcFault(grpc.StatusCode.CANCELLED, "the runtime is stopping"))

    @property
    def active_instances(self) -> int:
        """Instances of which a work item is under way or about to be."""
        return self._scheduler.instances.busy_count

    @property
    def resident_instances(self) -> int:
        """Instances in memory."""
        return len(self._scheduler.instances)

    @property
    def running_activities(self) -> int:
        return len(self._scheduler.activities)

    @property
    def armed_timers(self) -> int:
        return len(self._scheduler.timers)

    @property
    def commits(self) -> int:
        """Work items committed since the start."""
        return self._scheduler.commits

    async def _recover(self, app_id: str) -> None:
        """Give the app's new worker what waits on disk for it. Histories are read as each instance gets to it."""
        while self._workers.find(app_id) is not None and not self._scheduler.stopping:
            try:
                await self._wake_all(app_id)
                for page in self._store.pending_activities(app_id):
                    # No await between the reading of a page and its dispatch: an activity could end in between.
                    for task in page:
                        self._scheduler.dispatch(task)
                    await self._room()
            except TransientError as error:
                log.warning("recovery_delayed", extra={"app_id": app_id, "kind": error.kind})
                await asyncio.sleep(_RECOVERY_RETRY_S)
            else:
                return

    async def _room(self) -> None:
        """Return when few instances are busy: what was recovered is best finished while it is in memory and warm.

        Those that are stuck, with a worker that does not answer, hold the others up for a while only.
        """
        await asyncio.sleep(0)
        for _ in range(_ROOM_LOOKS):
            if self.active_instances <= _WAKE_BATCH or self._scheduler.stopping:
                return
            await asyncio.sleep(_ROOM_LOOK_S)

    async def _wake_all(self, app_id: str) -> None:
        for count, (instance_id, key) in enumerate(self._store.with_inbox(app_id), start=1):
            instance = self._scheduler.instances.get(app_id, instance_id)
            if instance is not None and instance.key == key:
                instance.released = True
                self._scheduler.wake(instance)
            if count % _WAKE_BATCH == 0:
                await self._room()
