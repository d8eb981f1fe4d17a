"""The scheduler: takes instances from work item to work item, never two at once of one instance.

A work item is: what is in the inbox, the worker's answer, the decision, one transaction. Only then is any of it
visible: in memory, to other instances, to callers that wait. What could not be committed never happened.
"""

import asyncio
import logging
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import replace

from everturn.dapr.sdk import protocol as pb
from everturn.errors import ConflictError, TerminalError, TransientError
from everturn.runtime.clock import Clock
from everturn.runtime.workflow.core.decide import ItemResult, WorkItem, advance, hold
from everturn.runtime.workflow.core.state import (
    Arrived,
    InstanceState,
    StartInstance,
    Status,
    accept,
    event_at,
    propagate,
    scope_of,
    timestamp_of,
    work_item_size,
)
from everturn.runtime.workflow.instances import (
    CommitBuilder,
    CommitPlan,
    InboxMessage,
    Instance,
    Instances,
    Submitted,
    Watchers,
    already_exists,
    new_instance,
)
from everturn.runtime.workflow.store import (
    START_TIMER_ID,
    ActivityTask,
    InstanceId,
    RowChanges,
    TimerRow,
    WorkflowStore,
)
from everturn.runtime.workflow.timers import Timers
from everturn.runtime.workflow.worker import (
    Activities,
    TooLargeError,
    Worker,
    Workers,
    WorkflowRequest,
    retry_delay_s,
)

log = logging.getLogger(__name__)

_CUT_OFF = "the runtime stopped before this was known to be on disk"


class StillRunningError(TerminalError):
    """An instance that has not ended was to be purged without force."""

    kind = "still_running"


class Scheduler:
    """Runs the instances of all apps in the running loop. An app without a worker has its work kept on disk.

    `commits` counts the work items that were committed.
    """

    def __init__(self, store: WorkflowStore, clock: Clock, workers: Workers) -> None:
        self.store = store
        self.clock = clock
        self.instances = Instances(store)
        self.watchers = Watchers()
        self.activities = Activities(clock, workers, self._finish)
        self.timers = Timers(clock, self._fire)
        self.commits = 0
        self.stopping = False
        self._workers = workers
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def new_id() -> str:
        return str(uuid.uuid4())

    # What clients do

    async def start(self, message: StartInstance) -> None:
        """Create an instance; it is on disk when this returns, and has taken its first work item if its app has a
        worker.

        An ended instance of the same id is replaced. Raises ConflictError if one is active, TransientError if the disk
        refuses.
        """
        existing = self.instances.get(message.app_id, message.instance_id)
        while existing is not None and (not existing.on_disk or (existing.ended and existing.busy)):
            await self.quiet(existing)
            existing = self.instances.get(message.app_id, message.instance_id)
        if existing is not None and not existing.ended:
            raise ConflictError(already_exists(message.instance_id))
        now = self.clock.now()
        instance = new_instance(self.store, message, now, existing)
        self.instances.add(instance)
        is_later = message.start_at is not None and message.start_at > now
        await self.submit(instance, message.event, starts_at=message.start_at if is_later else None)

    async def submit(self, instance: Instance, event: pb.HistoryEvent, *, starts_at: float | None = None) -> None:
        """Give an event to an instance; it is on disk when this returns. It is taken at `starts_at`, or with the next.

        Raises TransientError if the disk refuses, ConflictError if the instance was to be created and one of its id was
        created first; then the event is not stored.
        """
        instance.starts_at = starts_at
        submitted = Submitted(event)
        instance.receive(submitted)
        self.wake(instance)
        await submitted.ack

    async def purge(self, instance: Instance, *, recursive: bool, force: bool) -> int:
        """Remove an instance, and with `recursive` its children; how many were removed.

        All or nothing. Raises StillRunningError if one has not ended, unless `force`, and TransientError if the disk
        refuses.
        """
        family = [instance]
        for member in family:
            await self.quiet(member)
            if not member.ended and not force:
                raise StillRunningError("orchestration has not yet completed")
            if recursive:
                family.extend(child for child in self._children(member) if child not in family)
        timers = [(member.id, timer) for member in family for timer in self._armed_of(member)]
        for member in family:
            self.instances.forget(member)
        for _, timer in timers:
            self.timers.disarm(timer.key, timer.timer_id)
        try:
            await self.store.commit(RowChanges(removed=[(member.key,) for member in family]))
        except TransientError:
            for owner, timer in timers:
                self.timers.arm(owner, timer)
            raise
        return len(family)

    def _armed_of(self, instance: Instance) -> list[TimerRow]:
        ids = (START_TIMER_ID, *instance.state.timers)
        times = ((timer_id, self.timers.armed_for(instance.key, timer_id)) for timer_id in ids)
        execution_id = instance.state.execution_id
        return [TimerRow(instance.key, timer_id, at, execution_id) for timer_id, at in times if at is not None]

    def _children(self, parent: Instance) -> list[Instance]:
        created = (event for event in parent.history if event.HasField("childWorkflowInstanceCreated"))
        ids = ((each.router.targetAppID, each.childWorkflowInstanceCreated.instanceId) for each in created)
        found = (self.instances.get(app_id or parent.row.app_id, instance_id) for app_id, instance_id in ids)
        return [child for child in found if child is not None]

    async def rerun(self, message: StartInstance, forked: ItemResult) -> None:
        """Create an instance that begins with a forked history; it is on disk when this returns.

        Raises ConflictError if the id is in use, also by an ended instance, TransientError if the disk refuses.
        """
        if self.instances.get(message.app_id, message.instance_id) is not None:
            raise ConflictError(f"workflow '{message.instance_id}' has already been created")
        instance = new_instance(self.store, message, self.clock.now(), None)
        instance.quiet.clear()
        self.instances.add(instance)
        try:
            await self._settle(instance, forked, ())
        except Exception as error:
            self._put_back(instance, (), error)
            raise
        except asyncio.CancelledError:
            self._put_back(instance, (), TransientError(_CUT_OFF))
            raise
        finally:
            self._release(instance)
        self.wake(instance)

    # What the engine does

    def wake(self, instance: Instance) -> None:
        """Let it take its inbox, unless it is doing so."""
        if self._take_up(instance):
            self.spawn(self._drain(instance))

    async def quiet(self, instance: Instance) -> None:
        """Return when no work item of the instance is under way."""
        while instance.busy:
            await instance.quiet.wait()

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do `work` in a task of its own; `finish` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, limit_s: float) -> None:
        """Let what is under way be committed within `limit_s` seconds; cancel the rest, which loses nothing."""
        tasks = set(self._tasks)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=limit_s)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)

    def dispatch(self, task: ActivityTask) -> None:
        """Start an activity if its app has a worker; else it waits on disk for one."""
        if self.stopping:
            return
        if scope_of(task.scheduled) and (owner := self.instances.get(*task.owner)) is not None:
            propagated = propagate(owner.id, owner.history, task.scheduled, owner.row.propagated)
            task = replace(task, propagated=propagated)
        self.activities.run(task)

    # From item to item

    async def _arrive(self, owner: InstanceId, key: int, arrived: Arrived | None) -> None:
        """Bring an event to the instance with that key, if it still exists; None only makes it take what it has."""
        instance = await self._find(owner)
        if instance is None or instance.key != key:
            return
        instance.starts_at = None  # it is time, or this event starts it early
        if arrived is not None:
            instance.receive(arrived)
        if self._take_up(instance):
            await self._drain(instance, only_one=True)

    async def _find(self, owner: InstanceId) -> Instance | None:
        failures = 0
        while True:
            try:
                return self.instances.get(*owner)
            except TransientError as error:
                log.warning("instance_unreadable", extra={"instance_id": owner[1], "kind": error.kind})
                await asyncio.sleep(retry_delay_s(failures))
                failures += 1

    async def _finish(self, task: ActivityTask, event: pb.HistoryEvent) -> None:
        await self._arrive(task.owner, task.key, Arrived(event, task.execution_id))

    def _fire(self, owner: InstanceId, timer: TimerRow) -> None:
        arrived = None
        if timer.timer_id != START_TIMER_ID:
            fired = pb.TimerFiredEvent(timerId=timer.timer_id, fireAt=timestamp_of(timer.fire_at))
            arrived = Arrived(event_at(timestamp_of(self.clock.now()), timerFired=fired), timer.execution_id)
        self.spawn(self._arrive(owner, timer.key, arrived))

    def _take_up(self, instance: Instance) -> bool:
        if instance.busy or instance.gone or not instance.inbox:
            return False
        instance.quiet.clear()
        self.instances.use(instance)
        return True

    async def _drain(self, instance: Instance, *, only_one: bool = False) -> None:
        """Take item after item while there is something to take. `only_one`: leave further ones to another task."""
        again = True
        try:
            while again and instance.inbox and not instance.gone:
                again = await self._take_next(instance)
                if again and only_one and instance.inbox:
                    self.spawn(self._drain(instance))
                    return
        except asyncio.CancelledError:
            self._release(instance)
            raise
        self._release(instance)

    def _release(self, instance: Instance) -> None:
        """No work item of the instance is under way any more. It rests, unless it is to be tried again soon."""
        instance.quiet.set()
        is_tried_again = instance.failures > 0 and len(instance.inbox) > 0
        if instance.on_disk and not is_tried_again and all(item.row is not None for item in instance.inbox):
            self.instances.rest(instance)

    async def _take_next(self, instance: Instance) -> bool:
        """Take what is in the inbox, as far as one item may. False if it must wait: for a worker, a better time."""
        worker = self._worker_for(instance)
        count = len(instance.inbox) if worker is None else work_item_size(instance.inbox)
        items = [instance.inbox.popleft() for _ in range(count)]
        try:
            if worker is None:
                await self._keep(instance, items)
                # A worker may have come while that was written, or an event that is to be written as well.
                return self._worker_for(instance) is not None or any(item.row is None for item in instance.inbox)
            return await self._take(instance, items, worker)
        except (TransientError, ConflictError) as error:
            log.warning("work_item_not_taken", extra={**_ids(instance), "kind": error.kind})
            self._put_back(instance, items, error)
        except Exception as error:  # a fault in one instance must not stop the others
            log.exception("work_item_failed", extra=_ids(instance))
            self._put_back(instance, items, error)
        except asyncio.CancelledError:
            if not instance.on_disk:  # nobody is to wait for what may never be
                self._put_back(instance, items, TransientError(_CUT_OFF))
            raise
        return False

    def _worker_for(self, instance: Instance) -> Worker | None:
        """The worker that the instance may go to now; a stalled one has to wait for another."""
        is_stalled = instance.status is Status.STALLED and not instance.released
        if self.stopping or is_stalled or instance.starts_at is not None:
            return None
        return self._workers.find(instance.row.app_id)

    async def _take(self, instance: Instance, items: list[Arrived], worker: Worker) -> bool:
        new = accept(instance.state, items)
        if not new.events:
            await self._discard(items)
            return True
        item: WorkItem | ItemResult = WorkItem.begin(instance.id, instance.state, new, self.clock.now(), self.new_id)
        while isinstance(item, WorkItem):
            try:
                answer = await worker.run_workflow(_request(instance, item))
            except TooLargeError as error:
                item = hold(item, error.message)
            else:
                item = advance(item, answer)
        await self._settle(instance, item, items)
        return not item.decision.stalled

    async def _settle(self, instance: Instance, result: ItemResult, items: Sequence[Arrived]) -> None:
        """Commit the work item in which the instance takes `items`, then let it show.

        Raises TransientError or ConflictError if it could not be committed: then nothing has happened.
        """
        plan = self._commit_of(instance).plan(result, items)
        await self.store.commit(plan.rows)
        self.commits += 1
        self._show(instance, plan)
        if plan.held:
            instance.inbox.extendleft(reversed(items))
        _acknowledge(items)
        self.watchers.notice(instance)

    def _commit_of(self, instance: Instance) -> CommitBuilder:
        return CommitBuilder(self.store, self.instances, instance, self.clock.now())

    def _show(self, instance: Instance, plan: CommitPlan) -> None:
        """The plan is on disk: now it has happened."""
        decision = plan.result.decision
        instance.on_disk, instance.replaces, instance.failures = True, None, 0
        instance.row, instance.size = plan.row, plan.size
        if plan.result.restarted:
            instance.history, instance.state = [], InstanceState()
        for event in decision.appended:
            instance.state.apply(event)
        instance.history.extend(decision.appended)
        if decision.stalled:
            instance.released = False
            log.warning("workflow_stalled", extra=_ids(instance))
        for arrived, n in plan.numbers:
            arrived.row = n
        for child in plan.started:
            child.on_disk, child.replaces = True, None
            self.instances.add(child)
            if child.starts_at is not None:
                self.instances.rest(child)
        self._set_timers(plan.rows, {owner.key: owner.id for owner in (instance, *plan.started)})
        execution_id = plan.result.execution_id
        for activity in decision.activities:
            self.dispatch(ActivityTask(instance.id, instance.key, execution_id, activity.app_id, activity.event))
        for message in plan.messages:
            self._deliver(message, instance)

    def _set_timers(self, rows: RowChanges, owners: dict[int, InstanceId]) -> None:
        for key, timer_id in rows.closed_timers:
            self.timers.disarm(key, timer_id)
        for timer in rows.timers:
            self.timers.arm(owners[timer.key], timer)

    def _deliver(self, message: InboxMessage, sender: Instance) -> None:
        if message.key == sender.key:
            sender.receive(message.arrived)
        else:
            self.spawn(self._arrive(message.to, message.key, message.arrived))

    async def _keep(self, instance: Instance, items: list[Arrived]) -> None:
        if self._workers.find(instance.row.app_id) is None and not self.stopping and instance.starts_at is None:
            log.warning("workflow_waits_for_app", extra=_ids(instance))
        rows, numbers = self._commit_of(instance).keep(items)
        if rows.inbox or rows.instances or rows.closed_timers:
            await self.store.commit(rows)
        for item, n in numbers:
            item.row = n
        self._set_timers(rows, {instance.key: instance.id})
        instance.on_disk, instance.replaces, instance.failures = True, None, 0
        instance.inbox.extendleft(reversed(items))
        _acknowledge(items)

    async def _discard(self, items: Sequence[Arrived]) -> None:
        taken = [(item.row,) for item in items if item.row is not None]
        if taken:
            await self.store.commit(RowChanges(taken=taken))
        _acknowledge(items)

    def _put_back(self, instance: Instance, items: Sequence[Arrived], error: Exception) -> None:
        """The item was not taken: callers that wait get the error; the rest is tried again after a pause.

        With an instance that could not be created all is refused that came for it meanwhile.
        """
        if not instance.on_disk:
            items = [*items, *instance.inbox]
            instance.inbox.clear()
            self.instances.forget(instance)
        left = []
        for item in items:
            if isinstance(item, Submitted) and item.row is None:
                if not item.ack.done():
                    item.ack.set_exception(error)
            else:
                left.append(item)
        instance.inbox.extendleft(reversed(left))
        if all(item.event.HasField("executionStarted") for item in instance.inbox):
            # The event that was to start it early is not there: it is for its time again, unless that has come.
            instance.starts_at = self.timers.armed_for(instance.key, START_TIMER_ID)
        if not instance.gone:
            delay_s = 0.0 if isinstance(error, ConflictError) else retry_delay_s(instance.failures)
            instance.failures += 1
            asyncio.get_running_loop().call_later(delay_s, self.wake, instance)


def _request(instance: Instance, item: WorkItem) -> WorkflowRequest:
    received = instance.row.propagated
    propagated = None if received is None else pb.PropagatedHistory.FromString(received)
    past_events = instance.history if item.restarts == 0 else ()
    return WorkflowRequest(item.instance_id, item.execution_id, past_events, item.new_events, propagated)


def _acknowledge(items: Sequence[Arrived]) -> None:
    for item in items:
        if isinstance(item, Submitted) and not item.ack.done():
            item.ack.set_result(None)


def _ids(instance: Instance) -> dict[str, str]:
    return {"app_id": instance.row.app_id, "instance_id": instance.row.instance_id}
