"""An instance as clients see it: Dapr's `WorkflowState`."""

from everturn.runtime.instances import Instance
from everturn.runtime.sdk import GetInstanceResponse, StringValue, Timestamp, WorkflowState, status_value

# 0001-01-01T00:00:00Z: what daprd shows for the times of an instance that has not begun (Go's zero time).
_YEAR_ONE_S = -62_135_596_800


def response_of(instance: Instance | None, *, with_payloads: bool) -> GetInstanceResponse:
    """The answer about an instance, None being one that does not exist.

    As daprd 1.18 fills it: no completedTimestamp, parent or tags; no name or times before the first turn.
    """
    if instance is None:
        return GetInstanceResponse(exists=False)
    state = instance.state
    seen = WorkflowState(
        instanceId=instance.row.instance_id,
        workflowStatus=status_value(instance.status),
        createdTimestamp=state.created_at or Timestamp(seconds=_YEAR_ONE_S),
        lastUpdatedTimestamp=state.updated_at or Timestamp(seconds=_YEAR_ONE_S),
    )
    _fill_start(seen, instance)
    if state.version:
        seen.version.value = state.version
    if state.completed is not None and state.completed.executionCompleted.HasField("failureDetails"):
        seen.failureDetails.CopyFrom(state.completed.executionCompleted.failureDetails)
    if with_payloads:
        _fill_payloads(seen, instance)
    return GetInstanceResponse(exists=True, workflowState=seen)


def _fill_start(seen: WorkflowState, instance: Instance) -> None:
    state = instance.state
    if state.start is not None:
        seen.name = state.start.executionStarted.name
        seen.executionId.value = state.execution_id
    if state.started_at is not None:
        seen.startedAt.CopyFrom(state.started_at)


def _fill_payloads(seen: WorkflowState, instance: Instance) -> None:
    state = instance.state
    if state.start is not None and state.start.executionStarted.HasField("input"):
        seen.input.CopyFrom(state.start.executionStarted.input)
    if state.completed is not None and state.completed.executionCompleted.HasField("result"):
        seen.output.CopyFrom(state.completed.executionCompleted.result)
    if instance.row.custom_status is not None:
        seen.customStatus.CopyFrom(StringValue(value=instance.row.custom_status))
