"""Short ways to make the events that a test is about."""

from typing import Any

from everturn.dapr.sdk.protocol import (
    ChildWorkflowInstanceCompletedEvent,
    ChildWorkflowInstanceCreatedEvent,
    EventRaisedEvent,
    ExecutionCompletedEvent,
    ExecutionResumedEvent,
    ExecutionStartedEvent,
    ExecutionSuspendedEvent,
    ExecutionTerminatedEvent,
    HistoryEvent,
    StringValue,
    TaskCompletedEvent,
    TaskFailedEvent,
    TaskScheduledEvent,
    TimerCreatedEvent,
    TimerFiredEvent,
    TimerOriginExternalEvent,
    WorkflowStartedEvent,
    WorkflowVersion,
)
from everturn.runtime.workflow.core.state import Status, event_at, instance_of, timestamp_of

AT = 1_000.0


def event(event_id: int = -1, **payload: Any) -> HistoryEvent:
    made = event_at(timestamp_of(AT), **payload)
    made.eventId = event_id
    return made


def turn_started(*patches: str, version: str | None = None) -> HistoryEvent:
    recorded = WorkflowVersion(patches=patches, name=version) if patches or version else None
    return event(workflowStarted=WorkflowStartedEvent(version=recorded))


def started(name: str = "flow", execution_id: str = "x1", argument: str | None = None) -> HistoryEvent:
    payload = ExecutionStartedEvent(
        name=name,
        workflowInstance=instance_of("one", execution_id),
        input=None if argument is None else StringValue(value=argument),
    )
    return event(executionStarted=payload)


def scheduled(task_id: int, name: str = "step") -> HistoryEvent:
    return event(task_id, taskScheduled=TaskScheduledEvent(name=name, taskExecutionId=f"t{task_id}"))


def completed(task_id: int, result: str = "1") -> HistoryEvent:
    return event(taskCompleted=TaskCompletedEvent(taskScheduledId=task_id, result=StringValue(value=result)))


def failed(task_id: int) -> HistoryEvent:
    return event(taskFailed=TaskFailedEvent(taskScheduledId=task_id))


def timer(timer_id: int, fire_at: float, wait_for: str | None = None) -> HistoryEvent:
    created = TimerCreatedEvent(fireAt=timestamp_of(fire_at))
    if wait_for is not None:
        created.externalEvent.CopyFrom(TimerOriginExternalEvent(name=wait_for))
    return event(timer_id, timerCreated=created)


def fired(timer_id: int) -> HistoryEvent:
    return event(timerFired=TimerFiredEvent(timerId=timer_id))


def raised(name: str) -> HistoryEvent:
    return event(eventRaised=EventRaisedEvent(name=name))


def child(task_id: int, instance_id: str = "kid") -> HistoryEvent:
    created = ChildWorkflowInstanceCreatedEvent(instanceId=instance_id, name="child")
    return event(task_id, childWorkflowInstanceCreated=created)


def child_completed(task_id: int) -> HistoryEvent:
    return event(childWorkflowInstanceCompleted=ChildWorkflowInstanceCompletedEvent(taskScheduledId=task_id))


def ended(status: Status = Status.COMPLETED) -> HistoryEvent:
    return event(9, executionCompleted=ExecutionCompletedEvent(workflowStatus=status.on_wire))


def suspended() -> HistoryEvent:
    return event(executionSuspended=ExecutionSuspendedEvent())


def resumed() -> HistoryEvent:
    return event(executionResumed=ExecutionResumedEvent())


def terminated(*, recurse: bool = False) -> HistoryEvent:
    return event(executionTerminated=ExecutionTerminatedEvent(recurse=recurse, input=StringValue(value='"enough"')))
