"""A message that comes while a turn of its session has not ended."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from everturn.dapr.wire import Request
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.paid_turn import OURS
from tests.system.conftest import ASYNC, Gate, System, running
from tests.system.sse import told_in
from tests.system.test_approvals import decide, that_waits
from tests.system.test_order import held


async def send(system: System, text: str, overlap: str, *, session: str = "s", **headers: str) -> httpx2.Response:
    metadata = {"session_id": session, "overlap": overlap}
    body = {"user_id": "ann", "text": text, "metadata": metadata}
    return await system.chat.post("/chat/", json=body, headers={**ASYNC, **headers})


async def accepted(system: System, text: str, overlap: str, **headers: str) -> str:
    response = await send(system, text, overlap, **headers)
    assert response.status_code == 202, response.text
    return str(response.json()["turn_id"])


async def turns_of(system: System) -> list[dict[str, Any]]:
    return list((await system.chat.get("/turns?user_id=ann&include=content")).json()["turns"])


async def test_an_unknown_word_is_422_and_names_the_field(system: System) -> None:
    refused = await send(system, "Hi", "shout")

    assert refused.status_code == 422
    assert "metadata.overlap" in refused.json()["detail"]


async def test_a_message_that_does_not_wait_is_refused_while_a_turn_runs_and_leaves_nothing(system: System) -> None:
    first, release = await held(system)

    refused = await send(system, "now or never", "reject")
    release.set()
    await system.ended(first)

    assert refused.status_code == 409
    assert "overlap" in refused.json()["detail"]
    assert [turn["turn_id"] for turn in await turns_of(system)] == [first]
    assert await system.history_of(2) == ["first", "re: first"]


async def test_a_message_that_does_not_wait_is_answered_when_nothing_runs(system: System) -> None:
    await system.say("before")

    turn = await system.ended(await accepted(system, "now or never", "reject"))

    assert (turn["status"], turn["sequence"]) == ("completed", 2)


async def test_the_key_of_a_refused_message_is_free_again(system: System) -> None:
    first, release = await held(system)
    refused = [await send(system, "now", "reject", **{"Idempotency-Key": "k"}) for _ in range(2)]
    release.set()
    await system.ended(first)

    turn_id = await accepted(system, "now", "reject", **{"Idempotency-Key": "k"})
    turn = await system.ended(turn_id)
    again = await send(system, "now", "reject", **{"Idempotency-Key": "k"})

    assert [answer.status_code for answer in refused] == [409, 409]
    assert turn["status"] == "completed"
    assert (again.status_code, again.json()["turn_id"]) == (200, turn_id)


async def test_the_key_of_a_message_that_was_taken_gives_its_turn_while_it_runs(system: System) -> None:
    _, release = await held(system, "other")
    turn_id = await accepted(system, "now", "reject", session="t", **{"Idempotency-Key": "k"})

    again = await send(system, "now", "reject", session="t", **{"Idempotency-Key": "k"})
    other_word = await send(system, "now", "queue", session="t", **{"Idempotency-Key": "k"})
    release.set()

    assert again.json()["turn_id"] == turn_id
    assert other_word.status_code == 422


async def test_of_many_messages_at_once_that_do_not_wait_one_is_answered(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("one")))
    answers = await asyncio.gather(*(send(system, f"m{number}", "reject") for number in range(10)))
    release.set()

    taken = [answer for answer in answers if answer.status_code == 202]
    assert sorted(answer.status_code for answer in answers) == [202, *9 * [409]]
    await system.ended(taken[0].json()["turn_id"])
    assert len(await system.history_of(2)) == 2
    assert len(await turns_of(system)) == 1
    assert len(system.questions()) == 1


async def test_a_turn_whose_workflow_an_operator_ended_is_in_nobodys_way(system: System) -> None:
    first, release = await held(system)
    await system.runtime.engine.client("chat-service").terminate_workflow(first)
    await system.runtime.engine.client("chat-service").wait_for_workflow_completion(first)

    turn = await system.ended(await accepted(system, "now", "reject"))

    assert turn["status"] == "completed"
    release.set()


@pytest.mark.parametrize("word", ["reject", "queue"])
async def test_the_setting_holds_for_messages_that_do_not_say(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, word: str
) -> None:
    async with running(tmp_path, endpoint, clock, overlap=word) as system:
        first, release = await held(system)

        silent = await system.say("second", Prefer="respond-async")
        said = await send(system, "third", "queue")
        release.set()
        await system.ended(said.json()["turn_id"])

        assert silent.status_code == (409 if word == "reject" else 202)
        assert (await system.turn(first))["status"] == "completed"


async def test_an_interrupting_message_cancels_the_turn_that_runs_and_is_answered(system: System) -> None:
    first, release = await held(system)

    turn = await system.ended(await accepted(system, "stop", "interrupt"))

    assert (turn["status"], turn["sequence"]) == ("completed", 2)
    assert (await system.turn(first))["status"] == "cancelled"
    assert await system.history_of(2) == ["stop", "hello"]
    release.set()


async def test_it_cancels_what_waits_before_it_without_a_call_and_nothing_behind_it(system: System) -> None:
    first, release = await held(system)
    waiting = [await system.accept(f"waits {number}") for number in range(3)]

    middle = await accepted(system, "no, this", "interrupt")
    last = await system.accept("and then")
    await system.ended(last)

    turns = [await system.turn(turn_id) for turn_id in (first, *waiting, middle, last)]
    assert [turn["status"] for turn in turns] == [*4 * ["cancelled"], "completed", "completed"]
    assert [turn["steps"] for turn in turns[1:4]] == [[], [], []]
    assert [question[-1]["content"] for question in system.questions()] == ["first", "no, this", "and then"]
    release.set()


async def test_of_two_interrupting_messages_the_last_one_counts(system: System) -> None:
    _, release = await held(system)
    once = asyncio.Event()
    system.endpoint.script_for("no, this", Held(once, completion("this")))
    one = await accepted(system, "no, this", "interrupt")

    turn = await system.ended(await accepted(system, "no, that", "interrupt"))

    assert turn["status"] == "completed"
    assert (await system.turn(one))["status"] == "cancelled"
    release.set()
    once.set()


async def test_a_paused_turn_does_not_hold_up_who_interrupts_it(system: System) -> None:
    first, release = await held(system)
    await system.steer(first, "pause")
    second = await system.accept("second")
    await system.steer(second, "pause")

    turn = await system.ended(await accepted(system, "stop", "interrupt"))

    assert turn["status"] == "completed"
    assert [(await system.turn(turn_id))["status"] for turn_id in (first, second)] == ["cancelled", "cancelled"]
    release.set()


async def test_a_turn_that_has_its_reply_is_not_interrupted(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    gate.wanted = lambda request: b':outcome","value"' in request.body
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        first = await system.accept("first")
        await gate.reached.wait()

        second = await accepted(system, "stop", "interrupt")
        gate.release.set()

        turns = [await system.ended(turn_id) for turn_id in (first, second)]
        assert [turn["status"] for turn in turns] == ["completed", "completed"]
        assert await system.history_of(4) == ["first", "hello", "stop", "hello"]


def behind_its_place(gate: Gate) -> None:
    """Let `gate` hold what follows the place of a message that interrupts."""
    is_placed = False

    def wanted(request: Request) -> bool:
        nonlocal is_placed
        if b'"session:s"' in request.body and b'"overlap":"interrupt"' in request.body:
            is_placed = True
            return False
        return is_placed and request.method == "GET" and request.target.endswith("session:s")

    gate.wanted = wanted


@pytest.mark.parametrize("how", ["running", "queued", "paused"])
async def test_an_interruption_outlasts_a_crash_behind_the_place_of_its_message(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock, how: str
) -> None:
    release, gate = asyncio.Event(), Gate()
    endpoint.script(Held(release, completion("never")))
    async with running(tmp_path, endpoint, clock, gate=gate, shutdown_s=0.01) as before:
        first = await before.accept("first")
        await endpoint.asked(1)
        queued = await before.accept("queued") if how == "queued" else ""
        if how == "paused":
            await before.steer(first, "pause")
        behind_its_place(gate)
        sending = asyncio.create_task(send(before, "stop", "interrupt", **{"Idempotency-Key": "k"}))
        await gate.reached.wait()
        sending.cancel()

    async with running(tmp_path, endpoint, clock) as after:
        if how == "paused":  # nothing of it runs, so somebody has to look
            await accepted(after, "stop", "interrupt", **{"Idempotency-Key": "k"})

        async def is_asked() -> bool:
            return bool(after.questions()[-1][-1]["content"] == "stop")

        await after.until(is_asked)
        turns = [await after.ended(turn_id) for turn_id in (first, queued) if turn_id]
        assert {turn["status"] for turn in turns} == {"cancelled"}
        assert await after.history_of(2) == ["stop", "hello"]
        assert [question[-1]["content"] for question in after.questions()] == ["first", "stop"]


async def test_the_turn_that_runs_notices_an_interruption_whose_sender_is_gone(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        first, release = await held(system)
        behind_its_place(gate)
        sending = asyncio.create_task(send(system, "stop", "interrupt"))
        await gate.reached.wait()
        sending.cancel()

        assert (await system.ended(first))["status"] == "cancelled"
        release.set()


LOOK = tool_calls(("get_current_time", "{}"))


async def taking(system: System, text: str = "first") -> tuple[str, asyncio.Event]:
    """A turn whose model has been asked once, and asks for a tool once the event is set."""
    release, before = asyncio.Event(), len(system.endpoint.requests)
    system.endpoint.script(Held(release, LOOK))
    turn_id = await system.accept(text)
    await system.endpoint.asked(before + 1)
    return turn_id, release


async def test_a_merging_message_is_taken_up_before_the_next_model_call(system: System) -> None:
    first, release = await taking(system)
    second = await accepted(system, "and this", "merge")
    third = await accepted(system, "and that", "merge")
    release.set()

    turns = [await system.ended(turn_id) for turn_id in (first, second, third)]

    said = [message["content"] for message in system.questions()[1] if message["role"] == "user"]
    assert said == ["first", "and this", "and that"]
    assert [turn["status"] for turn in turns] == 3 * ["completed"]
    assert [turn.get("merged_into") for turn in turns] == [None, first, first]
    assert [turn["sequence"] for turn in turns] == [1, 2, 3]
    assert [turn["reply"]["reply"] for turn in turns] == 3 * ["hello"]
    assert [turn["reply"]["turn_id"] for turn in turns] == [first, second, third]
    assert [turn["reply"].get("usage", {}).get("model_calls", 0) for turn in turns] == [2, 0, 0]
    assert len(system.questions()) == 2
    assert await system.history_of(4) == ["first", "and this", "and that", "hello"]


async def test_the_next_turn_sees_what_was_merged_also_before_it_is_stored(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock) as system:
        system.faults.set_away("broker", away=True)
        first, release = await taking(system)
        await accepted(system, "and this", "merge")
        release.set()
        await system.ended(first)

        await system.say("next")

        contents = [message["content"] for message in system.questions()[-1]]
        assert contents[-4:] == ["first", "and this", "hello", "next"]
        system.faults.set_away("broker", away=False)
        assert await system.history_of(5) == ["first", "and this", "hello", "next", "hello"]


async def test_a_merging_message_that_comes_too_late_has_a_turn_of_its_own(system: System) -> None:
    first, release = await held(system)
    second = await accepted(system, "and this", "merge")
    release.set()

    turn = await system.ended(second)

    assert (turn["status"], turn.get("merged_into")) == ("completed", None)
    assert await system.history_of(4) == ["first", "re: first", "and this", "hello"]
    assert (await system.turn(first))["reply"]["reply"] == "re: first"


async def test_a_merging_message_never_passes_one_that_waits(system: System) -> None:
    _, release = await taking(system)
    waits = await system.accept("waits")
    last = await accepted(system, "and this", "merge")
    release.set()

    turn = await system.ended(last)

    assert turn["merged_into"] == waits
    assert await system.history_of(5) == ["first", "hello", "waits", "and this", "hello"]


async def taken(system: System) -> tuple[str, str, asyncio.Event]:
    """A turn that has taken up the message of another, and is being answered until the event is set."""
    first, release = await taking(system)
    second = await accepted(system, "and this", "merge")
    answer = asyncio.Event()
    system.endpoint.script(Held(answer, completion("both")))
    asked = len(system.endpoint.requests)
    release.set()
    await system.endpoint.asked(asked + 1)
    return first, second, answer


async def test_a_message_that_was_taken_up_cannot_be_steered_any_more(system: System) -> None:
    first, second, answer = await taken(system)

    shown = await system.turn(second)
    refused = [await system.steer(second, how) for how in ("cancel", "pause")]
    answer.set()
    turn = await system.ended(second)

    assert (shown["status"], shown["merged_into"]) == ("running", first)
    assert [answer.status_code for answer in refused] == [409, 409]
    assert first in refused[0].json()["detail"]
    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "both")
    assert (await system.steer(second, "cancel")).status_code == 409


async def test_a_message_that_was_taken_up_is_paused_with_the_turn_that_has_it(system: System) -> None:
    first, second, answer = await taken(system)

    await system.steer(first, "pause")
    paused = await system.turn(second)
    refused = [await system.steer(second, how) for how in ("pause", "resume")]
    await system.steer(first, "resume")
    answer.set()
    turn = await system.ended(second)

    assert (paused["status"], paused["merged_into"]) == ("paused", first)
    assert [answer.status_code for answer in refused] == [409, 409]
    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "both")


async def test_a_merging_message_can_be_cancelled_before_it_is_taken_up(system: System) -> None:
    first, release = await taking(system)
    second = await accepted(system, "and this", "merge")

    cancelled = await system.steer(second, "cancel")
    release.set()
    await system.ended(first)

    assert cancelled.json()["status"] == "cancelled"
    assert await system.history_of(2) == ["first", "hello"]


async def test_a_merged_turn_shares_the_cancellation_of_the_turn_that_took_it(system: System) -> None:
    first, second, answer = await taken(system)
    waiting = asyncio.create_task(system.chat.get(f"/turns/{second}/events"))

    await system.steer(first, "cancel")

    turn = await system.ended(second)
    assert (turn["status"], turn["merged_into"]) == ("cancelled", first)
    assert (await system.say("next")).json()["reply"] == "hello"
    assert told_in((await waiting).text)[-1].data["outcome"]["type"] == "cancelled"
    assert await system.history_of(2) == ["next", "hello"]
    answer.set()


async def test_a_merged_turn_shares_a_failure_and_each_is_run_again_by_itself(system: System) -> None:
    first, release = await taking(system)
    second = await accepted(system, "and this", "merge")
    system.endpoint.script(status(400))
    release.set()

    turns = [await system.ended(turn_id) for turn_id in (first, second)]
    await system.steer(second, "rerun")
    again = await system.ended(second)

    assert [turn["status"] for turn in turns] == ["failed", "failed"]
    assert turns[0]["error"] == turns[1]["error"]
    assert (again["status"], again.get("merged_into"), again["sequence"]) == ("completed", None, 3)
    assert await system.history_of(2) == ["and this", "hello"]


async def test_an_interruption_ends_a_turn_and_what_it_has_taken_up(system: System) -> None:
    first, second, answer = await taken(system)

    last = await system.ended(await accepted(system, "stop", "interrupt"))

    assert [(await system.turn(turn_id))["status"] for turn_id in (first, second)] == ["cancelled", "cancelled"]
    assert last["status"] == "completed"
    answer.set()


async def test_the_stream_of_a_merged_turn_tells_the_reply(system: System) -> None:
    first, second, answer = await taken(system)
    answer.set()
    await system.ended(second)

    said = told_in((await system.chat.get(f"/turns/{second}/events")).text)
    of_first = told_in((await system.chat.get(f"/turns/{first}/events")).text)

    assert said[-1].data["result"]["reply"] == of_first[-1].data["result"]["reply"] == "both"
    assert [event.type for event in of_first].count("TOOL_CALL_RESULT") == 1


async def test_a_client_that_waits_for_a_merged_message_gets_the_reply(system: System) -> None:
    _, release = await taking(system)
    body = {"user_id": "ann", "text": "and this", "metadata": {"session_id": "s", "overlap": "merge"}}
    waiting = asyncio.create_task(system.chat.post("/chat/", json=body, headers={"Idempotency-Key": "k"}))

    async def is_there() -> bool:
        return len(await turns_of(system)) == 2

    await system.until(is_there)
    release.set()
    reply = await waiting

    assert (reply.status_code, reply.json()["reply"]) == (200, "hello")
    assert (await system.chat.post("/chat/", json=body, headers={"Idempotency-Key": "k"})).json() == reply.json()


async def test_what_was_taken_up_is_asked_again_after_a_crash_and_no_call_is_paid_twice(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, shutdown_s=0.01) as before:
        first, second, _ = await taken(before)

    async with running(tmp_path, endpoint, clock) as after:
        turns = [await after.ended(turn_id) for turn_id in (first, second)]

        assert [turn["status"] for turn in turns] == ["completed", "completed"]
        asked = [[m["content"] for m in question if m["role"] == "user"] for question in after.questions()]
        assert asked == [["first"], ["first", "and this"], ["first", "and this"]]
        assert await after.history_of(3) == ["first", "and this", "hello"]


async def test_what_was_taken_up_before_a_decision_stays_where_it_was_behind_it(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, tool_calls(("send_mail", '{"to": "ann"}'))), tool_calls(("book", '{"flight": "X"}')))
    async with running(tmp_path, endpoint, clock, assistant=OURS) as before:
        first = await before.accept("first")
        await endpoint.asked(1)
        second = await accepted(before, "and this", "merge")
        release.set()
        turn = await that_waits(before, first)

    async with running(tmp_path, endpoint, clock, assistant=OURS) as after:
        await decide(after, turn, "approve")
        turns = [await after.ended(turn_id) for turn_id in (first, second)]

        roles = [[message["role"] for message in question] for question in after.questions()]
        assert roles[1] == ["system", "user", "assistant", "tool", "user"]
        assert roles[2] == [*roles[1], "assistant", "tool"]
        assert turns[1]["merged_into"] == first
        assert await after.history_of(3) == ["first", "and this", "hello"]
