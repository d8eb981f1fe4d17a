"""The work of workflows as Dapr's protocol writes it, for workers behind a stream and for those of other runtimes."""

from collections.abc import Sequence

from everturn.dapr.sdk import protocol as pb
from everturn.runtime.workflow.worker import ActivityOutcome, WorkflowRequest


def work_message(request: WorkflowRequest, held: int = 0) -> pb.WorkflowWork:
    """A work item for a worker that has the first `held` events of the history already."""
    past_events: Sequence[pb.HistoryEvent] = request.past_events[held:] if held else request.past_events
    return pb.WorkflowWork(
        instanceId=request.instance_id,
        executionId=pb.StringValue(value=request.execution_id),
        pastEvents=past_events,
        newEvents=request.new_events,
        propagatedHistory=request.propagated,
        cachedHistory=pb.CachedHistory(eventCount=held) if held else None,
    )


def request_of(message: pb.WorkflowWork) -> WorkflowRequest:
    """The request that `work_message` wrote with the whole history."""
    return WorkflowRequest(
        message.instanceId,
        message.executionId.value,
        message.pastEvents,
        message.newEvents,
        message.propagatedHistory if message.HasField("propagatedHistory") else None,
    )


def replay_of(response: pb.WorkflowResponse) -> pb.Replay:
    version = response.version if response.HasField("version") else None
    return pb.Replay(
        response.actions,
        response.customStatus.value if response.HasField("customStatus") else None,
        version.name if version is not None and version.name else None,
        tuple(version.patches) if version is not None else (),
    )


def replay_message(request: WorkflowRequest, replay: pb.Replay) -> pb.WorkflowResponse:
    """The answer to a work item that could be sent to a worker."""
    status, named = replay.custom_status, replay.version is not None or replay.patches
    return pb.WorkflowResponse(
        instanceId=request.instance_id,
        actions=replay.actions,
        customStatus=pb.StringValue(value=status) if status is not None else None,
        version=pb.WorkflowVersion(name=replay.version, patches=replay.patches) if named else None,
    )


def outcome_of(response: pb.ActivityResponse) -> ActivityOutcome:
    if response.HasField("failureDetails"):
        return ActivityOutcome(failure=response.failureDetails)
    return ActivityOutcome(response.result.value if response.HasField("result") else None)


def outcome_message(request: pb.ActivityRequest, outcome: ActivityOutcome) -> pb.ActivityResponse:
    return pb.ActivityResponse(
        instanceId=request.workflowInstance.instanceId,
        taskId=request.taskId,
        result=pb.StringValue(value=outcome.result) if outcome.result is not None else None,
        failureDetails=outcome.failure,
    )
