"""What a history comes to: `fold(history)`, and `apply` for one more event.

The events are the SDK's own protobuf messages, exactly as real Dapr stores and serves them.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from everturn.runtime.sdk import OPTIONAL_TIMER_FIRE_AT, HistoryEvent, Timestamp


class Status(IntEnum):
    """`OrchestrationStatus` of Dapr's protocol."""

    RUNNING = 0
    COMPLETED = 1
    CONTINUED_AS_NEW = 2
    FAILED = 3
    CANCELED = 4
    TERMINATED = 5
    PENDING = 6
    SUSPENDED = 7
    STALLED = 8


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED, Status.TERMINATED})

# Seconds of 9999-12-31T23:59:59Z, the SDK's "wait forever": such a timer is recorded and never armed.
NEVER_S: int = OPTIONAL_TIMER_FIRE_AT.seconds


class OpenTimer(NamedTuple):
    """A timer that has not fired. `event_name` is the case-folded event that it limits the wait for, if any."""

    fire_at: float
    event_name: str | None

    @property
    def armed(self) -> bool:
        return self.fire_at < NEVER_S


class OpenChild(NamedTuple):
    """A child workflow whose outcome has not come back."""

    app_id: str | None
    instance_id: str


class InstanceState:
    """The fold of one execution's history.

    `tasks`, `timers` and `children` hold what is open, by the id that the workflow gave it.
    """

    __slots__ = (
        "children",
        "completed",
        "created_at",
        "last_stall",
        "patches",
        "stalled",
        "start",
        "started_at",
        "status",
        "suspended",
        "tasks",
        "timers",
        "updated_at",
        "version",
    )

    def __init__(self) -> None:
        self.status = Status.PENDING
        self.start: HistoryEvent | None = None
        self.completed: HistoryEvent | None = None
        self.created_at: Timestamp | None = None
        self.started_at: Timestamp | None = None
        self.updated_at: Timestamp | None = None
        self.suspended = False
        self.stalled = False
        self.last_stall: str | None = None
        self.version = ""
        self.patches: list[str] = []
        self.tasks: dict[int, HistoryEvent] = {}
        self.timers: dict[int, OpenTimer] = {}
        self.children: dict[int, OpenChild] = {}

    @property
    def execution_id(self) -> str:
        """Id of this execution, "" before its start; continue-as-new and a new start of the same id change it."""
        if self.start is None:
            return ""
        return str(self.start.executionStarted.workflowInstance.executionId.value)

    def apply(self, event: HistoryEvent) -> None:
        """Take one more event of the history in."""
        fold_one = _FOLDS.get(event.WhichOneof("eventType") or "")
        if fold_one is not None:
            fold_one(self, event)
        self.updated_at = event.timestamp


def fold(history: Iterable[HistoryEvent]) -> InstanceState:
    """The state that `history`, oldest event first, comes to."""
    state = InstanceState()
    for event in history:
        state.apply(event)
    return state


def status_after(state: InstanceState, events: Iterable[HistoryEvent]) -> Status:
    """The status that `state` will have once `events` are applied; `state` is not changed."""
    suspended = state.suspended
    for event in events:
        if event.HasField("executionCompleted"):
            return Status(event.executionCompleted.workflowStatus)
        if event.HasField("executionStalled"):
            return Status.STALLED
        if event.HasField("executionSuspended"):
            suspended = True
        elif event.HasField("executionResumed"):
            suspended = False
    return Status.SUSPENDED if suspended else Status.RUNNING


def seconds_of(timestamp: Timestamp) -> float:
    """Seconds since 1970-01-01 UTC."""
    return float(timestamp.seconds) + float(timestamp.nanos) / 1e9


def oldest_wait_for(name: str, timers: Iterable[tuple[int, OpenTimer]]) -> int | None:
    """Id of the oldest open timer that limits a wait for the event `name`; Dapr compares names without case."""
    folded = name.casefold()
    return min((timer_id for timer_id, timer in timers if timer.event_name == folded), default=None)


def _workflow_started(state: InstanceState, event: HistoryEvent) -> None:
    if state.started_at is None:
        state.started_at = event.timestamp
    state.stalled = False
    version = event.workflowStarted.version
    if version.name:
        state.version = version.name
    state.patches.extend(version.patches)
    _settle_status(state)


def _execution_started(state: InstanceState, event: HistoryEvent) -> None:
    state.start = event
    state.created_at = event.timestamp
    _settle_status(state)


def _execution_completed(state: InstanceState, event: HistoryEvent) -> None:
    state.completed = event
    state.tasks.clear()
    state.timers.clear()
    state.children.clear()
    _settle_status(state)


def _suspended(state: InstanceState, _event: HistoryEvent) -> None:
    state.suspended = True
    _settle_status(state)


def _resumed(state: InstanceState, _event: HistoryEvent) -> None:
    state.suspended = False
    _settle_status(state)


def _stalled(state: InstanceState, event: HistoryEvent) -> None:
    state.stalled = True
    state.last_stall = event.executionStalled.description
    _settle_status(state)


def _task_scheduled(state: InstanceState, event: HistoryEvent) -> None:
    state.tasks[event.eventId] = event


def _task_completed(state: InstanceState, event: HistoryEvent) -> None:
    state.tasks.pop(event.taskCompleted.taskScheduledId, None)


def _task_failed(state: InstanceState, event: HistoryEvent) -> None:
    state.tasks.pop(event.taskFailed.taskScheduledId, None)


def _timer_created(state: InstanceState, event: HistoryEvent) -> None:
    created = event.timerCreated
    name = created.externalEvent.name.casefold() if created.HasField("externalEvent") else None
    state.timers[event.eventId] = OpenTimer(seconds_of(created.fireAt), name)


def _timer_fired(state: InstanceState, event: HistoryEvent) -> None:
    state.timers.pop(event.timerFired.timerId, None)


def _event_raised(state: InstanceState, event: HistoryEvent) -> None:
    if state.timers:
        timer_id = oldest_wait_for(event.eventRaised.name, state.timers.items())
        if timer_id is not None:
            del state.timers[timer_id]


def _child_created(state: InstanceState, event: HistoryEvent) -> None:
    app_id = event.router.targetAppID if event.router.HasField("targetAppID") else None
    state.children[event.eventId] = OpenChild(app_id, event.childWorkflowInstanceCreated.instanceId)


def _child_completed(state: InstanceState, event: HistoryEvent) -> None:
    state.children.pop(event.childWorkflowInstanceCompleted.taskScheduledId, None)


def _child_failed(state: InstanceState, event: HistoryEvent) -> None:
    state.children.pop(event.childWorkflowInstanceFailed.taskScheduledId, None)


def _settle_status(state: InstanceState) -> None:
    if state.start is None:
        state.status = Status.PENDING
    elif state.completed is not None:
        state.status = Status(state.completed.executionCompleted.workflowStatus)
    elif state.stalled:
        state.status = Status.STALLED
    else:
        state.status = Status.SUSPENDED if state.suspended else Status.RUNNING


_FOLDS: dict[str, Callable[[InstanceState, HistoryEvent], None]] = {
    "workflowStarted": _workflow_started,
    "executionStarted": _execution_started,
    "executionCompleted": _execution_completed,
    "executionSuspended": _suspended,
    "executionResumed": _resumed,
    "executionStalled": _stalled,
    "taskScheduled": _task_scheduled,
    "taskCompleted": _task_completed,
    "taskFailed": _task_failed,
    "timerCreated": _timer_created,
    "timerFired": _timer_fired,
    "eventRaised": _event_raised,
    "childWorkflowInstanceCreated": _child_created,
    "childWorkflowInstanceCompleted": _child_completed,
    "childWorkflowInstanceFailed": _child_failed,
}
