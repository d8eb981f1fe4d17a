"""The state of an instance, which is the fold of its history; what is new of what arrives at it, and what it sends.

The events are the SDK's own protobuf messages, exactly as real Dapr stores and serves them. Starts, outcomes, events,
terminations, and the history that a child or an activity may read (rules: github.com/dapr/durabletask-go
backend/runtimestate/propagation.go) are committed with the step that sends them. The receiver's `accept` is the
engine's only guard against what comes twice, late or out of turn. Completions and timers are known by kind and id
(dapr-wire: "deduped by kind+id"); an id that is not open means that the answer is already in the history, or that the
wait was given up.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NamedTuple, cast

from everturn.dapr.sdk import protocol as pb


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

    @property
    def on_wire(self) -> "pb.OrchestrationStatus.ValueType":
        """As protobuf messages take it."""
        return cast("pb.OrchestrationStatus.ValueType", self)


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELED, Status.TERMINATED})

# Seconds of 9999-12-31T23:59:59Z, the SDK's "wait forever": such a timer is recorded and never armed.
NEVER_S: int = pb.OPTIONAL_TIMER_FIRE_AT.seconds


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


class Answer(NamedTuple):
    """What an event closes: the entry of `InstanceState.<opened>` with the id that `id_of` finds in the event."""

    opened: Literal["tasks", "timers", "children"]
    id_of: Callable[[pb.HistoryEvent], int]


# By the kind of the event.
ANSWERS: dict[str | None, Answer] = {
    "taskCompleted": Answer("tasks", lambda event: event.taskCompleted.taskScheduledId),
    "taskFailed": Answer("tasks", lambda event: event.taskFailed.taskScheduledId),
    "timerFired": Answer("timers", lambda event: event.timerFired.timerId),
    "childWorkflowInstanceCompleted": Answer(
        "children", lambda event: event.childWorkflowInstanceCompleted.taskScheduledId
    ),
    "childWorkflowInstanceFailed": Answer("children", lambda event: event.childWorkflowInstanceFailed.taskScheduledId),
}


# Kinds of events that open what an answer closes.
OPENINGS = frozenset({"taskScheduled", "timerCreated", "childWorkflowInstanceCreated"})


@dataclass(slots=True, eq=False)
class InstanceState:
    """The fold of one execution's history.

    `tasks`, `timers` and `children` hold what is open, by the id that the workflow gave it. `execution_id` is "" before
    its start; continue-as-new and a new start of the same id change it.
    """

    execution_id: str = ""
    start: pb.HistoryEvent | None = None
    completed: pb.HistoryEvent | None = None
    created_at: pb.Timestamp | None = None
    started_at: pb.Timestamp | None = None
    updated_at: pb.Timestamp | None = None
    suspended: bool = False
    stalled: bool = False
    last_stall: str | None = None
    version: str = ""
    patches: list[str] = field(default_factory=list)
    tasks: dict[int, pb.HistoryEvent] = field(default_factory=dict)
    timers: dict[int, OpenTimer] = field(default_factory=dict)
    children: dict[int, OpenChild] = field(default_factory=dict)

    def apply(self, event: pb.HistoryEvent) -> None:
        """Take one more event of the history in."""
        kind = event.WhichOneof("eventType")
        answer = ANSWERS.get(kind)
        if answer is not None:
            getattr(self, answer.opened).pop(answer.id_of(event), None)
        elif kind in OPENINGS:
            self._open(kind, event)
        else:
            self._move(kind, event)
        self.updated_at = event.timestamp

    def _open(self, kind: str | None, event: pb.HistoryEvent) -> None:
        if kind == "taskScheduled":
            self.tasks[event.eventId] = event
        elif kind == "timerCreated":
            created = event.timerCreated
            name = created.externalEvent.name.casefold() if created.HasField("externalEvent") else None
            self.timers[event.eventId] = OpenTimer(seconds_of(created.fireAt), name)
        else:
            app_id = event.router.targetAppID if event.router.HasField("targetAppID") else None
            self.children[event.eventId] = OpenChild(app_id, event.childWorkflowInstanceCreated.instanceId)

    def _move(self, kind: str | None, event: pb.HistoryEvent) -> None:
        match kind:
            case "workflowStarted":
                self.started_at = self.started_at or event.timestamp
                self.stalled = False
                version = event.workflowStarted.version
                self.version = version.name or self.version
                self.patches.extend(version.patches)
            case "executionStarted":
                self.start, self.created_at = event, event.timestamp
                self.execution_id = event.executionStarted.workflowInstance.executionId.value
            case "executionCompleted":
                self.completed = event
                self.tasks, self.timers, self.children = {}, {}, {}
            case "executionSuspended" | "executionResumed":
                self.suspended = kind == "executionSuspended"
            case "executionStalled":
                self.stalled, self.last_stall = True, event.executionStalled.description
            case "eventRaised":
                wait = oldest_wait_for(event.eventRaised.name, self.timers.items())
                if wait is not None:
                    del self.timers[wait]

    @property
    def status(self) -> Status:
        if self.start is None:
            return Status.PENDING
        if self.completed is not None:
            return Status(self.completed.executionCompleted.workflowStatus)
        if self.stalled:
            return Status.STALLED
        return Status.SUSPENDED if self.suspended else Status.RUNNING


def fold(history: Iterable[pb.HistoryEvent]) -> InstanceState:
    """The state after all of `history`, oldest event first."""
    state = InstanceState()
    for event in history:
        state.apply(event)
    return state


def status_after(state: InstanceState, events: Iterable[pb.HistoryEvent]) -> Status:
    """The status that `state` will have once `events` are applied; `state` is not changed."""
    suspended = state.suspended
    for event in events:
        match event.WhichOneof("eventType"):
            case "executionCompleted":
                return Status(event.executionCompleted.workflowStatus)
            case "executionStalled":
                return Status.STALLED
            case "executionSuspended":
                suspended = True
            case "executionResumed":
                suspended = False
    return Status.SUSPENDED if suspended else Status.RUNNING


def start_in(events: Iterable[pb.HistoryEvent]) -> pb.HistoryEvent | None:
    """The executionStarted among `events`, if any."""
    return next((event for event in events if event.HasField("executionStarted")), None)


def optional(message: Any, name: str) -> Any:
    """The field `name` of `message`, None if it is not set: as constructors of messages take it."""
    return getattr(message, name) if message.HasField(name) else None


def timestamp_of(seconds: float) -> pb.Timestamp:
    """`seconds` since 1970-01-01 UTC as a protobuf timestamp, to the microsecond."""
    micros = round(seconds * 1e6)
    return pb.Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def event_at(timestamp: pb.Timestamp, **payload: Any) -> pb.HistoryEvent:
    """An event that no action caused: its id is -1, as in Dapr."""
    return pb.HistoryEvent(eventId=-1, timestamp=timestamp, **payload)


def instance_of(instance_id: str, execution_id: str) -> pb.WorkflowInstance:
    """Id of an instance and of its execution, as events carry them."""
    return pb.WorkflowInstance(instanceId=instance_id, executionId=pb.StringValue(value=execution_id))


def scope_of(event: pb.HistoryEvent) -> "pb.HistoryPropagationScope.ValueType":
    """The scope that a taskScheduled or childWorkflowInstanceCreated asks for; 0 is none."""
    if event.HasField("taskScheduled"):
        return event.taskScheduled.historyPropagationScope
    return event.childWorkflowInstanceCreated.historyPropagationScope


def seconds_of(timestamp: pb.Timestamp) -> float:
    """Seconds since 1970-01-01 UTC."""
    return float(timestamp.seconds) + float(timestamp.nanos) / 1e9


def oldest_wait_for(name: str, timers: Iterable[tuple[int, OpenTimer]]) -> int | None:
    """Id of the oldest open timer that limits a wait for the event `name`; Dapr compares names without case."""
    folded = name.casefold()
    return min((timer_id for timer_id, timer in timers if timer.event_name == folded), default=None)


@dataclass(frozen=True, slots=True)
class StartInstance:
    """Create an instance, and begin it with `event`, its executionStarted, at `start_at` (None: at once).

    `child_task_id` is the id by which the sender knows it as its child, or None; `announced_by` is the event of the
    sender's history that says so.
    """

    app_id: str
    instance_id: str
    event: pb.HistoryEvent
    child_task_id: int | None = None
    start_at: float | None = None
    announced_by: pb.HistoryEvent | None = None


@dataclass(frozen=True, slots=True)
class Deliver:
    """Put `event` into an instance's inbox; into no other execution than `execution_id`, if that is given."""

    app_id: str
    instance_id: str
    event: pb.HistoryEvent
    execution_id: str | None = None


Message = StartInstance | Deliver


@dataclass(frozen=True, slots=True)
class Sender:
    """The instance that sends, and when."""

    app_id: str
    instance_id: str
    execution_id: str
    name: str
    at: pb.Timestamp


def child_start(sender: Sender, created: pb.HistoryEvent, app_id: str, execution_id: str) -> StartInstance:
    """The start of the child that `created` (childWorkflowInstanceCreated) announces, as `execution_id`."""
    child = created.childWorkflowInstanceCreated
    started = pb.ExecutionStartedEvent(
        name=child.name,
        input=optional(child, "input"),
        version=optional(child, "version"),
        workflowInstance=instance_of(child.instanceId, execution_id),
        parentInstance=pb.ParentInstanceInfo(
            taskScheduledId=created.eventId,
            name=pb.StringValue(value=sender.name),
            workflowInstance=instance_of(sender.instance_id, sender.execution_id),
            appID=sender.app_id,
        ),
    )
    router = pb.TaskRouter(sourceAppID=sender.app_id, targetAppID=app_id)
    event = event_at(sender.at, executionStarted=started, router=router)
    return StartInstance(app_id, child.instanceId, event, child_task_id=created.eventId, announced_by=created)


def child_outcome(sender: Sender, parent: pb.ParentInstanceInfo, outcome: pb.CompleteWorkflowAction) -> Deliver:
    """How the sender, a child, ended: for its parent."""
    app_id = str(parent.appID) or sender.app_id
    router = pb.TaskRouter(sourceAppID=sender.app_id, targetAppID=app_id)
    if Status(outcome.workflowStatus) is Status.COMPLETED:
        completed = pb.ChildWorkflowInstanceCompletedEvent(
            taskScheduledId=parent.taskScheduledId, result=optional(outcome, "result")
        )
        event = event_at(sender.at, childWorkflowInstanceCompleted=completed, router=router)
    else:
        details = optional(outcome, "failureDetails")
        event = child_failed(sender.at, parent.taskScheduledId, details, router)
    parent_instance = parent.workflowInstance
    return Deliver(app_id, parent_instance.instanceId, event, parent_instance.executionId.value or None)


def child_failed(
    at: pb.Timestamp, task_id: int, details: pb.TaskFailureDetails | None, router: pb.TaskRouter | None = None
) -> pb.HistoryEvent:
    """The event by which a parent learns that its child failed, or could not be started."""
    failed = pb.ChildWorkflowInstanceFailedEvent(taskScheduledId=task_id, failureDetails=details)
    return event_at(at, childWorkflowInstanceFailed=failed, router=router)


def child_termination(sender: Sender, child: OpenChild, terminated: pb.ExecutionTerminatedEvent) -> Deliver:
    """Carry a recursive termination on to a child that is still open."""
    app_id = child.app_id or sender.app_id
    event = event_at(
        sender.at,
        executionTerminated=pb.ExecutionTerminatedEvent(input=optional(terminated, "input"), recurse=True),
        router=pb.TaskRouter(sourceAppID=sender.app_id, targetAppID=app_id),
    )
    return Deliver(app_id, child.instance_id, event)


def propagate(
    owner: tuple[str, str], events: Sequence[pb.HistoryEvent], asking: pb.HistoryEvent, received: bytes | None
) -> pb.PropagatedHistory | None:
    """What goes along with `asking`: the owner's events, and with lineage before them what it `received` itself.

    `owner` is (app id, instance id); None if nothing is asked for.
    """
    scope = scope_of(asking)
    if scope == pb.HISTORY_PROPAGATION_SCOPE_NONE:
        return None
    made = pb.PropagatedHistory()
    if scope == pb.HISTORY_PROPAGATION_SCOPE_LINEAGE and received is not None:
        made.MergeFromString(received)
    start = start_in(events)
    chunk = pb.PropagatedHistoryChunk(
        appId=owner[0],
        instanceId=owner[1],
        workflowName="" if start is None else start.executionStarted.name,
        rawEvents=[event.SerializeToString() for event in events],
    )
    made.chunks.append(chunk)
    made.scope = scope
    return made


@dataclass(slots=True)
class Arrived:
    """An event on its way into an instance.

    `execution_id` names the execution that it answers, if it answers one: the ids of tasks and timers start again
    with every execution. `row` is its number in the inbox on disk, or None.
    """

    event: pb.HistoryEvent
    execution_id: str | None = None
    row: int | None = None


@dataclass(slots=True)
class NewEvents:
    """The new events in order of arrival, and the ids that they close."""

    events: list[pb.HistoryEvent] = field(default_factory=list)
    closed_tasks: list[int] = field(default_factory=list)
    closed_timers: list[int] = field(default_factory=list)
    closed_children: list[int] = field(default_factory=list)

    def close(self, state: InstanceState, opened: str, number: int | None) -> bool:
        """Whether that is still open after the events before."""
        closed: list[int] = getattr(self, f"closed_{opened}")
        if number is None or number not in getattr(state, opened) or number in closed:
            return False
        closed.append(number)
        return True

    def close_wait(self, state: InstanceState, name: str) -> None:
        """The event `name` ends the oldest wait for it."""
        waits = ((number, timer) for number, timer in state.timers.items() if number not in self.closed_timers)
        self.close(state, "timers", oldest_wait_for(name, waits))


def work_item_size(arrived: Sequence[Arrived]) -> int:
    """How many of `arrived` one work item may take: all, but a suspension has one of its own.

    The SDK's executor puts off all that follows a suspension in the history. Were it within a work item,
    that would be the very events which say what it scheduled, and the next one would schedule it again.
    """
    for place, item in enumerate(arrived):
        if item.event.HasField("executionSuspended"):
            return place or 1
    return len(arrived)


def accept(state: InstanceState, arrived: Iterable[Arrived]) -> NewEvents:
    """Pick from `arrived` what the history does not have yet. Nothing is new to a completed instance."""
    new = NewEvents()
    if state.completed is not None:
        return new
    started, suspended = state.start is not None, state.suspended
    for item in arrived:
        if item.execution_id is not None and item.execution_id != state.execution_id:
            continue
        event, is_new = item.event, True
        match event.WhichOneof("eventType"):
            case "executionStarted":
                is_new, started = not started, True
            case "executionSuspended":
                is_new, suspended = not suspended, True
            case "executionResumed":
                # The SDK's executor fails a workflow that is resumed without being suspended.
                is_new, suspended = suspended, False
            case "eventRaised":
                new.close_wait(state, event.eventRaised.name)
            case kind if (answer := ANSWERS.get(kind)) is not None:
                is_new = new.close(state, answer.opened, answer.id_of(event))
        if is_new:
            new.events.append(event)
    return new
