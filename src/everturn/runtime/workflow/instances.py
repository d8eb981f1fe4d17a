"""Instances in memory: those with work to do, and a bounded number of others, so that their next work item finds them.

What a work item makes of one: from its result to the rows of one transaction, and to what follows once it is committed.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from everturn.dapr.sdk import protocol as pb
from everturn.runtime.workflow.core.decide import ItemResult
from everturn.runtime.workflow.core.state import (
    ANSWERS,
    TERMINAL,
    Arrived,
    InstanceState,
    Message,
    StartInstance,
    Status,
    child_failed,
    fold,
    propagate,
    scope_of,
    status_after,
    timestamp_of,
)
from everturn.runtime.workflow.store import (
    START_TIMER_ID,
    ActivityRow,
    InstanceId,
    InstanceRow,
    RowChanges,
    TimerRow,
    WorkflowStore,
    encode_events,
)

# What the instances that wait for something may take in memory, and how many of those may wait for an activity.
_MAX_IDLE_BYTES = 8 * 1024 * 1024
_MAX_IDLE_INSTANCES = 1_000
# Those that wait for time, an event or a child may do so for hours; of an ended one only a question may still come.
_MAX_DORMANT_INSTANCES = 64
# What an event takes in memory besides its bytes: a message of its own, with an arena (measured: 16 events, 16 kB).
_EVENT_BYTES = 1_000


@dataclass(slots=True, eq=False)
class Submitted(Arrived):
    """An event for whose place on disk somebody waits: then `ack` is set."""

    ack: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True, eq=False)
class Instance:
    """An instance in memory. `history` and `state` are what is on disk, never more.

    `on_disk` is False until its row is committed; `replaces` is the key of an ended instance of the same id, to be
    removed by that commit. `quiet` unless a work item of it is under way: there is never a second one. `released`: a
    worker has come since it stalled, so that it may be tried again. `failures`: commits in a row that failed.
    `starts_at`: what is in its inbox is not to be taken before (seconds since 1970-01-01 UTC).
    """

    row: InstanceRow
    state: InstanceState = field(default_factory=InstanceState)
    history: list[pb.HistoryEvent] = field(default_factory=list)
    inbox: deque[Arrived] = field(default_factory=deque)
    on_disk: bool = True
    replaces: int | None = None
    gone: bool = False
    released: bool = False
    failures: int = 0
    starts_at: float | None = None
    size: int = 0
    loaded_rows: set[int] = field(default_factory=set)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    id: InstanceId = field(init=False)
    key: int = field(init=False)

    def __post_init__(self) -> None:
        self.id, self.key = (self.row.app_id, self.row.instance_id), self.row.key
        self.quiet.set()

    @property
    def busy(self) -> bool:
        return not self.quiet.is_set()

    @property
    def status(self) -> Status:
        return self.state.status if self.state.start is not None else self.row.status

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def receive(self, arrived: Arrived) -> None:
        """Put an event into the inbox, unless it came along when the instance was loaded."""
        if arrived.row is not None and arrived.row in self.loaded_rows:
            self.loaded_rows.discard(arrived.row)
        else:
            self.inbox.append(arrived)


class Instances:
    """Finds instances in memory or loads them; forgets those that rest the longest beyond a bound."""

    def __init__(self, store: WorkflowStore) -> None:
        self._store = store
        self._resident: dict[InstanceId, Instance] = {}
        # At rest, longest first, with what each takes in memory: those that wait for an activity are idle.
        self._idle: OrderedDict[InstanceId, int] = OrderedDict()
        self._dormant: OrderedDict[InstanceId, int] = OrderedDict()
        self._resting_bytes = 0

    def __len__(self) -> int:
        return len(self._resident)

    @property
    def busy_count(self) -> int:
        return len(self._resident) - len(self._idle) - len(self._dormant)

    def get(self, app_id: str, instance_id: str) -> Instance | None:
        """The instance, or None if there is none. Raises TransientError if the disk cannot be read."""
        found = self._resident.get((app_id, instance_id))
        if found is None:
            row = self._store.find(app_id, instance_id)
            if row is None:
                return None
            found = self._load(row)
            self._resident[found.id] = found
            self.rest(found)
        return found

    def add(self, instance: Instance) -> None:
        """Make a new instance findable, in the place of an ended one of the same id."""
        replaced = self._resident.get(instance.id)
        if replaced is not None:
            self.forget(replaced)
        self._resident[instance.id] = instance

    def use(self, instance: Instance) -> None:
        """Keep it: a work item of it begins."""
        self._resting_bytes -= self._dormant.pop(instance.id, 0) + self._idle.pop(instance.id, 0)

    def rest(self, instance: Instance) -> None:
        """It may be forgotten: no work item of it is under way and all of it is on disk."""
        if self._resident.get(instance.id) is not instance:
            return
        self.use(instance)
        resting = self._dormant if instance.ended or not instance.state.tasks else self._idle
        resting[instance.id] = footprint = instance.size + _EVENT_BYTES * len(instance.history)
        self._resting_bytes += footprint
        if len(self._dormant) > _MAX_DORMANT_INSTANCES:
            self._drop_oldest(self._dormant)
        if len(self._idle) > _MAX_IDLE_INSTANCES:
            self._drop_oldest(self._idle)
        while self._resting_bytes > _MAX_IDLE_BYTES:
            self._drop_oldest(self._dormant or self._idle)

    def _drop_oldest(self, resting: OrderedDict[InstanceId, int]) -> None:
        oldest, footprint = resting.popitem(last=False)
        self._resting_bytes -= footprint
        del self._resident[oldest]

    def forget(self, instance: Instance) -> None:
        """It is gone: purged, replaced, or never committed."""
        instance.gone = True
        if self._resident.get(instance.id) is instance:
            self.use(instance)
            del self._resident[instance.id]

    def _load(self, row: InstanceRow) -> Instance:
        history = self._store.history(row.key)
        instance = Instance(row, fold(history), history, size=sum(event.ByteSize() for event in history))
        instance.inbox.extend(self._store.inbox(row.key))
        instance.loaded_rows.update(item.row for item in instance.inbox if item.row is not None)
        return instance


Condition = Callable[[Instance], bool]


class Watchers:
    """Callers that wait until a condition holds for an instance, whether it exists yet or not."""

    def __init__(self) -> None:
        self._waiting: dict[InstanceId, dict[asyncio.Future[Instance], Condition]] = {}

    async def until(self, instance_id: InstanceId, condition: Condition) -> Instance:
        """The instance once `condition` holds for it after one of its commits."""
        future: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(instance_id, {})
        waiting[future] = condition
        try:
            return await future
        finally:
            del waiting[future]
            if not waiting:
                del self._waiting[instance_id]

    def notice(self, instance: Instance) -> None:
        """A commit of the instance was made."""
        for future, condition in self._waiting.get(instance.id, {}).items():
            if not future.done() and condition(instance):
                future.set_result(instance)

    def fail_all(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(error)


class InboxMessage(NamedTuple):
    """An event that is committed into the inbox of the instance with that key."""

    to: InstanceId
    key: int
    arrived: Arrived


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """All that a work item changes, ready to be committed, and what follows the commit.

    `row` is what the instance's row becomes, `size` the bytes of its history. `held`: it stalled, and what it was to
    take stays in the inbox, under `numbers`. `started` are instances that it creates.
    """

    rows: RowChanges
    row: InstanceRow
    result: ItemResult
    size: int
    held: bool
    numbers: Sequence[tuple[Arrived, int]]
    messages: Sequence[InboxMessage]
    started: Sequence[Instance]


class CommitBuilder:
    """Plans one commit of `instance`. Writes nothing; takes the numbers of new rows from the store."""

    def __init__(self, store: WorkflowStore, instances: Instances, instance: Instance, now: float) -> None:
        self._store = store
        self._instances = instances
        self._instance = instance
        self._now = now
        self._rows = RowChanges()
        self._numbers: list[tuple[Arrived, int]] = []
        self._messages: list[InboxMessage] = []
        self._started: list[Instance] = []

    def plan(self, result: ItemResult, items: Iterable[Arrived]) -> CommitPlan:
        """The commit in which the instance takes `items` with `result`. Raises TransientError on an unreadable disk."""
        instance, decision = self._instance, result.decision
        blob = encode_events(decision.appended) if decision.appended else b""
        row = _row_after(instance, result, self._now)
        held = decision.stalled and not result.restarted
        self._change_instance(row, result, blob)
        if held:
            self._number(items)
        else:
            self._rows.taken = [(item.row,) for item in items if item.row is not None]
        self._change_work(result)
        for message in decision.messages:
            self._send(message, result)
        for event in result.carried:
            self._put(instance, event, None)
        size = len(blob) + (0 if result.restarted else instance.size)
        return CommitPlan(self._rows, row, result, size, held, self._numbers, self._messages, self._started)

    def keep(self, items: Iterable[Arrived]) -> tuple[RowChanges, Sequence[tuple[Arrived, int]]]:
        """What keeps `items` in the inbox, and creates the instance if it is not on disk; their numbers there."""
        instance = self._instance
        if not instance.on_disk:
            self._insert(instance, instance.row)
            if instance.starts_at is not None:
                self._rows.timers.append(TimerRow(instance.key, START_TIMER_ID, instance.starts_at, ""))
        elif instance.state.start is None and instance.starts_at is None:
            self._rows.closed_timers.append((instance.key, START_TIMER_ID))
        self._number(items)
        return self._rows, self._numbers

    def _change_instance(self, row: InstanceRow, result: ItemResult, blob: bytes) -> None:
        instance = self._instance
        if not instance.on_disk:
            self._insert(instance, row)
        elif row is not instance.row:
            self._rows.updates.append((row.status, row.custom_status, row.completed_at, row.key))
        if result.restarted:
            self._rows.restarted.append((instance.key,))
        if blob:
            self._rows.history.append((instance.key, _first_event(instance, result), blob))

    def _change_work(self, result: ItemResult) -> None:
        instance, rows, decision = self._instance, self._rows, result.decision
        key, n, execution_id = instance.key, _first_event(instance, result), result.execution_id
        rows.closed_activities = [(key, task_id) for task_id in decision.closed_tasks]
        rows.closed_timers = [(key, timer_id) for timer_id in decision.closed_timers]
        if instance.state.start is None and instance.on_disk:
            rows.closed_timers.append((key, START_TIMER_ID))
        rows.activities = [
            ActivityRow(key, task.event.eventId, n, task.app_id, execution_id) for task in decision.activities
        ]
        rows.timers = [TimerRow(key, timer.timer_id, timer.fire_at, execution_id) for timer in decision.timers]

    def _send(self, message: Message, result: ItemResult) -> None:
        if isinstance(message, StartInstance):
            self._start(message, result)
            return
        target = self._instances.get(message.app_id, message.instance_id)
        if target is not None and not target.ended:
            self._put(target, message.event, message.execution_id)

    def _start(self, message: StartInstance, result: ItemResult) -> None:
        instance_id = (message.app_id, message.instance_id)
        existing = self._instances.get(*instance_id)
        twice = any(child.id == instance_id for child in self._started)
        if twice or (existing is not None and not existing.ended):
            if message.child_task_id is not None:
                why = pb.TaskFailureDetails(errorType="AlreadyExists", errorMessage=already_exists(message.instance_id))
                failed = child_failed(timestamp_of(self._now), message.child_task_id, why)
                self._put(self._instance, failed, result.execution_id)
            return
        child = new_instance(self._store, message, self._now, existing)
        if message.announced_by is not None:
            child.row = child.row._replace(propagated=self._propagated(message.announced_by, result))
        self._insert(child, child.row)
        self._started.append(child)
        arrived = Arrived(message.event, None, self._write_inbox(child, message.event, None))
        if message.start_at is not None and message.start_at > self._now:
            child.starts_at = message.start_at
            child.inbox.append(arrived)
            self._rows.timers.append(TimerRow(child.key, START_TIMER_ID, message.start_at, ""))
        else:
            self._messages.append(InboxMessage(child.id, child.key, arrived))

    def _propagated(self, asking: pb.HistoryEvent, result: ItemResult) -> bytes | None:
        if not scope_of(asking):
            return None
        before = [] if result.restarted else self._instance.history
        events = [*before, *result.decision.appended]
        propagated = propagate(self._instance.id, events, asking, self._instance.row.propagated)
        return None if propagated is None else propagated.SerializeToString()

    def _insert(self, instance: Instance, row: InstanceRow) -> None:
        self._rows.instances.append(row)
        if instance.replaces is not None:
            self._rows.removed.append((instance.replaces,))

    def _put(self, target: Instance, event: pb.HistoryEvent, execution_id: str | None) -> None:
        n = self._write_inbox(target, event, execution_id)
        self._messages.append(InboxMessage(target.id, target.key, Arrived(event, execution_id, n)))

    def _write_inbox(self, target: Instance, event: pb.HistoryEvent, execution_id: str | None) -> int:
        n = self._store.new_inbox_row()
        self._rows.inbox.append((n, target.key, execution_id, event.SerializeToString()))
        return n

    def _number(self, items: Iterable[Arrived]) -> None:
        for item in items:
            if item.row is None:
                n = self._write_inbox(self._instance, item.event, item.execution_id)
                self._numbers.append((item, n))
                _close(self._rows, self._instance.key, item.event)


def new_instance(store: WorkflowStore, message: StartInstance, now: float, replaced: Instance | None) -> Instance:
    """An instance that is not on disk yet, in the place of an ended one of the same id."""
    name = message.event.executionStarted.name
    is_child = message.child_task_id is not None
    row = InstanceRow(
        store.new_key(), message.app_id, message.instance_id, name, Status.PENDING, None, is_child, now, None
    )
    return Instance(row, on_disk=False, replaces=None if replaced is None else replaced.key)


def already_exists(instance_id: str) -> str:
    """Dapr 1.18's words."""
    return f"an active workflow with ID '{instance_id}' already exists"


def _first_event(instance: Instance, result: ItemResult) -> int:
    return 0 if result.restarted else len(instance.history)


def _row_after(instance: Instance, result: ItemResult, now: float) -> InstanceRow:
    decision = result.decision
    if decision.stalled and not decision.appended:
        return instance.row
    status = status_after(InstanceState() if result.restarted else instance.state, decision.appended)
    custom_status = instance.row.custom_status if decision.stalled else decision.custom_status
    completed_at = now if status in TERMINAL else None
    row = instance.row
    if (row.status, row.custom_status, row.completed_at) == (status, custom_status, completed_at):
        return row
    return row._replace(status=status, custom_status=custom_status, completed_at=completed_at)


def _close(rows: RowChanges, key: int, event: pb.HistoryEvent) -> None:
    """What `event` answers is not to be done again."""
    answer = ANSWERS.get(event.WhichOneof("eventType"))
    if answer is not None and answer.opened == "tasks":
        rows.closed_activities.append((key, answer.id_of(event)))
    elif answer is not None and answer.opened == "timers":
        rows.closed_timers.append((key, answer.id_of(event)))
