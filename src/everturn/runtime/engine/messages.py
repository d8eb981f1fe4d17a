"""What one instance has for another: starts, outcomes, events, terminations. Committed with the step that sends it."""

from dataclasses import dataclass

from everturn.runtime.engine.events import event_at
from everturn.runtime.engine.state import OpenChild, Status
from everturn.runtime.sdk import (
    ChildWorkflowInstanceCompletedEvent,
    ChildWorkflowInstanceFailedEvent,
    CompleteWorkflowAction,
    ExecutionStartedEvent,
    ExecutionTerminatedEvent,
    HistoryEvent,
    ParentInstanceInfo,
    StringValue,
    TaskFailureDetails,
    TaskRouter,
    Timestamp,
    WorkflowInstance,
)


@dataclass(frozen=True, slots=True)
class StartInstance:
    """Create an instance, and begin it with `event`, its executionStarted, at `start_at` (None: at once).

    `child_task_id` is the id by which the sender knows it as its child, or None; `announced_by` is the event of the
    sender's history that says so.
    """

    app_id: str
    instance_id: str
    event: HistoryEvent
    child_task_id: int | None = None
    start_at: float | None = None
    announced_by: HistoryEvent | None = None


@dataclass(frozen=True, slots=True)
class Deliver:
    """Put `event` into an instance's inbox; into no other execution than `execution_id`, where that is given."""

    app_id: str
    instance_id: str
    event: HistoryEvent
    execution_id: str | None = None


Message = StartInstance | Deliver


@dataclass(frozen=True, slots=True)
class Sender:
    """The instance that sends, and when."""

    app_id: str
    instance_id: str
    execution_id: str
    name: str
    at: Timestamp


def child_start(sender: Sender, created: HistoryEvent, app_id: str, execution_id: str) -> StartInstance:
    """The start of the child that `created` (childWorkflowInstanceCreated) announces, as `execution_id`."""
    child = created.childWorkflowInstanceCreated
    started = ExecutionStartedEvent(
        name=child.name,
        input=child.input if child.HasField("input") else None,
        version=child.version if child.HasField("version") else None,
        workflowInstance=instance_of(child.instanceId, execution_id),
        parentInstance=ParentInstanceInfo(
            taskScheduledId=created.eventId,
            name=StringValue(value=sender.name),
            workflowInstance=instance_of(sender.instance_id, sender.execution_id),
            appID=sender.app_id,
        ),
    )
    router = TaskRouter(sourceAppID=sender.app_id, targetAppID=app_id)
    event = event_at(sender.at, executionStarted=started, router=router)
    return StartInstance(app_id, child.instanceId, event, child_task_id=created.eventId, announced_by=created)


def child_outcome(sender: Sender, parent: ParentInstanceInfo, outcome: CompleteWorkflowAction) -> Deliver:
    """How the sender, a child, ended: for its parent."""
    app_id = str(parent.appID) or sender.app_id
    router = TaskRouter(sourceAppID=sender.app_id, targetAppID=app_id)
    if Status(outcome.workflowStatus) is Status.COMPLETED:
        completed = ChildWorkflowInstanceCompletedEvent(
            taskScheduledId=parent.taskScheduledId, result=outcome.result if outcome.HasField("result") else None
        )
        event = event_at(sender.at, childWorkflowInstanceCompleted=completed, router=router)
    else:
        details = outcome.failureDetails if outcome.HasField("failureDetails") else None
        event = child_failed(sender.at, parent.taskScheduledId, details, router)
    parent_instance = parent.workflowInstance
    return Deliver(app_id, parent_instance.instanceId, event, parent_instance.executionId.value or None)


def child_failed(
    at: Timestamp, task_id: int, details: TaskFailureDetails | None, router: TaskRouter | None = None
) -> HistoryEvent:
    """The event that tells a parent that its child failed, or could not be started."""
    failed = ChildWorkflowInstanceFailedEvent(taskScheduledId=task_id, failureDetails=details)
    return event_at(at, childWorkflowInstanceFailed=failed, router=router)


def child_termination(sender: Sender, child: OpenChild, terminated: ExecutionTerminatedEvent) -> Deliver:
    """Carry a recursive termination on to a child that is still open."""
    app_id = child.app_id or sender.app_id
    event = event_at(
        sender.at,
        executionTerminated=ExecutionTerminatedEvent(
            input=terminated.input if terminated.HasField("input") else None, recurse=True
        ),
        router=TaskRouter(sourceAppID=sender.app_id, targetAppID=app_id),
    )
    return Deliver(app_id, child.instance_id, event)


def instance_of(instance_id: str, execution_id: str) -> WorkflowInstance:
    """Id of an instance and of its execution, as events carry them."""
    return WorkflowInstance(instanceId=instance_id, executionId=StringValue(value=execution_id))
