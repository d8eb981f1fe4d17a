"""What a client sees of a turn, folded from its record and its workflow's history."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from dapr.ext.workflow import FailureDetails, WorkflowHistoryEvent
from dapr.ext.workflow import WorkflowHistoryEventType as Kind

from everturn.chat.facts import Accepted, Cancelled, Outcome, Reply, TurnFacts, TurnRun, Verdict
from everturn.chat.session import QueuedTurn, Session
from everturn.chat.turn_view import status_of, steps_of, view_of
from everturn.chat.workflow.step_runner import NOT_ITS_TURN, encode_fault
from everturn.contracts.chat import Failure, Step, StepStatus, TurnStatus, merged_steps
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


def facts(verdict: Verdict | None = None, status: TurnStatus | None = None) -> TurnFacts:
    accepted = Accepted(user_id="ann", session_id="s", text="hi", at="2026-01-01T12:00:00.000Z")
    return TurnFacts(TurnRun("t", 0, accepted), verdict, outcome(status) if status else None)


def outcome(status: TurnStatus, attempt: int = 1) -> Outcome:
    return Outcome(status=status, at="2026-01-01T12:01:00.000Z", sequence=1, attempt=attempt)


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
    cancelled = facts(Cancelled(at=""), TurnStatus.CANCELLED)
    history = History().scheduled(2, "fetch_context").completed(2).scheduled(3, "generate_response")

    turn = view_of(cancelled, Session("ann"), None, history.events)

    assert [step.status for step in turn.steps] == [StepStatus.COMPLETED, StepStatus.FAILED]
    assert turn.steps[1].error is not None
    assert turn.steps[1].error.kind == "cancelled"
    assert turn.finished_at == "2026-01-01T12:01:00.000Z"


def test_a_running_turn_has_no_reply_yet_even_if_one_is_stored() -> None:
    reply = Reply(text="hello", model="m", at="2026-01-01T12:00:30.000Z")

    running = view_of(facts(reply), Session("ann"), None, [])
    completed = view_of(facts(reply, TurnStatus.COMPLETED), Session("ann"), None, [])

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
    assert status_of(facts(status=status), Session("ann"), None) is status


def test_a_turn_without_a_workflow_is_queued_or_paused_in_its_place() -> None:
    waiting = Session("ann", queue=[QueuedTurn("u", 0), QueuedTurn("t", 1)])
    held = waiting.with_paused(facts().run, paused=True)

    assert status_of(facts(), waiting, None) is TurnStatus.QUEUED
    assert status_of(facts(), held, None) is TurnStatus.PAUSED


def test_a_look_whether_it_is_its_turn_is_no_attempt() -> None:
    history = History().scheduled(2, "fetch_context").failed(2, NOT_ITS_TURN)

    assert steps_of(history.events) == []
    (step,) = steps_of(history.scheduled(4, "fetch_context").completed(4).events)
    assert (step.attempts, step.error) == (1, None)


def test_a_look_whether_it_is_its_turn_may_end_twice_as_an_attempt_does_that_was_given_out_again() -> None:
    history = History().scheduled(2, "fetch_context").failed(2, NOT_ITS_TURN).failed(2, NOT_ITS_TURN)

    assert steps_of(history.events) == []
    (step,) = steps_of(history.scheduled(4, "fetch_context").failed(2, NOT_ITS_TURN).completed(4).events)
    assert (step.status, step.attempts) == (StepStatus.COMPLETED, 1)


@pytest.mark.parametrize(
    "history",
    [
        History().scheduled(2, "fetch_context").failed(2),
        History().scheduled(2, "generate_response").completed(2),
    ],
    ids=["which waits for its next attempt", "which has asked a person"],
)
def test_a_look_whether_it_is_its_turn_leaves_the_step_as_it_was(history: History) -> None:
    before = steps_of(history.events)

    after = steps_of(history.scheduled(4, before[0].name).failed(4, NOT_ITS_TURN).events)

    assert after == before


def test_a_turn_that_comes_back_behind_others_after_a_decision_keeps_the_steps_it_had_without_its_context() -> None:
    behind = Session("ann", queue=[QueuedTurn("u", 1), QueuedTurn("t", 2)])
    history = History().scheduled(2, "fetch_context").failed(2).scheduled(3, "generate_response").completed(3)

    turn = view_of(facts(), behind, None, history.scheduled(5, "generate_response").events)

    assert turn.status is TurnStatus.QUEUED
    assert [(step.name, step.status) for step in turn.steps] == [
        ("fetch_context", StepStatus.FAILED),
        ("generate_response", StepStatus.RUNNING),
    ]


def test_what_the_last_step_does_again_after_the_outcome_changes_nothing_that_was_shown() -> None:
    ended = facts(Reply(text="hello", model="m", at=""), TurnStatus.COMPLETED)
    history = History().scheduled(2, "save_conversation")

    shown = view_of(ended, Session("ann"), None, history.events)
    later = view_of(ended, Session("ann"), None, history.failed(2).scheduled(4, "save_conversation").events)

    assert later == shown
    assert (shown.steps[0].status, shown.steps[0].finished_at) == (StepStatus.COMPLETED, "2026-01-01T12:01:00.000Z")


def test_what_an_earlier_run_did_does_not_change_when_the_rerun_ends() -> None:
    past = Step(
        name="handle_error",
        status=StepStatus.COMPLETED,
        attempts=1,
        started_at="2026-01-01T11:00:00.000Z",
        finished_at="2026-01-01T11:00:01.000Z",
    )
    run = TurnRun("t", 1, facts().run.accepted)
    rerun = TurnFacts(run, outcome=outcome(TurnStatus.COMPLETED), past_steps=[past])

    turn = view_of(rerun, Session("ann"), None, History().scheduled(2, "save_conversation").completed(2).events)

    assert turn.steps[0] == past
