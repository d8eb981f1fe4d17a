"""Rerun: a new instance that begins with the history of an ended one, up to an event, and continues from that event.

Rules: github.com/dapr/dapr pkg/actors/targets/workflow/orchestrator/fork/fork.go. What was unfinished at that event is
done again; the event itself too, with another input if asked.
"""

from collections.abc import Callable, Sequence

from everturn.dapr.sdk import protocol as pb
from everturn.errors import TerminalError
from everturn.runtime.workflow.core.decide import ArmedTimer, Decision, ItemResult, ScheduledActivity
from everturn.runtime.workflow.core.state import (
    OPENINGS,
    Sender,
    StartInstance,
    child_start,
    fold,
    instance_of,
    start_in,
)


class ForkError(TerminalError):
    """The history cannot be forked as asked. `kind` is `not_found` or `invalid`."""


def fork_history(
    history: Sequence[pb.HistoryEvent],
    request: pb.RerunWorkflowFromEventRequest,
    owner: tuple[str, str],
    at: pb.Timestamp,
    make_id: Callable[[], str],
) -> tuple[StartInstance, ItemResult]:
    """Fork `history` before the event that the request names: the start of `owner` (app id, instance id), and the step
    that creates it.

    Raises ForkError.
    """
    forked: list[pb.HistoryEvent] = []
    for event in history:
        copy = pb.HistoryEvent()
        copy.CopyFrom(event)
        if event.eventId == request.eventID and event.WhichOneof("eventType") != "executionCompleted":
            forked.append(_target(copy, request))
            break
        if not event.HasField("executionStalled"):
            forked.append(copy)
    else:
        raise ForkError(f"does not have history event with ID '{request.eventID}'", kind="not_found")
    start = start_in(forked)
    if start is None:
        raise ForkError(f"workflow '{request.sourceInstanceID}' has no start event", kind="not_found")
    execution_id = make_id()
    start.executionStarted.workflowInstance.CopyFrom(instance_of(owner[1], execution_id))
    sender = Sender(*owner, execution_id, start.executionStarted.name, at)
    return StartInstance(*owner, start), ItemResult(_decision(forked, request, sender, make_id), execution_id)


def _target(event: pb.HistoryEvent, request: pb.RerunWorkflowFromEventRequest) -> pb.HistoryEvent:
    kind, number = event.WhichOneof("eventType"), request.eventID
    if kind not in OPENINGS:
        raise ForkError(f"target event '{kind}' with ID '{number}' is not an event that can be rerun", kind="not_found")
    if request.HasField("newChildWorkflowInstanceID") and kind != "childWorkflowInstanceCreated":
        raise ForkError(f"event '{number}' is not the creation of a child workflow", kind="invalid")
    if request.overwriteInput:
        if kind == "timerCreated":
            raise ForkError(f"cannot write input to timer event '{number}'", kind="invalid")
        payload = event.taskScheduled if kind == "taskScheduled" else event.childWorkflowInstanceCreated
        payload.ClearField("input")
        if request.HasField("input"):
            payload.input.CopyFrom(request.input)
    return event


def _decision(
    forked: list[pb.HistoryEvent],
    request: pb.RerunWorkflowFromEventRequest,
    sender: Sender,
    make_id: Callable[[], str],
) -> Decision:
    """What is open at the end of the forked history is begun again."""
    decision, state = Decision(appended=forked), fold(forked)
    again = pb.RerunParentInstanceInfo(instanceID=request.sourceInstanceID)
    for event in forked:
        app_id = event.router.targetAppID or sender.app_id
        if event.HasField("taskScheduled") and event.eventId in state.tasks:
            event.taskScheduled.rerunParentInstanceInfo.CopyFrom(again)
            decision.activities.append(ScheduledActivity(app_id, event))
        elif event.HasField("timerCreated") and event.eventId in state.timers:
            event.timerCreated.rerunParentInstanceInfo.CopyFrom(again)
            if state.timers[event.eventId].armed:
                decision.timers.append(ArmedTimer(event.eventId, state.timers[event.eventId].fire_at))
        elif event.HasField("childWorkflowInstanceCreated") and event.eventId in state.children:
            child = event.childWorkflowInstanceCreated
            child.rerunParentInstanceInfo.CopyFrom(again)
            child.instanceId = _child_id(event, request, sender.instance_id) or make_id()
            decision.messages.append(child_start(sender, event, app_id, make_id()))
    return decision


def _child_id(event: pb.HistoryEvent, request: pb.RerunWorkflowFromEventRequest, new_id: str) -> str:
    """The id of a child that is run again; "" if any will do."""
    if event.eventId == request.eventID and request.HasField("newChildWorkflowInstanceID"):
        return request.newChildWorkflowInstanceID
    if event.childWorkflowInstanceCreated.instanceId == f"{request.sourceInstanceID}:{event.eventId:04x}":
        return f"{new_id}:{event.eventId:04x}"
    return ""
