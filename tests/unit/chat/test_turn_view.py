"""What a client sees of a turn, folded from its record and its workflow's history."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from dapr.ext.workflow import FailureDetails, WorkflowHistoryEvent
from dapr.ext.workflow import WorkflowHistoryEventType as Kind

from everturn.chat.faults import encode_fault
from everturn.chat.records import Outcome, StoredReply, TurnRecord
from everturn.chat.sessions import Place, Session
from everturn.chat.turn_view import merged_steps, status_of, steps_of, view_of
from everturn.contracts.chat import Failure, Step, StepStatus, TurnStatus
from everturn.errors import TransientError

START = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - the SDK's timestamps are naive UTC


class History:
    """Writes a history, an event a second."""

    def __init__(self) -> None:
        self.events: list[WorkflowHistoryEvent] = []

    def add(self, kind: Kind, event_id: int = -1, **fields: Any) -> "History":
        at = START + timedelta(seconds=len(self.events))
        given = {"name": None, "task_scheduled_id": None, "failure_details": None, **fields}
        self.events.append(WorkflowHistoryEvent(event_id=event_id, timestamp=at, event_type=kind, **given))
        return self

    def scheduled(self, event_id: int, name: str) -> "History":
        return self.add(Kind.TASK_SCHEDULED, event_id, name=name)

    def completed(self, event_id: int) -> "History":
        return self.add(Kind.TASK_COMPLETED, task_scheduled_id=event_id)

    def failed(self, event_id: int, kind: str = "http_429") -> "History":
        raised = encode_fault(TransientError(f"answered {kind}", kind=kind))
        details = FailureDetails(str(raised), "StepAttemptFailed", None)
        return self.add(Kind.TASK_FAILED, task_scheduled_id=event_id, failure_details=details)


def record(**fields: Any) -> TurnRecord:
    given = {
        "turn_id": "t",
        "user_id": "ann",
        "session_id": "s",
        "sequence": 1,
        "text": "hi",
        "accepted_at": "2026-01-01T12:00:00.000Z",
    }
    return TurnRecord.model_validate({**given, **fields})


def outcome(status: TurnStatus, **fields: Any) -> Outcome:
    return Outcome.model_validate({"status": status, "at": "2026-01-01T12:01:00.000Z", **fields})


def test_a_running_step_has_no_end() -> None:
    steps = steps_of(History().scheduled(2, "fetch_context").events)

    assert [(step.name, step.status, step.attempts, step.finished_at) for step in steps] == [
        ("fetch_context", StepStatus.RUNNING, 1, None)
    ]


def test_attempts_count_starts_and_the_last_error_is_kept_after_a_success() -> None:
    history = History().scheduled(2, "generate_response").failed(2).scheduled(4, "generate_response").completed(4)

    (step,) = steps_of(history.events)

    assert (step.status, step.attempts) == (StepStatus.COMPLETED, 2)
    assert step.error == Failure(kind="http_429", message="answered http_429")
    assert step.started_at == "2026-01-01T12:00:00.000Z"
    assert step.finished_at == "2026-01-01T12:00:03.000Z"


def test_a_failed_attempt_is_retrying_until_the_story_goes_on_without_it() -> None:
    history = History().scheduled(2, "fetch_context").failed(2)

    retrying = steps_of(history.events)
    gone_on = steps_of(history.scheduled(3, "generate_response").events)

    assert retrying[0].status is StepStatus.RETRYING
    assert gone_on[0].status is StepStatus.FAILED


def test_internal_activities_are_not_steps_but_end_what_was_retried() -> None:
    history = History().scheduled(2, "save_conversation").failed(2).scheduled(3, "defer_event").completed(3)

    (step,) = steps_of(history.scheduled(4, "end_turn").events)

    assert (step.name, step.status) == ("save_conversation", StepStatus.FAILED)


def test_the_running_step_of_a_cancelled_turn_has_failed() -> None:
    cancelled = record(outcome=outcome(TurnStatus.CANCELLED))
    history = History().scheduled(2, "fetch_context").completed(2).scheduled(3, "generate_response")

    turn = view_of(cancelled, TurnStatus.CANCELLED, history.events)

    assert [step.status for step in turn.steps] == [StepStatus.COMPLETED, StepStatus.FAILED]
    assert turn.steps[1].error is not None
    assert turn.steps[1].error.kind == "cancelled"
    assert turn.finished_at == "2026-01-01T12:01:00.000Z"


def test_a_running_turn_has_no_reply_yet_even_if_one_is_stored() -> None:
    reply = StoredReply(text="hello", model="m", at="2026-01-01T12:00:30.000Z")

    running = view_of(record(reply=reply), TurnStatus.RUNNING, [])
    completed = view_of(record(reply=reply, outcome=outcome(TurnStatus.COMPLETED)), TurnStatus.COMPLETED, [])

    assert running.reply is None
    assert completed.reply is not None
    assert completed.reply.reply == "hello"


def test_the_attempts_of_a_rerun_are_added_to_those_before() -> None:
    past = [
        Step(name="fetch_context", status=StepStatus.COMPLETED, attempts=1, started_at="a"),
        Step(name="generate_response", status=StepStatus.FAILED, attempts=5, started_at="b"),
    ]
    now = [Step(name="generate_response", status=StepStatus.COMPLETED, attempts=1, started_at="c")]

    merged = merged_steps(past, now)

    assert [(step.name, step.status, step.attempts, step.started_at) for step in merged] == [
        ("fetch_context", StepStatus.COMPLETED, 1, "a"),
        ("generate_response", StepStatus.COMPLETED, 6, "b"),
    ]


@pytest.mark.parametrize("status", [TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED])
def test_an_outcome_is_the_status(status: TurnStatus) -> None:
    assert status_of(record(outcome=outcome(status)), Session(user_id="ann"), None) is status


def test_a_turn_without_a_workflow_is_queued_or_paused_in_its_place() -> None:
    waiting = Session(user_id="ann", queue=[Place(turn_id="u", sequence=0), Place(turn_id="t", sequence=1)])
    held = waiting.with_paused("t", paused=True)

    assert status_of(record(), waiting, None) is TurnStatus.QUEUED
    assert status_of(record(), held, None) is TurnStatus.PAUSED
