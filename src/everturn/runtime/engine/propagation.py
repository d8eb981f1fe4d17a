"""Histories that travel: what a child or an activity may read of the workflows above it.

Rules: github.com/dapr/durabletask-go backend/runtimestate/propagation.go; scopes as in the SDK's `PropagationScope`.
"""

from collections.abc import Sequence

from everturn.runtime.sdk import (
    HISTORY_PROPAGATION_SCOPE_LINEAGE,
    HISTORY_PROPAGATION_SCOPE_NONE,
    HistoryEvent,
    PropagatedHistory,
    PropagatedHistoryChunk,
    scope_value,
)


def scope_of(event: HistoryEvent) -> int:
    """The scope that a taskScheduled or childWorkflowInstanceCreated asks for; 0 is none."""
    if event.HasField("taskScheduled"):
        return int(event.taskScheduled.historyPropagationScope)
    return int(event.childWorkflowInstanceCreated.historyPropagationScope)


def propagate(
    owner: tuple[str, str], events: Sequence[HistoryEvent], asking: HistoryEvent, received: bytes | None
) -> PropagatedHistory | None:
    """What goes along with `asking`: the owner's events, and with lineage before them what it `received` itself.

    `owner` is (app id, instance id); None where nothing is asked for.
    """
    scope = scope_of(asking)
    if scope == HISTORY_PROPAGATION_SCOPE_NONE:
        return None
    made = PropagatedHistory()
    if scope == HISTORY_PROPAGATION_SCOPE_LINEAGE and received is not None:
        made.MergeFromString(received)
    started = next((event.executionStarted for event in events if event.HasField("executionStarted")), None)
    chunk = PropagatedHistoryChunk(
        appId=owner[0],
        instanceId=owner[1],
        workflowName=started.name if started is not None else "",
        rawEvents=[event.SerializeToString() for event in events],
    )
    made.chunks.append(chunk)
    made.scope = scope_value(scope)
    return made
