"""A turn as a client sees it: folded from its record, its session and its workflow's history. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from dapr.ext.workflow import WorkflowHistoryEvent, WorkflowHistoryEventType, WorkflowState, WorkflowStatus

from everturn.chat.faults import CANCELLED, decode_fault
from everturn.chat.records import TurnRecord
from everturn.chat.sessions import Session
from everturn.chat.turn import DEFER_EVENT, END_TURN
from everturn.contracts.chat import ChatReply, Failure, ReplyMetadata, Step, StepStatus, Turn, TurnStatus
from everturn.contracts.times import to_wire

# What a step that waits for a person sets as the workflow's custom status.
WAITING_STATUS = "waiting"

_INTERNAL = frozenset({DEFER_EVENT, END_TURN})


@dataclass(slots=True)
class _StepSoFar:
    name: str
    started_at: datetime
    attempts: int = 0
    status: StepStatus = StepStatus.RUNNING
    finished_at: datetime | None = None
    error: Failure | None = None

    def as_step(self) -> Step:
        done = self.status in (StepStatus.COMPLETED, StepStatus.FAILED)
        return Step(
            name=self.name,
            status=self.status,
            attempts=self.attempts,
            started_at=to_wire(self.started_at),
            finished_at=to_wire(self.finished_at) if done and self.finished_at else None,
            error=self.error,
        )


def steps_of(history: Iterable[WorkflowHistoryEvent]) -> list[Step]:
    """The steps that a history tells of, in order of their start.

    An attempt is a scheduled task; a failed one is `retrying` until the next is scheduled or the story goes on
    without it, when it is `failed`.
    """
    steps: dict[str, _StepSoFar] = {}
    by_id: dict[int, _StepSoFar] = {}
    for event in history:
        match event.event_type:
            case WorkflowHistoryEventType.TASK_SCHEDULED if event.name and event.name not in _INTERNAL:
                _give_up_others(steps.values(), event.name)
                step = steps.setdefault(event.name, _StepSoFar(event.name, event.timestamp))
                step.attempts += 1
                step.status = StepStatus.RUNNING
                by_id[event.event_id] = step
            case WorkflowHistoryEventType.TASK_SCHEDULED:
                _give_up_others(steps.values(), None)
            case WorkflowHistoryEventType.TASK_COMPLETED if event.task_scheduled_id in by_id:
                done = by_id[event.task_scheduled_id or 0]
                done.status, done.finished_at = StepStatus.COMPLETED, event.timestamp
            case WorkflowHistoryEventType.TASK_FAILED if event.task_scheduled_id in by_id:
                failed = by_id[event.task_scheduled_id or 0]
                failed.status, failed.finished_at = StepStatus.RETRYING, event.timestamp
                if details := event.failure_details:
                    failed.error = decode_fault(details.error_type, details.message).as_failure()
            case _:
                continue
    return [step.as_step() for step in steps.values()]


def _give_up_others(steps: Iterable[_StepSoFar], name: str | None) -> None:
    """Another step begins: what was waiting for its next attempt has failed for good."""
    for step in steps:
        if step.name != name and step.status is StepStatus.RETRYING:
            step.status = StepStatus.FAILED


def is_ending(history: Iterable[WorkflowHistoryEvent]) -> bool:
    """Whether the workflow has begun to end its turn: nothing can hold the turn any more."""
    return any(
        event.event_type is WorkflowHistoryEventType.TASK_SCHEDULED and event.name == END_TURN for event in history
    )


def merged_steps(past: Sequence[Step], now: Sequence[Step]) -> list[Step]:
    """The steps of an earlier run followed by those of the current one; a step of both is one, its attempts added."""
    merged = {step.name: step for step in past}
    for step in now:
        before = merged.get(step.name)
        if before is None:
            merged[step.name] = step
            continue
        together = {"attempts": before.attempts + step.attempts, "started_at": before.started_at}
        error = step.error or before.error
        merged[step.name] = step.model_copy(update={**together, "error": error})
    return list(merged.values())


def status_of(record: TurnRecord, session: Session, workflow: WorkflowState | None) -> TurnStatus:
    """Where a turn stands; `workflow` is the state of its instance, None where it has none (yet)."""
    if record.outcome is not None:
        return TurnStatus(record.outcome.status)
    place = session.place_of(record.turn_id)
    if place is not None and place.paused:
        return TurnStatus.PAUSED
    if workflow is None:
        return TurnStatus.QUEUED
    if workflow.runtime_status is WorkflowStatus.SUSPENDED:
        return TurnStatus.PAUSED
    if workflow.serialized_custom_status == WAITING_STATUS:
        return TurnStatus.WAITING
    return TurnStatus.RUNNING


def view_of(record: TurnRecord, status: TurnStatus, history: Iterable[WorkflowHistoryEvent]) -> Turn:
    """The whole turn. What still ran when a turn ended has failed with it."""
    steps = merged_steps(record.past_steps, steps_of(history))
    outcome = record.outcome
    if outcome is not None:
        steps = [_ended(step, outcome.at, cancelled=status is TurnStatus.CANCELLED) for step in steps]
    return Turn(
        turn_id=record.turn_id,
        user_id=record.user_id,
        session_id=record.session_id,
        sequence=record.sequence,
        status=status,
        created_at=record.accepted_at,
        finished_at=outcome.at if outcome else None,
        steps=steps,
        reply=reply_of(record) if status is TurnStatus.COMPLETED else None,
        error=outcome.error if outcome else None,
    )


def reply_of(record: TurnRecord) -> ChatReply | None:
    """The reply as the client gets it; None while there is none."""
    reply = record.reply
    if reply is None:
        return None
    return ChatReply(
        user_id=record.user_id,
        reply=reply.text,
        metadata=ReplyMetadata(session_id=record.session_id, timestamp=reply.at),
        turn_id=record.turn_id,
        model=reply.model,
        degraded=reply.degraded,
    )


def _ended(step: Step, at: str, *, cancelled: bool) -> Step:
    if step.status in (StepStatus.COMPLETED, StepStatus.FAILED):
        return step
    error = Failure(kind=CANCELLED, message="the turn was cancelled") if cancelled else step.error
    return step.model_copy(update={"status": StepStatus.FAILED, "finished_at": at, "error": error})
