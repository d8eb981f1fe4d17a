"""The workflow engine as the rest of the runtime sees it: open, register workers, give clients, stop."""

import asyncio
import logging
import uuid

from everturn.errors import TransientError
from everturn.runtime import rpc_fault
from everturn.runtime.activities import ActivityTask
from everturn.runtime.clock import Clock, SystemClock
from everturn.runtime.engine.decision import ScheduledActivity
from everturn.runtime.engine.propagation import scope_of
from everturn.runtime.host import Host
from everturn.runtime.in_process_client import in_process_client
from everturn.runtime.peer_hub import OtherHubs, RoutedHub
from everturn.runtime.sdk import DaprWorkflowClient, WorkflowRuntime
from everturn.runtime.store.database import Database
from everturn.runtime.store.workflow_store import PendingActivity, WorkflowStore, events_of
from everturn.runtime.task_hub import TaskHub
from everturn.runtime.worker import LocalWorker, Worker

log = logging.getLogger(__name__)

# So many instances are woken in one round of the loop: recovery leaves room for requests.
_WAKE_AT_ONCE = 50
_RECOVERY_RETRY_S = 1.0


class WorkflowEngine:
    """The workflows of every app over one database. `start` it before the first call; one engine a database.

    `resumed` is the number of unfinished top-level instances that `start` found, `resumed_by_name` by workflow name.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        self._store = WorkflowStore(database)
        self._host = Host(self._store, clock or SystemClock(), _new_id)
        self._started = False
        self.resumed = 0
        self.resumed_by_name: dict[str, int] = {}

    async def start(self) -> int:
        """Recover what is unfinished: timers now, work as soon as its app has a worker. Returns `resumed`.

        Raises TransientError where the database cannot be read or written.
        """
        await self._store.drop_orphans()
        self._store.recover_counters()
        self.resumed_by_name = self._store.unfinished()
        self.resumed = sum(self.resumed_by_name.values())
        for pending in self._store.timers():
            self._host.timers.arm((pending.app_id, pending.instance_id), pending.row)
        self._started = True
        for app_id in self._host.workers:
            self._host.spawn(self._recover(app_id))
        return self.resumed

    def register(self, app_id: str, worker: WorkflowRuntime | Worker) -> None:
        """Run the app's workflows and activities with `worker`. Raises ValueError where the app has one already.

        With a `WorkflowRuntime`, turns and coroutine activities run in this loop, other activities in threads.
        """
        if app_id in self._host.workers:
            raise ValueError(f"app {app_id!r} has a worker already")
        self._host.workers[app_id] = LocalWorker(worker) if isinstance(worker, WorkflowRuntime) else worker
        if self._started:
            self._host.spawn(self._recover(app_id))

    def try_again(self, app_id: str) -> None:
        """Wake what waits on disk for the app's worker: to it has come code that may fit a stalled workflow."""
        if self._started:
            self._host.spawn(self._recover(app_id))

    async def unregister(self, app_id: str, limit_s: float = 0.0) -> None:
        """Stop giving work to the app's worker. Its activities get `limit_s` seconds to finish; others run again."""
        worker = self._host.workers.pop(app_id, None)
        if worker is not None:
            await self._host.activities.stop(app_id, limit_s)
            worker.close()

    def client(self, app_id: str) -> DaprWorkflowClient:
        """The SDK's asyncio client for the app. To be used in the engine's loop."""
        return in_process_client(self.task_hub(app_id))

    def task_hub(self, app_id: str) -> TaskHub:
        """The app's task hub, for a front that speaks gRPC."""
        return TaskHub(app_id, self._host)

    def routed_hub(self, app_id: str, others: OtherHubs) -> TaskHub:
        """The app's task hub where there may be other runtimes."""
        return RoutedHub(app_id, self._host, others)

    def worker_of(self, app_id: str) -> Worker | None:
        """What runs the app's code, None where nothing does."""
        return self._host.workers.get(app_id)

    async def stop(self, limit_s: float) -> None:
        """Finish what is under way within `limit_s` seconds; the rest stays on disk, for the next start.

        Who still waits for an instance gets CANCELLED.
        """
        self._host.stopping = True
        self._host.timers.stop()
        deadline = asyncio.get_running_loop().time() + limit_s
        await asyncio.gather(*(self.unregister(app_id, limit_s) for app_id in list(self._host.workers)))
        await self._host.finish(max(0.0, deadline - asyncio.get_running_loop().time()))
        self._host.watchers.fail_all(rpc_fault.cancelled("the runtime is stopping"))

    @property
    def active_instances(self) -> int:
        """Instances of which a step is under way or about to be."""
        return self._host.instances.busy_count

    @property
    def resident_instances(self) -> int:
        """Instances in memory."""
        return len(self._host.instances)

    @property
    def running_activities(self) -> int:
        return len(self._host.activities)

    @property
    def armed_timers(self) -> int:
        return len(self._host.timers)

    @property
    def steps(self) -> int:
        """Steps committed since the start."""
        return self._host.steps

    async def _recover(self, app_id: str) -> None:
        """Give the app's new worker what waits on disk for it. Histories are read as each instance gets to it."""
        while app_id in self._host.workers and not self._host.stopping:
            try:
                await self._wake_all(app_id)
                for page in self._store.pending_activities(app_id):
                    # No await between the reading of a page and its dispatch: an activity could end in between.
                    for pending in page:
                        self._dispatch(pending)
                    await asyncio.sleep(0)
            except TransientError as error:
                log.warning("recovery_delayed", extra={"app_id": app_id, "kind": error.kind})
                await asyncio.sleep(_RECOVERY_RETRY_S)
            else:
                return

    async def _wake_all(self, app_id: str) -> None:
        for count, (instance_id, key) in enumerate(self._store.with_inbox(app_id), start=1):
            instance = self._host.instances.get(app_id, instance_id)
            if instance is not None and instance.key == key:
                instance.released = True
                self._host.wake(instance)
            if count % _WAKE_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _dispatch(self, pending: PendingActivity) -> None:
        row = pending.row
        for event in events_of(pending.events):
            if event.eventId == row.task_id and event.HasField("taskScheduled"):
                owner = (pending.app_id, pending.instance_id)
                if scope_of(event) and (instance := self._host.instances.get(*owner)) is not None:
                    activity = ScheduledActivity(row.task_id, row.app_id, event)
                    self._host.run_activity(instance, activity, row.execution_id)
                else:
                    self._host.dispatch(ActivityTask(owner, row.key, row.execution_id, row.app_id, event))
                return


def _new_id() -> str:
    return str(uuid.uuid4())
