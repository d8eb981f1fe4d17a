"""From what a step decided to the rows of its transaction, and to what is to be done once that is committed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from everturn.runtime.engine.events import timestamp_of
from everturn.runtime.engine.inbox import Arrived
from everturn.runtime.engine.messages import Message, StartInstance, child_failed
from everturn.runtime.engine.propagation import propagate, scope_of
from everturn.runtime.engine.state import TERMINAL, InstanceState, Status, status_after
from everturn.runtime.engine.turn import Outcome
from everturn.runtime.instances import Instance, InstanceId, Instances
from everturn.runtime.sdk import HistoryEvent, TaskFailureDetails
from everturn.runtime.store.workflow_store import (
    START_TIMER_ID,
    ActivityRow,
    InstanceRow,
    StepRows,
    TimerRow,
    WorkflowStore,
    encode_events,
)


class Mail(NamedTuple):
    """An event that is committed into the inbox of the instance with that key."""

    to: InstanceId
    key: int
    arrived: Arrived


class Kept(NamedTuple):
    """Rows that keep events in the inbox, and the number that each event gets there once they are committed."""

    rows: StepRows
    given: list[tuple[Arrived, int]]


@dataclass(slots=True)
class Step:
    """A step ready to be committed, and what follows the commit.

    `row` is what the instance's row becomes. `held`: it stalled, and what it was to take stays in the inbox, where the
    events get the numbers in `given`. `started` are instances that it creates, `later` those that begin later on.
    """

    rows: StepRows
    row: InstanceRow
    outcome: Outcome
    size: int
    held: bool
    given: list[tuple[Arrived, int]] = field(default_factory=list)
    mail: list[Mail] = field(default_factory=list)
    started: list[Instance] = field(default_factory=list)
    later: list[Instance] = field(default_factory=list)


class Outbox:
    """Writes nothing itself; numbers the rows."""

    def __init__(self, store: WorkflowStore, instances: Instances) -> None:
        self._store = store
        self._instances = instances

    def step(self, instance: Instance, outcome: Outcome, items: Iterable[Arrived], now: float) -> Step:
        """The step in which `instance` takes `items` with `outcome`. Raises TransientError on an unreadable disk."""
        decision = outcome.decision
        blob = encode_events(decision.appended) if decision.appended else b""
        size = len(blob) + (0 if outcome.restarted else instance.size)
        held = decision.stalled and not outcome.restarted
        step = Step(StepRows(), _row_after(instance, outcome, now), outcome, size, held)
        self._instance_rows(step, instance, blob)
        if held:
            self._keep(Kept(step.rows, step.given), instance, items)
        else:
            step.rows.taken = [(item.row,) for item in items if item.row is not None]
        self._work_rows(step, instance)
        for message in decision.messages:
            self._send(step, instance, message, now)
        for event in outcome.carried:
            self._put(step, instance, event, None)
        return step

    def keep(self, instance: Instance, items: Iterable[Arrived]) -> Kept:
        """What keeps `items` for later, and creates the instance where it is not on disk."""
        kept = Kept(StepRows(), [])
        if not instance.on_disk:
            _insert(kept.rows, instance, instance.row)
        self._keep(kept, instance, items)
        return kept

    def new_instance(self, message: StartInstance, now: float, replaced: Instance | None) -> Instance:
        """An instance that is not on disk yet."""
        name = message.event.executionStarted.name
        is_child = message.child_task_id is not None
        row = InstanceRow(
            self._store.new_key(), message.app_id, message.instance_id, name, Status.PENDING, None, is_child, now, None
        )
        return Instance(row, on_disk=False, replaces=None if replaced is None else replaced.key)

    def _instance_rows(self, step: Step, instance: Instance, blob: bytes) -> None:
        if not instance.on_disk:
            _insert(step.rows, instance, step.row)
        elif step.row != instance.row:
            row = step.row
            step.rows.updates.append((row.status, row.custom_status, row.completed_at, row.key))
        if step.outcome.restarted:
            step.rows.restarted.append((instance.key,))
        if blob:
            step.rows.history.append((instance.key, _first_event(step, instance), blob))

    def _work_rows(self, step: Step, instance: Instance) -> None:
        key, rows, decision = instance.key, step.rows, step.outcome.decision
        execution_id, n = step.outcome.execution_id, _first_event(step, instance)
        rows.closed_activities = [(key, task_id) for task_id in decision.closed_tasks]
        rows.closed_timers = [(key, timer_id) for timer_id in decision.closed_timers]
        if instance.state.start is None and instance.on_disk:
            rows.closed_timers.append((key, START_TIMER_ID))
        rows.activities = [ActivityRow(key, task.task_id, n, task.app_id, execution_id) for task in decision.activities]
        rows.timers = [TimerRow(key, timer.timer_id, timer.fire_at, execution_id) for timer in decision.timers]

    def _send(self, step: Step, sender: Instance, message: Message, now: float) -> None:
        if isinstance(message, StartInstance):
            self._start(step, sender, message, now)
            return
        target = self._instances.get(message.app_id, message.instance_id)
        if target is not None and not target.ended:
            self._put(step, target, message.event, message.execution_id)

    def _start(self, step: Step, sender: Instance, message: StartInstance, now: float) -> None:
        existing = self._instances.get(message.app_id, message.instance_id)
        twice = any(child.id == (message.app_id, message.instance_id) for child in step.started)
        if twice or (existing is not None and not existing.ended):
            if message.child_task_id is not None:
                details = TaskFailureDetails(
                    errorType="AlreadyExists", errorMessage=already_exists(message.instance_id)
                )
                failed = child_failed(timestamp_of(now), message.child_task_id, details)
                self._put(step, sender, failed, step.outcome.execution_id)
            return
        child = self.new_instance(message, now, existing)
        if message.announced_by is not None:
            child.row = child.row._replace(propagated=_propagated(step, sender, message.announced_by))
        _insert(step.rows, child, child.row)
        step.started.append(child)
        self._put(step, child, message.event, None)
        if message.start_at is not None and message.start_at > now:
            step.rows.timers.append(TimerRow(child.key, START_TIMER_ID, message.start_at, ""))
            step.later.append(child)
            step.mail.pop()

    def _put(self, step: Step, target: Instance, event: HistoryEvent, execution_id: str | None) -> None:
        n = self._store.new_inbox_row()
        step.rows.inbox.append((n, target.key, execution_id, event.SerializeToString()))
        step.mail.append(Mail(target.id, target.key, Arrived(event, execution_id, n)))

    def _keep(self, kept: Kept, instance: Instance, items: Iterable[Arrived]) -> None:
        for item in items:
            if item.row is None:
                n = self._store.new_inbox_row()
                kept.given.append((item, n))
                kept.rows.inbox.append((n, instance.key, item.execution_id, item.event.SerializeToString()))
                _close(kept.rows, instance.key, item.event)


def already_exists(instance_id: str) -> str:
    """Dapr 1.18's words."""
    return f"an active workflow with ID '{instance_id}' already exists"


def _propagated(step: Step, sender: Instance, asking: HistoryEvent) -> bytes | None:
    if not scope_of(asking):
        return None
    before = [] if step.outcome.restarted else sender.history
    events = [*before, *step.outcome.decision.appended]
    propagated = propagate(sender.id, events, asking, sender.row.propagated)
    return None if propagated is None else propagated.SerializeToString()


def _first_event(step: Step, instance: Instance) -> int:
    return 0 if step.outcome.restarted else len(instance.history)


def _insert(rows: StepRows, instance: Instance, row: InstanceRow) -> None:
    rows.instances.append(row)
    if instance.replaces is not None:
        rows.removed.append((instance.replaces,))


def _row_after(instance: Instance, outcome: Outcome, now: float) -> InstanceRow:
    decision = outcome.decision
    if decision.stalled and not decision.appended:
        return instance.row
    status = status_after(InstanceState() if outcome.restarted else instance.state, decision.appended)
    custom_status = instance.row.custom_status if decision.stalled else decision.custom_status
    completed_at = now if status in TERMINAL else None
    return instance.row._replace(status=status, custom_status=custom_status, completed_at=completed_at)


def _close(rows: StepRows, key: int, outcome: HistoryEvent) -> None:
    """What `outcome` answers is not to be done again."""
    kind = outcome.WhichOneof("eventType")
    if kind == "taskCompleted":
        rows.closed_activities.append((key, outcome.taskCompleted.taskScheduledId))
    elif kind == "taskFailed":
        rows.closed_activities.append((key, outcome.taskFailed.taskScheduledId))
    elif kind == "timerFired":
        rows.closed_timers.append((key, outcome.timerFired.timerId))
