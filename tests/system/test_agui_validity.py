"""What others say is a valid stream of AG-UI 1.0: `ag-ui-validate` finds nothing, however a turn goes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ag_ui_validate.pytest_plugin import validate_agui

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import completion, spoken, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running
from tests.system.sse import Told, listening, told_in


@pytest.fixture
async def booking(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> AsyncIterator[System]:
    async with running(tmp_path, endpoint, clock, assistant="tests.system.paid_assistant:agent") as started:
        yield started


async def run(system: System, run_id: str = "r1", **more: Any) -> list[Told]:
    body = {"threadId": "s", "runId": run_id, "messages": [{"id": "m", "role": "user", "content": "Hi"}], **more}
    return told_in((await system.chat.post("/agui", json=body)).text)


def findings(told: list[Told]) -> list[str]:
    """What the validator has against these events, however small."""
    report = validate_agui([event.data for event in told])
    return [f"{found.severity}: {found.rule}: {found.message}" for found in report.diagnostics]


async def test_an_answer_with_tools_is_valid(system: System) -> None:
    calls = [("get_current_time", "{}"), ("get_current_time", '{"timezone": "Asia/Karachi"}')]
    system.endpoint.script(spoken("Let me ", "look.", calls=calls), spoken("It is ", "late"))

    assert findings(await run(system)) == []


async def test_an_answer_that_was_taken_back_is_valid(system: System) -> None:
    cut = asyncio.Event()
    system.endpoint.script(spoken("I was goi", cut, is_cut=True), spoken("Here I am"))
    body = {"threadId": "s", "runId": "r", "messages": [{"id": "m", "role": "user", "content": "Hi"}]}

    async with listening(system.composed.chat.app, "/agui", method="POST", body=body) as stream:
        turn_id = (await stream.until("RUN_STARTED")).data["metadata"]["turn_id"]
        await stream.until("TEXT_MESSAGE_CONTENT")
        cut.set()
        await system.ended(turn_id)
        await stream.rest()

    assert "MESSAGES_SNAPSHOT" in [event.type for event in stream.read]
    assert findings(stream.read) == []


async def test_a_failure_is_valid(system: System) -> None:
    system.endpoint.script(status(401))

    told = await run(system)

    assert told[-1].type == "RUN_ERROR"
    assert findings(told) == []


async def test_an_interrupt_and_the_run_that_resumes_it_are_valid(booking: System) -> None:
    booking.endpoint.script(tool_calls(("book", '{"flight": "PK301"}')), completion("It is booked."))

    asked = await run(booking)
    (interrupt,) = asked[-1].data["outcome"]["interrupts"]
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}]
    resumed = await run(booking, run_id="r2", resume=resume)
    turn_id = asked[0].data["metadata"]["turn_id"]
    whole = told_in((await booking.chat.get(f"/turns/{turn_id}/events")).text)

    assert findings(asked) == []
    # The validator forgets the calls of the run before, whose result comes in the next one
    # (https://docs.ag-ui.com/concepts/interrupts, "Lifecycle").
    forgotten = f"TOOL_CALL_RESULT references toolCallId '{interrupt['toolCallId']}', which was never started"
    assert findings(resumed) == [f"error: AGUI207: {forgotten}"]
    assert findings(whole) == findings(resumed)
