"""Rerun: a new instance that begins with the history of an ended one, up to an event, and continues from that event.

Rules: github.com/dapr/dapr pkg/actors/targets/workflow/orchestrator/fork/fork.go. What was unfinished at that event is
done again; the event itself too, with another input if asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from everturn.dapr.sdk import protocol as pb
from everturn.errors import TerminalError
from everturn.runtime.workflow.core.decide import ArmedTimer, Decision, ItemResult, ScheduledActivity
from everturn.runtime.workflow.core.state import (
    NEVER_S,
    Sender,
    child_start,
    fold,
    instance_of,
    seconds_of,
    timestamp_of,
)


class ForkError(TerminalError):
    """The history cannot be forked as asked. `kind` is `not_found` or `invalid`."""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """What to fork. `input` counts only with `overwrite_input`; `child_id` is for a child that is run again."""

    app_id: str
    source_id: str
    event_id: int
    new_id: str
    execution_id: str
    now: float
    overwrite_input: bool = False
    input: pb.StringValue | None = None
    child_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """The beginning of the new instance: its executionStarted, and the step that creates it."""

    start: pb.HistoryEvent
    result: ItemResult


_RERUNNABLE = frozenset({"taskScheduled", "timerCreated", "childWorkflowInstanceCreated"})


def fork_history(history: Sequence[pb.HistoryEvent], request: ForkRequest, make_id: Callable[[], str]) -> Fork:
    """Fork `history` before the event that the request names. Raises ForkError."""
    forked: list[pb.HistoryEvent] = []
    for event in history:
        copy = pb.HistoryEvent()
        copy.CopyFrom(event)
        if event.eventId == request.event_id and event.WhichOneof("eventType") != "executionCompleted":
            forked.append(_target(copy, request))
            return _begin(forked, request, make_id)
        if not event.HasField("executionStalled"):
            forked.append(copy)
    raise ForkError(f"does not have history event with ID '{request.event_id}'", kind="not_found")


def _target(event: pb.HistoryEvent, request: ForkRequest) -> pb.HistoryEvent:
    kind = event.WhichOneof("eventType")
    if kind not in _RERUNNABLE:
        raise ForkError(
            f"target event '{kind}' with ID '{request.event_id}' is not an event that can be rerun", kind="not_found"
        )
    if request.child_id is not None and kind != "childWorkflowInstanceCreated":
        raise ForkError(f"event '{request.event_id}' is not the creation of a child workflow", kind="invalid")
    if request.overwrite_input:
        _overwrite_input(event, request)
    return event


def _overwrite_input(event: pb.HistoryEvent, request: ForkRequest) -> None:
    if event.HasField("timerCreated"):
        raise ForkError(f"cannot write input to timer event '{request.event_id}'", kind="invalid")
    payload = event.taskScheduled if event.HasField("taskScheduled") else event.childWorkflowInstanceCreated
    payload.ClearField("input")
    if request.input is not None:
        payload.input.CopyFrom(request.input)


def _begin(forked: list[pb.HistoryEvent], request: ForkRequest, make_id: Callable[[], str]) -> Fork:
    at = timestamp_of(request.now)
    for event in forked:
        if event.HasField("executionStarted"):
            event.executionStarted.workflowInstance.CopyFrom(instance_of(request.new_id, request.execution_id))
            start = event
            break
    else:
        raise ForkError(f"workflow '{request.source_id}' has no start event", kind="not_found")
    sender = Sender(request.app_id, request.new_id, request.execution_id, start.executionStarted.name, at)
    decision = Decision(appended=forked)
    state = fold(forked)
    again = pb.RerunParentInstanceInfo(instanceID=request.source_id)
    for event in forked:
        app_id = event.router.targetAppID or request.app_id
        if event.HasField("taskScheduled") and event.eventId in state.tasks:
            event.taskScheduled.rerunParentInstanceInfo.CopyFrom(again)
            decision.activities.append(ScheduledActivity(event.eventId, app_id, event))
        elif event.HasField("timerCreated") and event.eventId in state.timers:
            event.timerCreated.rerunParentInstanceInfo.CopyFrom(again)
            fire_at = seconds_of(event.timerCreated.fireAt)
            if fire_at < NEVER_S:
                decision.timers.append(ArmedTimer(event.eventId, fire_at))
        elif event.HasField("childWorkflowInstanceCreated") and event.eventId in state.children:
            event.childWorkflowInstanceCreated.rerunParentInstanceInfo.CopyFrom(again)
            event.childWorkflowInstanceCreated.instanceId = _child_id(event, request, make_id)
            decision.messages.append(child_start(sender, event, app_id, make_id()))
    return Fork(start, ItemResult(decision, request.execution_id))


def _child_id(event: pb.HistoryEvent, request: ForkRequest, make_id: Callable[[], str]) -> str:
    if event.eventId == request.event_id and request.child_id is not None:
        return request.child_id
    if event.childWorkflowInstanceCreated.instanceId == f"{request.source_id}:{event.eventId:04x}":
        return f"{request.new_id}:{event.eventId:04x}"
    return make_id()
