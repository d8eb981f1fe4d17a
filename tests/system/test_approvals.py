"""A call that a person decides about: the turn waits, for days and over restarts, and goes on."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.paid_turn import OURS
from tests.system.conftest import PATIENCE_S, System, running
from tests.system.paid_assistant import made
from tests.system.sse import listening, told_in

pytestmark = pytest.mark.usefixtures("fresh")

BOOK = tool_calls(("book", '{"flight": "PK301"}'), ("send_mail", '{"to": "ann"}'))


async def waiting(system: System, text: str = "book PK301") -> dict[str, Any]:
    """A turn that waits for a decision."""
    system.endpoint.script_for(text, *3 * [BOOK])
    system.endpoint.script_for("booked PK301", completion("It is booked."))
    system.endpoint.script_for("not allowed", completion("I did not book it."))
    return await that_waits(system, await system.accept(text))


async def that_waits(system: System, turn_id: str) -> dict[str, Any]:
    async def waits() -> bool:
        return bool((await system.turn(turn_id))["status"] == "waiting")

    await system.until(waits, moving=False)
    return await system.turn(turn_id)


async def decide(
    system: System, turn: dict[str, Any], decision: str, call_id: str = "", **body: str
) -> httpx2.Response:
    call_id = call_id or turn["approvals"][0]["call_id"]
    return await system.chat.post(f"/turns/{turn['turn_id']}/approvals/{call_id}", json={"decision": decision, **body})


async def test_an_approved_call_is_made_and_the_turn_goes_on(ours: System) -> None:
    turn = await waiting(ours)
    shown = turn["approvals"]
    assert [(one["tool"], one["arguments"]) for one in shown] == [("book", {"flight": "PK301"})]
    assert shown[0]["asked_at"] < shown[0]["expires_at"]
    assert made == {"mail ann": 1}

    decided = await decide(ours, turn, "approve")
    ended = await ours.ended(turn["turn_id"])

    assert decided.status_code == 200
    assert decided.json()["approvals"] == []
    assert ended["reply"]["reply"] == "It is booked."
    assert made == {"mail ann": 1, "book PK301": 1}
    assert [call["name"] for call in ended["calls"] if call["kind"] == "tool"] == ["send_mail", "book"]
    assert shown[0]["call_id"] in {call["call_id"] for call in ended["calls"]}
    assert ended["reply"]["usage"] == {"input_tokens": 2, "output_tokens": 2, "model_calls": 2, "tool_calls": 2}


async def test_a_step_that_waits_for_a_decision_is_logged_as_completed_once(
    ours: System, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "everturn")
    turn = await waiting(ours)
    await decide(ours, turn, "approve")

    def completed() -> list[str]:
        return [vars(record)["step"] for record in caplog.records if record.msg == "step_completed"]

    async def is_last_completed() -> bool:  # a moment after the turn has ended
        return "save_conversation" in completed()

    await ours.until(is_last_completed)
    assert completed() == ["fetch_context", "generate_response", "save_conversation"]


async def test_a_rejected_call_is_not_made_and_the_model_reads_why(ours: System) -> None:
    turn = await waiting(ours)

    await decide(ours, turn, "reject", reason="too dear")
    ended = await ours.ended(turn["turn_id"])

    assert ended["reply"]["reply"] == "I did not book it."
    assert made == {"mail ann": 1}
    assert "too dear" in str(ours.questions()[-1])


async def test_what_was_said_before_is_read_again_behind_a_decision(ours: System) -> None:
    ours.endpoint.script_for("Hi there", completion("Hello Ann."))
    await ours.ended(await ours.accept("Hi there"))
    turn = await waiting(ours)

    await decide(ours, turn, "approve")
    ended = await ours.ended(turn["turn_id"])

    assert ended["reply"]["reply"] == "It is booked."
    assert {"role": "assistant", "content": "Hello Ann."} in ours.questions()[-1]


async def test_a_decision_counts_once_and_another_is_a_conflict(ours: System) -> None:
    turn = await waiting(ours)

    first = await decide(ours, turn, "approve")
    again = await decide(ours, turn, "approve")
    other = await decide(ours, turn, "reject")
    unknown = await decide(ours, turn, "approve", "no-such-call")
    strange = await decide(ours, turn, "perhaps")
    await ours.ended(turn["turn_id"])
    late, late_other = await decide(ours, turn, "approve"), await decide(ours, turn, "reject")

    statuses = [answer.status_code for answer in (first, again, other, unknown, strange, late, late_other)]
    assert statuses == [200, 200, 409, 404, 422, 200, 409]
    assert made["book PK301"] == 1


async def test_a_turn_waits_over_a_restart_and_holds_its_session(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, assistant=OURS) as system:
        turn = await waiting(system)
        later = await system.accept("and now?")
    async with running(tmp_path, endpoint, clock, assistant=OURS) as system:
        assert (await system.turn(later))["status"] == "queued"
        asked = len(system.endpoint.requests)

        await decide(system, turn, "approve")
        ended = await system.ended(turn["turn_id"])
        await system.ended(later)

    assert ended["reply"]["reply"] == "It is booked."
    assert made == {"mail ann": 1, "book PK301": 1}
    assert asked == 1


async def test_a_waiting_turn_can_be_cancelled(ours: System) -> None:
    turn = await waiting(ours)

    await ours.steer(turn["turn_id"], "cancel")
    late = await decide(ours, turn, "approve")

    assert (await ours.turn(turn["turn_id"]))["status"] == "cancelled"
    assert late.status_code == 409
    assert made == {"mail ann": 1}


async def test_nobody_decides_in_time_and_the_call_is_rejected(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, assistant=OURS, approval_timeout_s=0.001) as system:
        endpoint.script_for("book PK301", BOOK)
        endpoint.script_for("not allowed", completion("I did not book it."))

        ended = await system.ended(await system.accept("book PK301"))

    assert ended["reply"]["reply"] == "I did not book it."
    assert "nobody decided in time" in str(system.questions()[-1])
    assert made == {"mail ann": 1}


async def test_a_client_that_waits_for_the_reply_hears_that_a_person_has_to_decide(ours: System) -> None:
    ours.endpoint.script_for("book PK301", BOOK)

    answer = await ours.say("book PK301")

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/turns/{answer.json()['turn_id']}"


async def test_who_asks_again_for_a_turn_that_waits_hears_so_too(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, assistant=OURS, request_wait_s=10 * PATIENCE_S) as ours:
        ours.endpoint.script_for("book PK301", BOOK)
        async with asyncio.timeout(PATIENCE_S):  # far below the wait of a request
            first, again = [
                await ours.chat.post(
                    "/chat/", json={"user_id": "ann", "text": "book PK301"}, headers={"Idempotency-Key": "key"}
                )
                for _ in range(2)
            ]

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["status"] == "waiting"
    assert again.json()["turn_id"] == first.json()["turn_id"]


def run_of(run_id: str, **more: Any) -> dict[str, Any]:
    messages = [{"id": "m", "role": "user", "content": "book PK301"}]
    return {"threadId": "s", "runId": run_id, "messages": messages, **more}


def answer_to(interrupt: dict[str, Any], **payload: Any) -> list[dict[str, Any]]:
    return [{"interruptId": interrupt["id"], "status": "resolved", "payload": payload}]


@pytest.mark.parametrize(("approved", "reply"), [(True, "It is booked."), (False, "I did not book it.")])
async def test_a_run_of_agui_ends_with_an_interrupt_and_the_next_one_goes_on(
    ours: System, approved: bool, reply: str
) -> None:
    ours.endpoint.script_for("book PK301", BOOK)
    ours.endpoint.script_for("booked PK301", completion("It is booked."))
    ours.endpoint.script_for("not allowed", completion("I did not book it."))

    first = told_in((await ours.chat.post("/agui", json=run_of("r1"))).text)
    (interrupt,) = first[-1].data["outcome"]["interrupts"]
    resume = answer_to(interrupt, approved=approved)
    second = told_in((await ours.chat.post("/agui", json=run_of("r2", resume=resume))).text)

    called = {
        event.data["toolCallId"]: event.data["toolCallName"] for event in first if event.type == "TOOL_CALL_START"
    }
    assert called[interrupt["toolCallId"]] == "book"
    assert (second[0].type, second[-1].type) == ("RUN_STARTED", "RUN_FINISHED")
    assert second[0].data["runId"] == second[-1].data["runId"] == "r2"
    assert second[-1].data["result"]["reply"] == reply
    again = told_in((await ours.chat.post("/agui", json=run_of("r2", resume=resume))).text)
    assert again == second


async def test_the_stream_of_a_turn_goes_on_behind_its_pause(ours: System) -> None:
    turn = await waiting(ours)
    path = f"/turns/{turn['turn_id']}/events"

    async with listening(ours.composed.chat.app, path) as stream:
        paused = await stream.until("RUN_FINISHED")
        await decide(ours, turn, "approve")
        rest = await stream.rest()

    assert paused.data["outcome"]["type"] == "interrupt"
    assert [event.type for event in rest[:2]] == ["RUN_STARTED", "STEP_STARTED"]
    assert rest[-1].data["result"]["reply"] == "It is booked."
    assert told_in((await ours.chat.get(path)).text) == stream.read
    for count, event in enumerate(stream.read, start=1):
        resumed = told_in((await ours.chat.get(path, headers={"Last-Event-ID": event.id})).text)
        assert resumed == stream.read[count:]


async def test_a_turn_that_is_cancelled_while_it_waits_ends_its_stream(ours: System) -> None:
    turn = await waiting(ours)
    await ours.steer(turn["turn_id"], "cancel")

    said = told_in((await ours.chat.get(f"/turns/{turn['turn_id']}/events")).text)

    assert [event.data["outcome"]["type"] for event in said if event.type == "RUN_FINISHED"] == [
        "interrupt",
        "cancelled",
    ]


async def test_what_is_no_answer_to_an_interrupt_is_refused(ours: System) -> None:
    turn = await waiting(ours)
    interrupt = {"id": f"{turn['turn_id']}:{turn['approvals'][0]['call_id']}"}
    given = {"user_id": "ann"}

    async def status_of(resume: list[dict[str, Any]], **more: Any) -> int:
        body = run_of("r2", resume=resume, forwardedProps=given, **more)
        return (await ours.chat.post("/agui", json=body)).status_code

    assert await status_of(answer_to(interrupt)) == 422
    assert await status_of(answer_to({"id": "x"}, approved=True)) == 422
    assert await status_of(answer_to({"id": "nobody:x"}, approved=True)) == 404
    assert await status_of(answer_to({"id": f"{turn['turn_id']}:x"}, approved=True)) == 404
    assert (await that_waits(ours, turn["turn_id"]))["approvals"] == turn["approvals"]
