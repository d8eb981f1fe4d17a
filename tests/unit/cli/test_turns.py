"""A turn, printed for a person."""

import io
from typing import Any

from rich.console import Console

from everturn.cli.client import command, printable
from everturn.cli.turns import print_turn
from everturn.contracts.chat import Approval, Call, Failure, Step, StepStatus, Turn, TurnStatus
from tests.unit.cli.conftest import a_turn


def shown(turn: Turn) -> list[str]:
    out = io.StringIO()
    print_turn(turn, Console(file=out, width=1_000))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_each_step_is_shown_with_its_attempts_and_last_error() -> None:
    error = Failure(kind="unreachable", message="cannot reach app 'agent-memory-service'")
    step = Step(name="fetch_context", status=StepStatus.RETRYING, attempts=2, started_at="x", error=error)

    lines = shown(a_turn(TurnStatus.RUNNING, step))

    assert lines[0] == "turn t1: running"
    assert "fetch_context retrying 2 attempts last error unreachable: cannot reach app 'agent-memory-service'" in lines


def test_why_a_turn_failed_is_shown() -> None:
    lines = shown(a_turn(TurnStatus.FAILED, error=Failure(kind="http_401", message="the key was [bold]refused[/bold]")))

    assert lines[-1] == "error http_401: the key was [bold]refused[/bold]"


def test_what_a_turn_has_called_and_what_it_asks_are_shown() -> None:
    turn = a_turn(TurnStatus.WAITING)
    failed = Failure(kind="tool_failed", message="the tool failed")
    of_call: dict[str, Any] = {"agent": "a", "started_at": "x"}
    turn.calls = [
        Call(call_id="c", kind="model", name="m", attempts=1, **of_call),
        Call(call_id="d", kind="tool", name="mail", attempts=2, error=failed, **of_call),
    ]
    turn.approvals = [Approval(call_id="c-1", tool="book", arguments={"flight": "PK301"}, asked_at="x")]

    lines = shown(turn)

    assert "model m 1 attempt" in lines
    assert "tool mail 2 attempts error tool_failed: the tool failed" in lines
    assert lines[-2] == 'asks for book {"flight": "PK301"}'
    assert "everturn turns approve t1 c-1" in lines[-1].replace(command(), "everturn")


def test_a_terminal_is_not_steered_by_what_is_printed() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\ufffd[2Jb\nc"
