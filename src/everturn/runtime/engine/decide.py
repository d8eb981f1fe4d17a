"""What a turn comes to: the worker's actions, made into plain data that one transaction can commit."""

from collections.abc import Sequence

from everturn.runtime.engine.actions import APPLIERS, Step
from everturn.runtime.engine.decision import Decision, Turn
from everturn.runtime.engine.events import event_at, timestamp_of
from everturn.runtime.engine.inbox import Accepted
from everturn.runtime.engine.stall import new_patches, stall_of
from everturn.runtime.engine.state import InstanceState
from everturn.runtime.sdk import HistoryEvent, Replay, WorkflowStartedEvent, WorkflowVersion

# More in one go would keep other instances waiting (as github.com/dapr/durabletask-go backend/workflow.go has it).
MAX_CONTINUE_AS_NEW = 20


def begin(accepted: Accepted, now: float) -> list[HistoryEvent]:
    """The new events of a turn as the worker gets them: workflowStarted, then what arrived."""
    return [event_at(timestamp_of(now), workflowStarted=WorkflowStartedEvent()), *accepted.events]


def decide(turn: Turn, new_events: list[HistoryEvent], replay: Replay) -> Decision:
    """What `replay`, the worker's answer to `new_events`, comes to.

    Changes nothing but the first of `new_events`, which gets what is new of version and patches. Raises ValueError for
    an action that the protocol does not have, or an instance that was never started.
    """
    stall = stall_of(turn.state, replay, timestamp_of(turn.now))
    if stall is not None:
        return Decision(appended=stall, stalled=True)
    _record_version(turn.state, new_events[0], replay)
    step = Step(turn, new_events, _start_of(turn, new_events))
    for action in replay.actions:
        kind = action.WhichOneof("workflowActionType")
        if kind not in APPLIERS:
            raise ValueError(f"instance {turn.instance_id!r}: unknown action {kind!r}")
        APPLIERS[kind](step, action)
    step.decision.custom_status = replay.custom_status
    return step.decision


def _start_of(turn: Turn, new_events: Sequence[HistoryEvent]) -> HistoryEvent:
    if turn.state.start is not None:
        return turn.state.start
    for event in new_events:
        if event.HasField("executionStarted"):
            return event
    raise ValueError(f"instance {turn.instance_id!r} has no start event")


def _record_version(state: InstanceState, workflow_started: HistoryEvent, replay: Replay) -> None:
    patches = new_patches(state.patches, replay.patches) if replay.patches else []
    if replay.version or patches:
        version = WorkflowVersion(patches=patches, name=replay.version or None)
        workflow_started.workflowStarted.version.CopyFrom(version)
