"""A turn as a client sees it: folded from its facts, its session and its workflow's history. Pure."""

from collections.abc import Iterable
from datetime import datetime

from dapr.ext.workflow import WorkflowHistoryEvent, WorkflowHistoryEventType, WorkflowState, WorkflowStatus

from everturn.chat.facts import Failed, Outcome, TurnFacts
from everturn.chat.session import Session
from everturn.chat.workflow.chat_turn import END_TURN, HANDLE_ERROR, SAVE_CONVERSATION
from everturn.chat.workflow.step_runner import (
    CANCELLED,
    NEXT_ATTEMPT_STATUS,
    NOT_ITS_TURN,
    WAITING_STATUS,
    decode_fault,
)
from everturn.contracts.chat import Failure, Step, StepStatus, Turn, TurnStatus, merged_steps
from everturn.contracts.fields import to_wire

_INTERNAL = frozenset({"defer_event", END_TURN})
# With one of these scheduled, nothing can hold the turn any more.
_ENDING = frozenset({SAVE_CONVERSATION, HANDLE_ERROR, END_TURN})
_DONE = frozenset({StepStatus.COMPLETED, StepStatus.FAILED})


def steps_of(history: Iterable[WorkflowHistoryEvent], outcome: Outcome | None = None) -> list[Step]:
    """The steps that a history shows, in order of their start.

    An attempt is a scheduled task; a failed one is `retrying` until the next is scheduled or the workflow continues
    without it, when it is `failed`. A look whether it is the turn's turn yet is no attempt, nor is what the step that
    ends the turn does again after it has written `outcome`: what was said of an ended turn stays. Of an attempt that
    was given out again after a crash, and so ends twice, the first end counts.
    """
    steps: dict[str, Step] = {}
    by_id: dict[int, Step] = {}
    before: dict[int, Step] = {}
    for event in history:
        match event.event_type:
            case WorkflowHistoryEventType.TASK_SCHEDULED if event.name and event.name not in _INTERNAL:
                _give_up_others(steps.values(), event.name)
                step = steps.setdefault(event.name, _begun(event.name, event.timestamp))
                if outcome is not None and event.name in _ENDING and step.attempts >= outcome.attempt:
                    continue
                before[event.event_id] = step.model_copy()
                step.attempts += 1
                step.status = StepStatus.RUNNING
                by_id[event.event_id] = step
            case WorkflowHistoryEventType.TASK_SCHEDULED:
                _give_up_others(steps.values(), None)
            case WorkflowHistoryEventType.TASK_COMPLETED if event.task_scheduled_id in by_id:
                done = by_id.pop(event.task_scheduled_id or 0)
                done.status, done.finished_at = StepStatus.COMPLETED, to_wire(event.timestamp)
            case WorkflowHistoryEventType.TASK_FAILED if event.task_scheduled_id in by_id:
                failed = by_id.pop(event.task_scheduled_id or 0)
                failed.status, failed.finished_at = StepStatus.RETRYING, to_wire(event.timestamp)
                if outcome is not None and failed.name in _ENDING and failed.attempts >= outcome.attempt:
                    failed.status = StepStatus.COMPLETED
                elif details := event.failure_details:
                    fault = decode_fault(details.error_type, details.message)
                    failed.error = fault.as_failure()
                    if fault.kind == NOT_ITS_TURN:
                        _forget_look(steps, before[event.task_scheduled_id or 0])
            case _:
                continue
    return [_shown(step) for step in steps.values()]


def _begun(name: str, at: datetime) -> Step:
    return Step(name=name, status=StepStatus.RUNNING, attempts=0, started_at=to_wire(at))


def _shown(step: Step) -> Step:
    """A step that is not over has no end, though an attempt of it has."""
    return step if step.status in _DONE else step.model_copy(update={"finished_at": None})


def _forget_look(steps: dict[str, Step], before: Step) -> None:
    """A look whether it is the turn's turn leaves the step as it was `before`, perhaps with attempts that count."""
    if before.attempts:
        steps[before.name] = before
    else:
        del steps[before.name]


def _give_up_others(steps: Iterable[Step], name: str | None) -> None:
    """Another step begins: what was waiting for its next attempt has failed for good."""
    for step in steps:
        if step.name != name and step.status is StepStatus.RETRYING:
            step.status = StepStatus.FAILED


def is_ending(history: Iterable[WorkflowHistoryEvent]) -> bool:
    """Whether the workflow has begun to end its turn: nothing can hold the turn any more."""
    return any(
        event.event_type is WorkflowHistoryEventType.TASK_SCHEDULED and event.name in _ENDING for event in history
    )


def status_of(facts: TurnFacts, session: Session, workflow: WorkflowState | None) -> TurnStatus:
    """Where a turn stands: one whose message another has taken up, where that one does.

    `workflow` is the state of its instance, or of that of the turn that has taken its message up; None if it has none
    (yet).
    """
    if facts.outcome is not None:
        return facts.outcome.status
    place = session.carrier_of(session.place_of(facts.run))
    if place is not None and place.paused:
        return TurnStatus.PAUSED
    if place is not None and place in session.waiting:
        return TurnStatus.WAITING
    if workflow is None or place is None or place is not session.head:
        return TurnStatus.QUEUED
    if workflow.runtime_status is WorkflowStatus.SUSPENDED:
        return TurnStatus.PAUSED
    if waits_for_person(workflow):
        return TurnStatus.WAITING
    return TurnStatus.RUNNING


def waits_for_person(workflow: WorkflowState | None) -> bool:
    """Whether a run has stopped until a person decides."""
    return _custom_status(workflow) == WAITING_STATUS


def view_of(
    facts: TurnFacts,
    session: Session,
    workflow: WorkflowState | None,
    history: Iterable[WorkflowHistoryEvent],
) -> Turn:
    """The whole turn. What still ran when a turn ended has failed with it."""
    run, outcome, status = facts.run, facts.outcome, status_of(facts, session, workflow)
    now = steps_of(history, outcome) if facts.steps is None else facts.steps
    if status is TurnStatus.QUEUED and not any(step.status in _DONE for step in now):
        now = []  # a look whether it is its turn; others have come back after a person's decision
    # What is kept of earlier runs has ended with them.
    steps = merged_steps(facts.past_steps, ended_steps(now, outcome) if outcome is not None else now)
    place = session.place_of(run)
    return Turn(
        turn_id=run.turn_id,
        user_id=run.accepted.user_id,
        session_id=run.accepted.session_id,
        sequence=outcome.sequence if outcome else place.sequence if place else 0,
        status=status,
        created_at=run.accepted.at,
        finished_at=outcome.at if outcome else None,
        steps=steps,
        reply=facts.reply() if status is TurnStatus.COMPLETED else None,
        error=facts.verdict.as_failure() if outcome and isinstance(facts.verdict, Failed) else None,
        merged_into=(facts.verdict.merged_into if outcome and facts.verdict else session.taker_of(place)) or None,
        next_attempt_at=None if outcome else _next_attempt_at(workflow),
    )


def _next_attempt_at(workflow: WorkflowState | None) -> str | None:
    status = _custom_status(workflow)
    return status.removeprefix(NEXT_ATTEMPT_STATUS) if status.startswith(NEXT_ATTEMPT_STATUS) else None


def _custom_status(workflow: WorkflowState | None) -> str:
    return ((workflow and workflow.serialized_custom_status) or "").strip('"')


def ended_steps(steps: Iterable[Step], outcome: Outcome) -> list[Step]:
    """The steps of a run as they are once it has that outcome."""
    return [_ended(step, outcome) for step in steps]


def _ended(step: Step, outcome: Outcome) -> Step:
    """A step of a turn that has ended: the one that ended it is over when the outcome is written."""
    cancelled = outcome.status is TurnStatus.CANCELLED
    if step.name in _ENDING and step.status is not StepStatus.FAILED and not cancelled:
        return step.model_copy(update={"status": StepStatus.COMPLETED, "finished_at": outcome.at})
    if step.status in _DONE:
        return step
    error = Failure(kind=CANCELLED, message="the turn was cancelled") if cancelled else step.error
    return step.model_copy(update={"status": StepStatus.FAILED, "finished_at": outcome.at, "error": error})
