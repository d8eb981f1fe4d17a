"""Turns and activities as messages of the workflow protocol, both ways."""

from collections.abc import Sequence

from everturn.runtime.sdk import (
    ActivityRequest,
    ActivityResponse,
    CachedHistory,
    HistoryEvent,
    Replay,
    StringValue,
    WorkflowResponse,
    WorkflowVersion,
    WorkflowWork,
)
from everturn.runtime.worker import ActivityOutcome, WorkflowRequest


def turn_message(request: WorkflowRequest, held: int = 0) -> WorkflowWork:
    """A turn for a worker that has the first `held` events of the history already."""
    past_events: Sequence[HistoryEvent] = request.past_events[held:] if held else request.past_events
    return WorkflowWork(
        instanceId=request.instance_id,
        executionId=StringValue(value=request.execution_id),
        pastEvents=past_events,
        newEvents=request.new_events,
        propagatedHistory=request.propagated,
        cachedHistory=CachedHistory(eventCount=held) if held else None,
    )


def turn_of(message: WorkflowWork) -> WorkflowRequest:
    """The turn that `turn_message` wrote with the whole history."""
    return WorkflowRequest(
        message.instanceId,
        message.executionId.value,
        message.pastEvents,
        message.newEvents,
        message.propagatedHistory if message.HasField("propagatedHistory") else None,
    )


def replay_of(response: WorkflowResponse) -> Replay:
    version = response.version if response.HasField("version") else None
    return Replay(
        response.actions,
        response.customStatus.value if response.HasField("customStatus") else None,
        version.name if version is not None and version.name else None,
        tuple(version.patches) if version is not None else (),
    )


def replay_message(request: WorkflowRequest, replay: Replay) -> WorkflowResponse:
    """The answer to a turn that could be sent to a worker."""
    status, named = replay.custom_status, replay.version is not None or replay.patches
    return WorkflowResponse(
        instanceId=request.instance_id,
        actions=replay.actions,
        customStatus=StringValue(value=status) if status is not None else None,
        version=WorkflowVersion(name=replay.version, patches=replay.patches) if named else None,
    )


def outcome_of(response: ActivityResponse) -> ActivityOutcome:
    if response.HasField("failureDetails"):
        return ActivityOutcome(failure=response.failureDetails)
    return ActivityOutcome(response.result.value if response.HasField("result") else None)


def outcome_message(request: ActivityRequest, outcome: ActivityOutcome) -> ActivityResponse:
    return ActivityResponse(
        instanceId=request.workflowInstance.instanceId,
        taskId=request.taskId,
        result=StringValue(value=outcome.result) if outcome.result is not None else None,
        failureDetails=outcome.failure,
    )
