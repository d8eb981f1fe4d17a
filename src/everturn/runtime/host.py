"""The host: takes instances from step to step. Next → process → commit, never two at once of one instance.

A step is: what is in the inbox, the worker's answer, the engine's decision, one transaction. Only then does anything
of it show: in memory, to other instances, to who waits. What could not be committed is as if it had not been tried.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from everturn.errors import ConflictError, TransientError
from everturn.runtime.activities import Activities, ActivityTask, retry_delay_s
from everturn.runtime.clock import Clock
from everturn.runtime.engine.decision import ScheduledActivity, Turn
from everturn.runtime.engine.events import event_at, timestamp_of
from everturn.runtime.engine.inbox import Arrived, accept, turn_size
from everturn.runtime.engine.propagation import propagate, scope_of
from everturn.runtime.engine.state import InstanceState, Status
from everturn.runtime.engine.turn import Outcome, take_turn
from everturn.runtime.instances import Delivery, Instance, InstanceId, Instances, Watchers
from everturn.runtime.outbox import Mail, Outbox, Step
from everturn.runtime.sdk import HistoryEvent, PropagatedHistory, Replay, TimerFiredEvent
from everturn.runtime.store.workflow_store import START_TIMER_ID, StepRows, TimerRow, WorkflowStore
from everturn.runtime.timers import Timers
from everturn.runtime.worker import Worker, WorkflowRequest

log = logging.getLogger(__name__)


class Host:
    """Runs the instances of all apps in the running loop. An app without a worker has its work kept on disk."""

    def __init__(self, store: WorkflowStore, clock: Clock, new_id: Callable[[], str]) -> None:
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self.instances = Instances(store)
        self.outbox = Outbox(store, self.instances)
        self.watchers = Watchers()
        self.workers: dict[str, Worker] = {}
        self.activities = Activities(clock, self.workers, self._finish)
        self.timers = Timers(clock, self._fire)
        self.steps = 0
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, instance: Instance, event: HistoryEvent) -> None:
        """Give an event to an instance; it is on disk when this returns.

        Raises TransientError where the disk refuses, ConflictError where the instance was to be created and one of its
        id was created first; then the event is nowhere.
        """
        ack: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        instance.receive(Delivery(event, ack=ack))
        self.wake(instance)
        await ack

    def wake(self, instance: Instance) -> None:
        """Let it take its inbox, unless it is doing so."""
        if self._take_up(instance):
            self.spawn(self._drain(instance))

    async def quiet(self, instance: Instance) -> None:
        """Return when no step of the instance is under way."""
        while instance.busy:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            instance.quiet.append(future)
            await future

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do `work` beside; `finish` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, limit_s: float) -> None:
        """Let what is under way come to its commit within `limit_s` seconds; cancel the rest, which loses nothing."""
        tasks = set(self._tasks)
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=limit_s)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)

    def run_activity(self, owner: Instance, activity: ScheduledActivity, execution_id: str) -> None:
        """Start an activity where its app has a worker; else it waits on disk for one."""
        propagated = None
        if scope_of(activity.event):
            propagated = propagate(owner.id, owner.history, activity.event, owner.row.propagated)
        self.dispatch(ActivityTask(owner.id, owner.key, execution_id, activity.app_id, activity.event, propagated))

    def dispatch(self, task: ActivityTask) -> None:
        """Start an activity that waited on disk, as `run_activity` does."""
        if not self.stopping:
            self.activities.run(task)

    async def arrive(self, owner: InstanceId, key: int, arrived: Arrived | None) -> None:
        """Bring an event to the instance with that key, if it still is; None only makes it take what it has."""
        instance = await self._find(owner)
        if instance is None or instance.key != key:
            return
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

    async def _finish(self, task: ActivityTask, event: HistoryEvent) -> None:
        await self.arrive(task.owner, task.key, Arrived(event, task.execution_id))

    def _fire(self, owner: InstanceId, timer: TimerRow) -> None:
        arrived = None
        if timer.timer_id != START_TIMER_ID:
            fired = TimerFiredEvent(timerId=timer.timer_id, fireAt=timestamp_of(timer.fire_at))
            arrived = Arrived(event_at(timestamp_of(self.clock.now()), timerFired=fired), timer.execution_id)
        self.spawn(self.arrive(owner, timer.key, arrived))

    def _take_up(self, instance: Instance) -> bool:
        if instance.busy or instance.gone or not instance.inbox:
            return False
        instance.busy = True
        self.instances.use(instance)
        return True

    async def _drain(self, instance: Instance, *, only_one: bool = False) -> None:
        """Take step after step while there is something to take. `only_one`: leave further ones to a task beside."""
        again = True
        try:
            while again and instance.inbox and not instance.gone:
                again = await self._step(instance)
                if again and only_one and instance.inbox:
                    self.spawn(self._drain(instance))
                    return
        except asyncio.CancelledError:
            self.release(instance)
            raise
        self.release(instance)

    def release(self, instance: Instance) -> None:
        """No step of the instance is under way any more."""
        instance.busy = False
        for future in instance.quiet:
            if not future.done():
                future.set_result(None)
        instance.quiet.clear()
        if instance.on_disk and all(item.row is not None for item in instance.inbox):
            self.instances.rest(instance)

    async def _step(self, instance: Instance) -> bool:
        """Take what is in the inbox, as far as one turn may. False where it must wait: for a worker, a better time."""
        worker = self._worker_for(instance)
        count = len(instance.inbox) if worker is None else turn_size(instance.inbox)
        items = [instance.inbox.popleft() for _ in range(count)]
        try:
            if worker is None:
                await self._keep(instance, items)
                # A worker may have come while that was written.
                return self._worker_for(instance) is not None
            return await self._take(instance, items, worker)
        except (TransientError, ConflictError) as error:
            log.warning("step_not_taken", extra={**_ids(instance), "kind": error.kind})
            self._put_back(instance, items, error)
        except Exception as error:  # a fault in one instance must not stop the others
            log.exception("step_failed", extra=_ids(instance))
            self._put_back(instance, items, error)
        return False

    def _worker_for(self, instance: Instance) -> Worker | None:
        """The worker that the instance may go to now; a stalled one has to wait for another."""
        if self.stopping or (instance.status is Status.STALLED and not instance.released):
            return None
        return self.workers.get(instance.row.app_id)

    async def _take(self, instance: Instance, items: list[Arrived], worker: Worker) -> bool:
        accepted = accept(instance.state, items)
        if not accepted.events:
            await self._discard(items)
            return True
        now = self.clock.now()
        turn = Turn(*instance.id, instance.state, accepted, now, self.new_id)
        outcome = await take_turn(turn, instance.history, partial(_run, worker, instance))
        await self.settle(instance, outcome, items)
        return not outcome.decision.stalled

    async def settle(self, instance: Instance, outcome: Outcome, items: Sequence[Arrived]) -> None:
        """Commit the step in which the instance takes `items`, then let it show.

        Raises TransientError or ConflictError where it could not be committed: then nothing has happened.
        """
        step = self.outbox.step(instance, outcome, items, self.clock.now())
        await self.store.commit(step.rows)
        self.steps += 1
        self._show(instance, step)
        if step.held:
            instance.inbox.extendleft(reversed(items))
        _acknowledge(items)
        self.watchers.notice(instance)

    def _show(self, instance: Instance, step: Step) -> None:
        """The step is on disk: now it has happened."""
        decision = step.outcome.decision
        instance.on_disk, instance.replaces, instance.failures = True, None, 0
        instance.row, instance.size = step.row, step.size
        if step.outcome.restarted:
            instance.history, instance.state = [], InstanceState()
        for event in decision.appended:
            instance.state.apply(event)
        instance.history.extend(decision.appended)
        if decision.stalled:
            instance.released = False
            log.warning("workflow_stalled", extra=_ids(instance))
        for item, n in step.given:
            item.row = n
        self._set_timers(instance, step)
        for activity in decision.activities:
            self.run_activity(instance, activity, step.outcome.execution_id)
        for mail in step.mail:
            self._deliver(mail, instance)

    def _set_timers(self, instance: Instance, step: Step) -> None:
        for key, timer_id in step.rows.closed_timers:
            self.timers.disarm(key, timer_id)
        owners = {instance.key: instance.id}
        for child in step.started:
            child.on_disk, child.replaces = True, None
            self.instances.add(child)
            owners[child.key] = child.id
        for child in step.later:
            # Found again on disk, with its inbox, when it is time or when an event starts it early.
            self.instances.forget(child)
        for timer in step.rows.timers:
            self.timers.arm(owners[timer.key], timer)

    def _deliver(self, mail: Mail, sender: Instance) -> None:
        if mail.key == sender.key:
            sender.receive(mail.arrived)
        else:
            self.spawn(self.arrive(mail.to, mail.key, mail.arrived))

    async def _keep(self, instance: Instance, items: list[Arrived]) -> None:
        if instance.row.app_id not in self.workers and not self.stopping:
            log.warning("workflow_waits_for_app", extra=_ids(instance))
        kept = self.outbox.keep(instance, items)
        if kept.rows.inbox or kept.rows.instances:
            await self.store.commit(kept.rows)
        for item, n in kept.given:
            item.row = n
        instance.on_disk, instance.replaces = True, None
        instance.inbox.extendleft(reversed(items))
        _acknowledge(items)

    async def _discard(self, items: Sequence[Arrived]) -> None:
        taken = [(item.row,) for item in items if item.row is not None]
        if taken:
            await self.store.commit(StepRows(taken=taken))
        _acknowledge(items)

    def _put_back(self, instance: Instance, items: Sequence[Arrived], error: Exception) -> None:
        """The step did not take place: who waits is told, the rest goes back and is tried again after a while."""
        left = []
        for item in items:
            if isinstance(item, Delivery) and item.ack is not None and item.row is None:
                if not item.ack.done():
                    item.ack.set_exception(error)
            else:
                left.append(item)
        instance.inbox.extendleft(reversed(left))
        if not instance.on_disk and not instance.inbox:
            self.instances.forget(instance)
            return
        delay_s = 0.0 if isinstance(error, ConflictError) else retry_delay_s(instance.failures)
        instance.failures += 1
        asyncio.get_running_loop().call_later(delay_s, self.wake, instance)


async def _run(
    worker: Worker,
    instance: Instance,
    past_events: Sequence[HistoryEvent],
    new_events: Sequence[HistoryEvent],
    execution_id: str,
) -> Replay:
    received = instance.row.propagated
    propagated = None if received is None else PropagatedHistory.FromString(received)
    request = WorkflowRequest(instance.row.instance_id, execution_id, past_events, new_events, propagated)
    return await worker.run_workflow(request)


def _acknowledge(items: Sequence[Arrived]) -> None:
    for item in items:
        if isinstance(item, Delivery) and item.ack is not None and not item.ack.done():
            item.ack.set_result(None)


def _ids(instance: Instance) -> dict[str, str]:
    return {"app_id": instance.row.app_id, "instance_id": instance.row.instance_id}
