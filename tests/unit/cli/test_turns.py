"""A turn, printed for a person."""

from everturn.cli.chat import printable
from everturn.cli.turns import turn_lines
from everturn.contracts.chat import Failure, Step, StepStatus, Turn, TurnStatus


def a_turn(status: TurnStatus, *steps: Step, error: Failure | None = None) -> Turn:
    return Turn(
        turn_id="t1",
        user_id="junaid",
        session_id="s1",
        sequence=3,
        status=status,
        created_at="2026-01-31T12:00:00.000Z",
        steps=list(steps),
        error=error,
    )


def test_each_step_is_shown_with_its_attempts_and_last_error() -> None:
    error = Failure(kind="unreachable", message="cannot reach app 'agent-memory-service'")
    step = Step(name="fetch_context", status=StepStatus.RETRYING, attempts=2, started_at="x", error=error)

    shown = "\n".join(turn_lines(a_turn(TurnStatus.RUNNING, step)))

    assert "turn t1: running" in shown
    assert "retrying" in shown
    assert "2 attempts; last error unreachable: cannot reach app 'agent-memory-service'" in shown


def test_why_a_turn_failed_is_shown() -> None:
    shown = turn_lines(a_turn(TurnStatus.FAILED, error=Failure(kind="http_401", message="the key was refused")))

    assert shown[-1] == "  error http_401: the key was refused"


def test_a_terminal_is_not_steered_by_what_is_printed() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\ufffd[2Jb\nc"
