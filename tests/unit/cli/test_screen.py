"""What a person reads of a turn that runs."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from everturn.cli.screen import Terminal, status_of
from everturn.contracts.chat import Call, Failure, Step, StepStatus, Turn, TurnStatus
from tests.unit.cli.conftest import a_turn

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def a_step(status: StepStatus = StepStatus.RUNNING, **more: Any) -> Step:
    return Step(name="generate_response", status=status, attempts=2, started_at="2026-01-31T12:00:00.000Z", **more)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (None, "sending"),
        (a_turn(TurnStatus.QUEUED), "queued behind another turn of this conversation"),
        (a_turn(TurnStatus.WAITING), "waits for a decision"),
        (a_turn(TurnStatus.RUNNING), "starting"),
        (a_turn(TurnStatus.RUNNING, a_step()), "generate_response: attempt 2"),
    ],
)
def test_what_a_turn_does_is_said_in_a_few_words(turn: Turn | None, words: str) -> None:
    assert status_of(turn, NOW) == words


def test_how_a_paused_turn_goes_on_is_said() -> None:
    assert status_of(a_turn(TurnStatus.PAUSED), NOW).endswith(" turns resume t1 lets it go on")
    merged = a_turn(TurnStatus.PAUSED).model_copy(update={"merged_into": "t0"})
    assert status_of(merged, NOW).endswith(" turns resume t0 lets it go on")


def test_the_tool_that_is_called_is_named() -> None:
    done = {"agent": "a", "attempts": 1, "started_at": "x", "call_id": "c"}
    calls = [
        Call(kind="model", name="m", finished_at="x", **done),
        Call(kind="tool", name="book", **done),
    ]

    assert status_of(a_turn(TurnStatus.RUNNING, a_step(), calls=calls), NOW).endswith(": attempt 2, tool book")


@pytest.mark.parametrize(("at", "seconds"), [("12:00:07.100", 8), ("12:00:00.000", 0), ("11:59:00.000", 0)])
def test_the_next_try_is_counted_down_and_never_below_nothing(at: str, seconds: int) -> None:
    step = a_step(StepStatus.RETRYING, error=Failure(kind="http_503", message="the endpoint answered 503"))
    turn = a_turn(TurnStatus.RUNNING, step, next_attempt_at=f"2026-01-31T{at}Z")

    said = status_of(turn, NOW)

    assert said.startswith("generate_response: attempt 2 failed (the endpoint answered 503); next try at ")
    assert said.endswith(f", in {seconds} s")


def test_an_answer_that_is_repeated_after_a_crash_is_printed_once_and_another_one_whole() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, width=30, force_terminal=False))

    with terminal.showing():
        for text in (
            "one two three four five six",
            "one two",
            "one two three four five six seven",
            "one 2 three four five six",
        ):
            terminal.heard(text)

    assert [line for line in out.getvalue().splitlines() if line.strip()] == [
        "everturn> one two three four ",
        "that answer broke off; here is",
        "the next",
        "everturn> one 2 three four ",
        "five six",
    ]
