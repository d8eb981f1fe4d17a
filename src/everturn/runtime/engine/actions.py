"""Each kind of a worker's action, made into events and effects.

Rules are those of Dapr's own applier (github.com/dapr/durabletask-go backend/runtimestate/applier.go): an action's id
becomes the id of its event; continue-as-new ends the history and begins another.
"""

from collections.abc import Callable, Sequence
from typing import Any

from everturn.runtime.engine.decision import ArmedTimer, Decision, ScheduledActivity, Turn
from everturn.runtime.engine.events import event_at, timestamp_of
from everturn.runtime.engine.messages import (
    Deliver,
    Sender,
    StartInstance,
    child_outcome,
    child_start,
    child_termination,
    instance_of,
)
from everturn.runtime.engine.state import NEVER_S, OpenChild, Status, seconds_of
from everturn.runtime.sdk import (
    ChildWorkflowInstanceCreatedEvent,
    DetachedWorkflowInstanceCreatedEvent,
    EventRaisedEvent,
    EventSentEvent,
    ExecutionCompletedEvent,
    ExecutionStartedEvent,
    ExecutionTerminatedEvent,
    HistoryEvent,
    TaskRouter,
    TaskScheduledEvent,
    TimerCreatedEvent,
    WorkflowAction,
    WorkflowStartedEvent,
)

# What a client sent while the workflow was about to continue as new still holds for the next execution.
_OUTLIVE_RESTART = frozenset({"executionTerminated", "executionSuspended"})


class Step:
    """One turn's decision in the making."""

    __slots__ = ("at", "decision", "new_events", "start", "turn")

    def __init__(self, turn: Turn, new_events: list[HistoryEvent], start: HistoryEvent) -> None:
        self.turn = turn
        self.new_events = new_events
        self.start = start
        self.at = timestamp_of(turn.now)
        timers = turn.state.timers
        self.decision = Decision(
            appended=list(new_events),
            closed_tasks=list(turn.accepted.closed_tasks),
            closed_timers=[timer_id for timer_id in turn.accepted.closed_timers if timers[timer_id].armed],
        )

    def append(self, action: WorkflowAction, **payload: Any) -> HistoryEvent:
        """Add the event that `action` causes."""
        router = TaskRouter(sourceAppID=self.turn.app_id)
        if action.HasField("router") and action.router.targetAppID:
            router.targetAppID = action.router.targetAppID
        event = HistoryEvent(eventId=action.id, timestamp=self.at, router=router, **payload)
        self.decision.appended.append(event)
        return event

    def target_of(self, action: WorkflowAction) -> str:
        """The app that `action` is for."""
        return str(action.router.targetAppID) or self.turn.app_id

    def sender(self) -> Sender:
        started = self.start.executionStarted
        execution_id = started.workflowInstance.executionId.value
        return Sender(self.turn.app_id, self.turn.instance_id, execution_id, started.name, self.at)

    def close_all(self) -> None:
        """Everything that is open is given up."""
        state = self.turn.state
        self.decision.closed_tasks = list(state.tasks)
        self.decision.closed_timers = [timer_id for timer_id, timer in state.timers.items() if timer.armed]


def _schedule_task(step: Step, action: WorkflowAction) -> None:
    task = action.scheduleTask
    scheduled = TaskScheduledEvent(
        name=task.name,
        taskExecutionId=task.taskExecutionId,
        input=task.input if task.HasField("input") else None,
        version=task.version if task.HasField("version") else None,
    )
    if task.HasField("historyPropagationScope"):
        scheduled.historyPropagationScope = task.historyPropagationScope
    event = step.append(action, taskScheduled=scheduled)
    step.decision.activities.append(ScheduledActivity(action.id, step.target_of(action), event))


def _create_timer(step: Step, action: WorkflowAction) -> None:
    timer = action.createTimer
    created = TimerCreatedEvent(fireAt=timer.fireAt, name=timer.name if timer.HasField("name") else None)
    origin = timer.WhichOneof("origin")
    if origin is not None:
        getattr(created, origin).CopyFrom(getattr(timer, origin))
    step.append(action, timerCreated=created)
    fire_at = seconds_of(timer.fireAt)
    if fire_at < NEVER_S:
        step.decision.timers.append(ArmedTimer(action.id, fire_at))


def _create_child(step: Step, action: WorkflowAction) -> None:
    child = action.createChildWorkflow
    created = ChildWorkflowInstanceCreatedEvent(
        instanceId=child.instanceId or f"{step.turn.instance_id}:{action.id:04x}",
        name=child.name,
        input=child.input if child.HasField("input") else None,
        version=child.version if child.HasField("version") else None,
    )
    if child.HasField("historyPropagationScope"):
        created.historyPropagationScope = child.historyPropagationScope
    event = step.append(action, childWorkflowInstanceCreated=created)
    step.decision.messages.append(child_start(step.sender(), event, step.target_of(action), step.turn.new_id()))


def _create_detached(step: Step, action: WorkflowAction) -> None:
    detached = action.createDetachedWorkflow
    instance_id = detached.instanceId or step.turn.new_id()
    step.append(action, detachedWorkflowInstanceCreated=DetachedWorkflowInstanceCreatedEvent(instanceId=instance_id))
    started = ExecutionStartedEvent(
        name=detached.name,
        input=detached.input if detached.HasField("input") else None,
        workflowInstance=instance_of(instance_id, step.turn.new_id()),
    )
    app_id = step.target_of(action)
    event = event_at(step.at, executionStarted=started, router=TaskRouter(sourceAppID=app_id))
    start_at = None
    if detached.HasField("scheduledStartTimestamp"):
        start_at = seconds_of(detached.scheduledStartTimestamp)
    step.decision.messages.append(StartInstance(app_id, instance_id, event, start_at=start_at))


def _send_event(step: Step, action: WorkflowAction) -> None:
    sent = action.sendEvent
    data = sent.data if sent.HasField("data") else None
    target_id = sent.instance.instanceId
    step.append(action, eventSent=EventSentEvent(instanceId=target_id, name=sent.name, input=data))
    event = event_at(step.at, eventRaised=EventRaisedEvent(name=sent.name, input=data))
    step.decision.messages.append(Deliver(step.target_of(action), target_id, event))


def _terminate(step: Step, action: WorkflowAction) -> None:
    asked = action.terminateWorkflow
    terminated = ExecutionTerminatedEvent(
        input=asked.reason if asked.HasField("reason") else None, recurse=asked.recurse
    )
    event = event_at(step.at, executionTerminated=terminated)
    step.decision.messages.append(Deliver(step.target_of(action), asked.instanceId, event))


def _complete(step: Step, action: WorkflowAction) -> None:
    outcome = action.completeWorkflow
    step.close_all()
    if Status(outcome.workflowStatus) is Status.CONTINUED_AS_NEW:
        step.decision.restart = _restart(step, action)
        step.decision.appended = []
        return
    completed = ExecutionCompletedEvent(
        workflowStatus=outcome.workflowStatus,
        result=outcome.result if outcome.HasField("result") else None,
        failureDetails=outcome.failureDetails if outcome.HasField("failureDetails") else None,
    )
    step.append(action, executionCompleted=completed)
    parent = step.start.executionStarted.parentInstance
    if parent.workflowInstance.instanceId:
        step.decision.messages.append(child_outcome(step.sender(), parent, outcome))
    if Status(outcome.workflowStatus) is Status.TERMINATED:
        _terminate_children(step)


def _terminate_children(step: Step) -> None:
    for event in step.new_events:
        if event.HasField("executionTerminated") and event.executionTerminated.recurse:
            sender = step.sender()
            for child in _open_children(step).values():
                step.decision.messages.append(child_termination(sender, child, event.executionTerminated))
            return


def _open_children(step: Step) -> dict[int, OpenChild]:
    children = dict(step.turn.state.children)
    for event in step.new_events:
        if event.HasField("childWorkflowInstanceCompleted"):
            children.pop(event.childWorkflowInstanceCompleted.taskScheduledId, None)
        elif event.HasField("childWorkflowInstanceFailed"):
            children.pop(event.childWorkflowInstanceFailed.taskScheduledId, None)
    return children


def _restart(step: Step, action: WorkflowAction) -> list[HistoryEvent]:
    outcome = action.completeWorkflow
    started = ExecutionStartedEvent()
    started.CopyFrom(step.start.executionStarted)
    started.workflowInstance.CopyFrom(instance_of(step.turn.instance_id, step.turn.new_id()))
    started.ClearField("input")
    if outcome.HasField("result"):
        started.input.CopyFrom(outcome.result)
    router = TaskRouter()
    router.CopyFrom(step.start.router)
    return [
        event_at(step.at, workflowStarted=WorkflowStartedEvent()),
        event_at(step.at, executionStarted=started, router=router),
        *outcome.carryoverEvents,
        *_outliving(step.new_events),
    ]


def _outliving(new_events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    return [event for event in new_events if event.WhichOneof("eventType") in _OUTLIVE_RESTART]


APPLIERS: dict[str, Callable[[Step, WorkflowAction], None]] = {
    "scheduleTask": _schedule_task,
    "createTimer": _create_timer,
    "createChildWorkflow": _create_child,
    "createDetachedWorkflow": _create_detached,
    "sendEvent": _send_event,
    "terminateWorkflow": _terminate,
    "completeWorkflow": _complete,
}
