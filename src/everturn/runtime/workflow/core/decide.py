"""From a worker's answer to a decision: the events, activities, timers and messages that one transaction can commit.

`WorkItem` is what a worker is to do next, `advance` makes of its answer the result or, after continue-as-new, the next
item. Rules for actions are those of Dapr's own applier (github.com/dapr/durabletask-go
backend/runtimestate/applier.go), those for stalls are in github.com/dapr/dapr
pkg/actors/targets/workflow/orchestrator/versioning.go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from everturn.dapr.sdk import protocol as pb
from everturn.runtime.workflow.core.state import (
    NEVER_S,
    Deliver,
    InstanceState,
    Message,
    NewEvents,
    Sender,
    StartInstance,
    Status,
    child_outcome,
    child_start,
    child_termination,
    event_at,
    instance_of,
    optional,
    seconds_of,
    start_in,
    timestamp_of,
)

# More in one go would keep other instances waiting (as github.com/dapr/durabletask-go backend/workflow.go has it).
MAX_CONTINUE_AS_NEW = 20
# What a client sent while the workflow was about to continue as new still holds for the next execution.
_OUTLIVE_RESTART = frozenset({"executionTerminated", "executionSuspended"})


@dataclass(frozen=True, slots=True)
class ScheduledActivity:
    """An activity to be run by `app_id`; `event` is its taskScheduled, with input and ids."""

    app_id: str
    event: pb.HistoryEvent


@dataclass(frozen=True, slots=True)
class ArmedTimer:
    """A timer to be fired at `fire_at`, seconds since 1970-01-01 UTC."""

    timer_id: int
    fire_at: float


@dataclass(slots=True)
class Decision:
    """All that a work item changes. Nothing of it has happened yet.

    `appended`: events for the history, the new ones and then those of the actions. `restart`, if not None, is
    continue-as-new: nothing is appended, the history ends, and these events begin the next execution. `stalled`: the
    answer does not count, what arrived stays in the inbox.
    """

    appended: list[pb.HistoryEvent] = field(default_factory=list)
    restart: list[pb.HistoryEvent] | None = None
    activities: list[ScheduledActivity] = field(default_factory=list)
    timers: list[ArmedTimer] = field(default_factory=list)
    closed_tasks: list[int] = field(default_factory=list)
    closed_timers: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    custom_status: str | None = None
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class WorkItem:
    """What a worker is to do next: replay the history of `state`, then take `new_events`, as `execution_id`.

    `taken` has what the new events close. `at` is the time of what is decided; `new_id` makes a random id. `restarts`:
    how often the instance has continued as new before this item; then it has no history yet, and `replaced` is the
    decision that ended the one on disk.
    """

    app_id: str
    instance_id: str
    state: InstanceState
    new_events: list[pb.HistoryEvent]
    execution_id: str
    at: pb.Timestamp
    new_id: Callable[[], str]
    taken: NewEvents = field(default_factory=NewEvents)
    restarts: int = 0
    replaced: Decision | None = None

    @classmethod
    def begin(
        cls, owner: tuple[str, str], state: InstanceState, new: NewEvents, now: float, new_id: Callable[[], str]
    ) -> Self:
        """The item in which the instance `owner` (app id, instance id) takes `new` at `now`, in seconds since 1970."""
        at = timestamp_of(now)
        events = [event_at(at, workflowStarted=pb.WorkflowStartedEvent()), *new.events]
        execution_id = state.execution_id or _execution_of(events)
        return cls(*owner, state, events, execution_id, at, new_id, new)

    def restarted(self, decision: Decision, new_events: list[pb.HistoryEvent]) -> "WorkItem":
        """The item that begins the next execution."""
        return replace(
            self,
            state=InstanceState(),
            new_events=new_events,
            execution_id=_execution_of(new_events),
            taken=NewEvents(),
            restarts=self.restarts + 1,
            replaced=self.replaced or decision,
        )


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What there is to commit. `restarted`: the history on disk ends, and what is appended is all of the next one.

    `carried` are events that the next item begins with: it continued as new too often for one go. `execution_id` is
    that of the execution which the decision is about.
    """

    decision: Decision
    execution_id: str
    restarted: bool = False
    carried: Sequence[pb.HistoryEvent] = ()


def advance(item: WorkItem, answer: pb.WorkflowResponse) -> WorkItem | ItemResult:
    """What follows from the worker's `answer` to `item`: the next item if it continues as new, else the result.

    Raises ValueError if the answer makes no sense; then nothing has changed.
    """
    decision = decide(item, answer)
    if decision.restart is not None and item.restarts < MAX_CONTINUE_AS_NEW:
        return item.restarted(decision, decision.restart)
    return _result(item, decision)


def hold(item: WorkItem, why: str) -> ItemResult:
    """The result if `item` is too large to be sent to a worker; `why` says so."""
    return _result(item, _stalled(item, pb.PAYLOAD_SIZE_EXCEEDED, why))


def _result(item: WorkItem, decision: Decision) -> ItemResult:
    if item.replaced is None:
        return ItemResult(decision, item.execution_id)
    carried = item.new_events[1:] if decision.stalled else (decision.restart or [])[1:]
    decision.closed_tasks, decision.closed_timers = item.replaced.closed_tasks, item.replaced.closed_timers
    return ItemResult(decision, item.execution_id, restarted=True, carried=carried)


def decide(item: WorkItem, answer: pb.WorkflowResponse) -> Decision:
    """What follows from the worker's `answer`.

    Changes nothing but the first of the new events, which gets what is new of version and patches. Raises ValueError
    for an action that the protocol does not have, or an instance that was never started.
    """
    stall = _stall(item, answer)
    if stall is not None:
        return stall
    _record_version(item.state, item.new_events[0], answer.version)
    draft = _Draft(item)
    for action in answer.actions:
        kind = action.WhichOneof("workflowActionType")
        if kind not in APPLIERS:
            raise ValueError(f"instance {item.instance_id!r}: unknown action {kind!r}")
        APPLIERS[kind](draft, action)
    draft.decision.custom_status = answer.customStatus.value if answer.HasField("customStatus") else None
    return draft.decision


def _start_of(item: WorkItem) -> pb.HistoryEvent:
    start = item.state.start or start_in(item.new_events)
    if start is None:
        raise ValueError(f"instance {item.instance_id!r} has no start event")
    return start


def _execution_of(new_events: Sequence[pb.HistoryEvent]) -> str:
    start = start_in(new_events)
    return "" if start is None else start.executionStarted.workflowInstance.executionId.value


def _record_version(state: InstanceState, workflow_started: pb.HistoryEvent, met: pb.WorkflowVersion) -> None:
    patches = met.patches[len(state.patches) :]  # those before are the recorded ones, or it would have stalled
    if met.name or patches:
        version = pb.WorkflowVersion(patches=patches, name=met.name or None)
        workflow_started.workflowStarted.version.CopyFrom(version)


def _stall(item: WorkItem, answer: pb.WorkflowResponse) -> Decision | None:
    """None if the answer counts.

    A workflow whose code no longer fits its history is held, not failed, until fitting code is back. The runtime
    decides patch stalls; a worker says by an action that it does not have the version.
    """
    recorded, met = item.state.patches, list(answer.version.patches)
    if any(action.HasField("workflowVersionNotAvailable") for action in answer.actions):
        return _stalled(item, pb.VERSION_NOT_AVAILABLE, f"Version not available: {item.state.version}")
    if met[: len(recorded)] != recorded:
        mismatch = f"Patch mismatch: history has {recorded}, the worker has {met}"
        return _stalled(item, pb.PATCH_MISMATCH, mismatch)
    return None


def _stalled(item: WorkItem, reason: "pb.StalledReason.ValueType", description: str) -> Decision:
    """Held until a worker takes it. The same stall is recorded once."""
    if item.state.stalled and item.state.last_stall == description:
        return Decision(stalled=True)
    stall = pb.ExecutionStalledEvent(reason=reason, description=description)
    return Decision([event_at(item.at, executionStalled=stall)], stalled=True)


class _Draft:
    """A decision in the making."""

    __slots__ = ("decision", "item", "start")

    def __init__(self, item: WorkItem) -> None:
        self.item = item
        self.start = _start_of(item)
        timers = item.state.timers
        self.decision = Decision(
            appended=list(item.new_events),
            closed_tasks=list(item.taken.closed_tasks),
            closed_timers=[timer_id for timer_id in item.taken.closed_timers if timers[timer_id].armed],
        )

    def append(self, action: pb.WorkflowAction, **payload: Any) -> pb.HistoryEvent:
        """Add the event that `action` causes."""
        router = pb.TaskRouter(sourceAppID=self.item.app_id)
        if action.HasField("router") and action.router.targetAppID:
            router.targetAppID = action.router.targetAppID
        event = pb.HistoryEvent(eventId=action.id, timestamp=self.item.at, router=router, **payload)
        self.decision.appended.append(event)
        return event

    def target_of(self, action: pb.WorkflowAction) -> str:
        """The app that `action` is for."""
        return str(action.router.targetAppID) or self.item.app_id

    def sender(self) -> Sender:
        started = self.start.executionStarted
        execution_id = started.workflowInstance.executionId.value
        return Sender(self.item.app_id, self.item.instance_id, execution_id, started.name, self.item.at)

    def close_all(self) -> None:
        """Everything that is open is given up."""
        state = self.item.state
        self.decision.closed_tasks = list(state.tasks)
        self.decision.closed_timers = [timer_id for timer_id, timer in state.timers.items() if timer.armed]


def _schedule_task(draft: _Draft, action: pb.WorkflowAction) -> None:
    task = action.scheduleTask
    scheduled = pb.TaskScheduledEvent(
        name=task.name,
        taskExecutionId=task.taskExecutionId,
        input=optional(task, "input"),
        version=optional(task, "version"),
    )
    if task.HasField("historyPropagationScope"):
        scheduled.historyPropagationScope = task.historyPropagationScope
    event = draft.append(action, taskScheduled=scheduled)
    draft.decision.activities.append(ScheduledActivity(draft.target_of(action), event))


def _create_timer(draft: _Draft, action: pb.WorkflowAction) -> None:
    timer = action.createTimer
    created = pb.TimerCreatedEvent(fireAt=timer.fireAt, name=optional(timer, "name"))
    origin = timer.WhichOneof("origin")
    if origin is not None:
        getattr(created, origin).CopyFrom(getattr(timer, origin))
    draft.append(action, timerCreated=created)
    fire_at = seconds_of(timer.fireAt)
    if fire_at < NEVER_S:
        draft.decision.timers.append(ArmedTimer(action.id, fire_at))


def _create_child(draft: _Draft, action: pb.WorkflowAction) -> None:
    child = action.createChildWorkflow
    created = pb.ChildWorkflowInstanceCreatedEvent(
        instanceId=child.instanceId or f"{draft.item.instance_id}:{action.id:04x}",
        name=child.name,
        input=optional(child, "input"),
        version=optional(child, "version"),
    )
    if child.HasField("historyPropagationScope"):
        created.historyPropagationScope = child.historyPropagationScope
    event = draft.append(action, childWorkflowInstanceCreated=created)
    draft.decision.messages.append(child_start(draft.sender(), event, draft.target_of(action), draft.item.new_id()))


def _create_detached(draft: _Draft, action: pb.WorkflowAction) -> None:
    detached = action.createDetachedWorkflow
    instance_id = detached.instanceId or draft.item.new_id()
    draft.append(
        action, detachedWorkflowInstanceCreated=pb.DetachedWorkflowInstanceCreatedEvent(instanceId=instance_id)
    )
    started = pb.ExecutionStartedEvent(
        name=detached.name,
        input=optional(detached, "input"),
        workflowInstance=instance_of(instance_id, draft.item.new_id()),
    )
    app_id = draft.target_of(action)
    event = event_at(draft.item.at, executionStarted=started, router=pb.TaskRouter(sourceAppID=app_id))
    start_at = None
    if detached.HasField("scheduledStartTimestamp"):
        start_at = seconds_of(detached.scheduledStartTimestamp)
    draft.decision.messages.append(StartInstance(app_id, instance_id, event, start_at=start_at))


def _send_event(draft: _Draft, action: pb.WorkflowAction) -> None:
    sent = action.sendEvent
    data = optional(sent, "data")
    target_id = sent.instance.instanceId
    draft.append(action, eventSent=pb.EventSentEvent(instanceId=target_id, name=sent.name, input=data))
    event = event_at(draft.item.at, eventRaised=pb.EventRaisedEvent(name=sent.name, input=data))
    draft.decision.messages.append(Deliver(draft.target_of(action), target_id, event))


def _terminate(draft: _Draft, action: pb.WorkflowAction) -> None:
    asked = action.terminateWorkflow
    terminated = pb.ExecutionTerminatedEvent(input=optional(asked, "reason"), recurse=asked.recurse)
    event = event_at(draft.item.at, executionTerminated=terminated)
    draft.decision.messages.append(Deliver(draft.target_of(action), asked.instanceId, event))


def _complete(draft: _Draft, action: pb.WorkflowAction) -> None:
    outcome = action.completeWorkflow
    draft.close_all()
    if Status(outcome.workflowStatus) is Status.CONTINUED_AS_NEW:
        draft.decision.restart = _restart(draft, action)
        draft.decision.appended = []
        return
    completed = pb.ExecutionCompletedEvent(
        workflowStatus=outcome.workflowStatus,
        result=optional(outcome, "result"),
        failureDetails=optional(outcome, "failureDetails"),
    )
    draft.append(action, executionCompleted=completed)
    parent = draft.start.executionStarted.parentInstance
    if parent.workflowInstance.instanceId:
        draft.decision.messages.append(child_outcome(draft.sender(), parent, outcome))
    if Status(outcome.workflowStatus) is Status.TERMINATED:
        _terminate_children(draft)


def _terminate_children(draft: _Draft) -> None:
    item = draft.item
    for event in item.new_events:
        if event.HasField("executionTerminated") and event.executionTerminated.recurse:
            for number, child in item.state.children.items():
                if number not in item.taken.closed_children:
                    terminated = child_termination(draft.sender(), child, event.executionTerminated)
                    draft.decision.messages.append(terminated)
            return


def _restart(draft: _Draft, action: pb.WorkflowAction) -> list[pb.HistoryEvent]:
    outcome = action.completeWorkflow
    started = pb.ExecutionStartedEvent()
    started.CopyFrom(draft.start.executionStarted)
    started.workflowInstance.CopyFrom(instance_of(draft.item.instance_id, draft.item.new_id()))
    started.ClearField("input")
    if outcome.HasField("result"):
        started.input.CopyFrom(outcome.result)
    router = pb.TaskRouter()
    router.CopyFrom(draft.start.router)
    return [
        event_at(draft.item.at, workflowStarted=pb.WorkflowStartedEvent()),
        event_at(draft.item.at, executionStarted=started, router=router),
        *outcome.carryoverEvents,
        *(event for event in draft.item.new_events if event.WhichOneof("eventType") in _OUTLIVE_RESTART),
    ]


APPLIERS: dict[str, Callable[[_Draft, pb.WorkflowAction], None]] = {
    "scheduleTask": _schedule_task,
    "createTimer": _create_timer,
    "createChildWorkflow": _create_child,
    "createDetachedWorkflow": _create_detached,
    "sendEvent": _send_event,
    "terminateWorkflow": _terminate,
    "completeWorkflow": _complete,
}
