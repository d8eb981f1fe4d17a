"""The streams of turns: what they say, how they go on, and that they change nothing."""

import asyncio
from pathlib import Path

import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, Whole, completion, spoken, status, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import PATIENCE_S, System, running
from tests.system.sse import Told, listening, told_in

STREAM = {"Accept": "text/event-stream"}
MESSAGE = {"user_id": "ann", "text": "Hi", "metadata": {"session_id": "s"}}


async def events(system: System, turn_id: str, query: str = "", **headers: str) -> list[Told]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await system.chat.get(f"/turns/{turn_id}/events{query}", headers=named)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return told_in(response.text)


async def test_a_message_is_answered_with_the_events_of_its_turn(system: System) -> None:
    response = await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)

    said = told_in(response.text)
    assert (said[0].type, said[-1].type) == ("RUN_STARTED", "RUN_FINISHED")
    assert "".join(event.data.get("delta", "") for event in said) == "hello"
    turn_id = said[0].data["runId"]
    assert response.headers["location"] == f"/turns/{turn_id}"
    assert said[-1].data["result"] == (await system.turn(turn_id))["reply"]


async def test_whoever_looks_reads_the_same_events(system: System) -> None:
    said = told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text)

    assert await events(system, said[0].data["runId"]) == said


async def test_a_stream_goes_on_behind_any_event_by_header_or_address(system: System) -> None:
    turn_id = (await system.say("Hi")).json()["turn_id"]
    whole = await events(system, turn_id)

    for count, event in enumerate(whole, start=1):
        assert await events(system, turn_id, f"?after={event.id}") == whole[count:]
        assert await events(system, turn_id, f"?after={whole[0].id}", Last_Event_ID=event.id) == whole[count:]


async def test_a_stream_begins_before_the_reply_is_there(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("later")))
    turn_id = await system.accept("Hi")

    async with listening(system.composed.chat.app, f"/turns/{turn_id}/events") as stream:
        await stream.until("RUN_STARTED")
        release.set()
        rest = await stream.rest()

    assert rest[-1].type == "RUN_FINISHED"
    assert await events(system, turn_id) == stream.read


async def test_to_close_a_stream_cancels_nothing(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("later")))

    async with listening(system.composed.chat.app, "/chat/", method="POST", body=MESSAGE) as stream:
        turn_id = (await stream.until("RUN_STARTED")).data["runId"]
        await system.endpoint.asked(1)
    release.set()

    assert (await system.ended(turn_id))["status"] == "completed"


async def test_nothing_follows_a_turn_once_all_who_listened_have_left(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("later")))
    turn_id = await system.accept("Hi")
    await system.endpoint.asked(1)
    app, path, before = system.composed.chat.app, f"/turns/{turn_id}/events", len(asyncio.all_tasks())

    async with listening(app, path) as first, listening(app, path) as second:
        await asyncio.gather(first.until("RUN_STARTED"), second.until("RUN_STARTED"))

    async def have_left() -> bool:
        return len(asyncio.all_tasks()) <= before

    await system.until(have_left, moving=False)
    release.set()


async def test_who_reads_slowly_slows_neither_the_turn_nor_others_who_read(system: System) -> None:
    rest = asyncio.Event()
    system.endpoint.script(spoken("One ", rest, "two ", "three"))
    turn_id = await system.accept("Hi")
    app, path = system.composed.chat.app, f"/turns/{turn_id}/events"

    async with listening(app, path) as slow, listening(app, path) as quick:
        await slow.until("RUN_STARTED")
        slow.reads.clear()
        rest.set()
        await quick.rest()
        turn = await system.ended(turn_id)
        slow.reads.set()
        await slow.rest()

    assert turn["reply"]["reply"] == "One two three"
    assert slow.read == quick.read == await events(system, turn_id)


async def test_a_stream_with_nothing_to_say_says_that_it_is_there(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("later")))
    system.composed.chat.parts.streams.keep_alive_s = 0.01
    turn_id = await system.accept("Hi")

    async with listening(system.composed.chat.app, f"/turns/{turn_id}/events") as stream:
        async with asyncio.timeout(PATIENCE_S):
            while not str(await stream.blocks.get()).startswith(":"):
                pass
        release.set()
        await stream.until("RUN_FINISHED")

    assert all(event.id for event in stream.read), "a keep-alive is no event"


async def test_a_failed_turn_ends_its_stream_with_the_fault(system: System) -> None:
    system.endpoint.script(status(401))

    said = told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text)

    assert said[-1].type == "RUN_ERROR"
    assert said[-1].data["code"] == "http_401"


async def test_behind_the_fault_of_a_turn_that_is_run_again_the_new_run_is_told(system: System) -> None:
    system.endpoint.script(status(401))
    failed = told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text)
    turn_id = failed[0].data["runId"]
    await system.steer(turn_id, "rerun")
    await system.ended(turn_id)

    again = await events(system, turn_id, Last_Event_ID=failed[-1].id)

    assert (again[0].type, again[-1].type) == ("RUN_STARTED", "RUN_FINISHED")
    assert await events(system, turn_id) == again


async def test_what_cannot_be_streamed_is_a_problem(system: System) -> None:
    unknown = await system.chat.get("/turns/nobody/events")
    turn_id = (await system.say("Hi")).json()["turn_id"]
    wrong = await system.chat.get(f"/turns/{turn_id}/events?after=x")
    blank = await system.chat.post("/chat/", json={**MESSAGE, "text": " "}, headers=STREAM)

    assert [response.status_code for response in (unknown, wrong, blank)] == [404, 422, 400]
    assert all(r.headers["content-type"] == "application/problem+json" for r in (unknown, wrong, blank))


async def test_a_user_has_so_many_streams_and_a_closed_one_gives_its_place_back(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, completion("later")))
    async with running(tmp_path, endpoint, clock, max_streams_per_user=1) as system:
        turn_id = await system.accept("Hi")
        app, path = system.composed.chat.app, f"/turns/{turn_id}/events"
        async with listening(app, path) as first:
            await first.until("RUN_STARTED")
            refused = await system.chat.get(path)
            refused_message = await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)
        async with listening(app, path) as second:
            await second.until("RUN_STARTED")
        release.set()

    assert (refused.status_code, refused_message.status_code) == (429, 429)
    assert refused.headers["retry-after"]
    assert second.status == 200


async def test_streams_that_are_asked_for_at_once_are_counted_before_they_begin(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    async with running(tmp_path, endpoint, clock, max_streams_per_user=2) as system:

        async def ask(session_id: str, user_id: str = "ann") -> int:
            message = {"user_id": user_id, "text": "Hi", "metadata": {"session_id": session_id}}
            return (await system.chat.post("/chat/", json=message, headers=STREAM)).status_code

        at_once = await asyncio.gather(*(ask(f"s{number}") for number in range(10)))
        turns = (await system.chat.get("/turns", params={"user_id": "ann"})).json()["turns"]
        refused = [await ask(turns[0]["session_id"], "bob") for _ in range(3)]
        afterwards = [await ask("of-ann"), await ask("of-bob", "bob")]

    assert sorted(at_once) == [200] * 2 + [429] * 8
    assert len(turns) == 2, "a message whose stream is refused was accepted"
    assert refused == [403] * 3
    assert afterwards == [200, 200], "a place was not given back"


def text_of(told: list[Told]) -> str:
    return "".join(event.data.get("delta", "") for event in told if event.type == "TEXT_MESSAGE_CONTENT")


async def test_words_are_told_while_the_model_speaks(system: System) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    system.endpoint.script(spoken("One ", first, "two ", second, "three"))

    async with listening(system.composed.chat.app, "/chat/", method="POST", body=MESSAGE) as stream:
        one = await stream.until("TEXT_MESSAGE_CONTENT")
        first.set()
        two = await stream.until("TEXT_MESSAGE_CONTENT")
        second.set()
        await stream.rest()

    assert (one.data["delta"], two.data["delta"]) == ("One ", "two ")
    assert text_of(stream.read) == "One two three"
    assert len({event.data["messageId"] for event in stream.read if "messageId" in event.data}) == 1
    assert await events(system, stream.read[0].data["runId"]) == stream.read


async def test_a_turn_that_was_accepted_at_once_is_told_word_by_word_too(system: System) -> None:
    rest = asyncio.Event()
    system.endpoint.script(spoken("One ", rest, "two"))
    turn_id = await system.accept("Hi")

    async with listening(system.composed.chat.app, f"/turns/{turn_id}/events") as stream:
        await stream.until("TEXT_MESSAGE_CONTENT")
        rest.set()
        await stream.rest()

    assert text_of(stream.read) == "One two"


async def test_the_words_of_an_attempt_that_broke_off_are_taken_back(system: System) -> None:
    cut = asyncio.Event()
    system.endpoint.script(spoken("I was goi", cut, is_cut=True), spoken("Here I am"))

    async with listening(system.composed.chat.app, "/chat/", method="POST", body=MESSAGE) as stream:
        dead = await stream.until("TEXT_MESSAGE_CONTENT")
        cut.set()
        turn_id = stream.read[0].data["runId"]
        await system.ended(turn_id)
        await stream.rest()

    said = stream.read
    place = said.index(dead)
    assert [event.type for event in said[place + 1 : place + 4]] == [
        "TEXT_MESSAGE_END",
        "MESSAGES_SNAPSHOT",
        "TEXT_MESSAGE_START",
    ]
    assert [message["role"] for message in said[place + 2].data["messages"]] == ["user"]
    assert said[place + 3].data["messageId"] != dead.data["messageId"]
    assert text_of(said[place + 3 :]) == "Here I am"
    assert await events(system, turn_id) == said


async def test_a_crash_in_the_middle_of_an_answer_shows_the_same_words_afterwards(
    tmp_path: Path, clock: ManualClock, endpoint: ModelEndpoint
) -> None:
    endpoint.script(spoken("I was goi", asyncio.Event()))
    async with (
        running(tmp_path, endpoint, clock) as system,
        listening(system.composed.chat.app, "/chat/", method="POST", body=MESSAGE) as stream,
    ):
        await stream.until("TEXT_MESSAGE_CONTENT")
    seen, turn_id = stream.read, stream.read[0].data["runId"]

    endpoint.script(spoken("Here I am"))
    async with running(tmp_path, endpoint, clock) as system:
        await system.ended(turn_id)
        whole = await events(system, turn_id)
        for count, event in enumerate(whole, start=1):
            assert await events(system, turn_id, Last_Event_ID=event.id) == whole[count:]

    assert whole[: len(seen)] == seen
    assert text_of(whole[len(seen) :]) == "Here I am"


async def test_a_turn_that_is_cancelled_while_it_speaks_ends_its_message(system: System) -> None:
    rest = asyncio.Event()
    system.endpoint.script(spoken("One ", rest, "two"))

    async with listening(system.composed.chat.app, "/chat/", method="POST", body=MESSAGE) as stream:
        await stream.until("TEXT_MESSAGE_CONTENT")
        turn_id = stream.read[0].data["runId"]
        assert (await system.steer(turn_id, "cancel")).status_code == 200
        await stream.rest()
    rest.set()
    await system.endpoint.hung_up()

    assert [event.type for event in stream.read[-3:]] == ["TEXT_MESSAGE_END", "STEP_FINISHED", "RUN_FINISHED"]
    assert stream.read[-1].data["outcome"]["type"] == "cancelled"
    assert await events(system, turn_id) == stream.read


async def test_the_calls_of_tools_are_told_with_their_results(system: System) -> None:
    system.endpoint.script(tool_calls(("get_current_time", "{}"), ("get_current_time", '{"timezone": "Asia/Karachi"}')))
    system.endpoint.script(spoken("It is late"))

    said = told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text)

    types = [event.type for event in said]
    begin = types.index("TOOL_CALL_START")
    call = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
    assert types[begin : begin + 9] == [*call, *call, "TOOL_CALL_RESULT", "TOOL_CALL_RESULT", "TEXT_MESSAGE_START"]
    asked = {event.data["toolCallId"] for event in said if event.type == "TOOL_CALL_START"}
    assert len(asked) == 2
    assert asked == {event.data["toolCallId"] for event in said if event.type == "TOOL_CALL_RESULT"}
    assert await events(system, said[0].data["runId"]) == said


async def test_what_a_model_says_before_it_calls_a_tool_is_a_message_of_its_own(system: System) -> None:
    system.endpoint.script(spoken("Let me ", "look.", calls=[("get_current_time", "{}")]), spoken("It is late"))

    said = told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text)

    starts = [event for event in said if event.type == "TEXT_MESSAGE_START"]
    first, second = ([e for e in said if e.data.get("messageId") == start.data["messageId"]] for start in starts)
    assert (text_of(first), text_of(second)) == ("Let me look.", "It is late")
    (call,) = [event for event in said if event.type == "TOOL_CALL_START"]
    assert call.data["parentMessageId"] == starts[0].data["messageId"]
    assert said.index(first[-1]) < said.index(call) < said.index(second[0])
    assert said[-1].data["result"]["reply"] == "It is late"
    assert await events(system, said[0].data["runId"]) == said


@pytest.mark.parametrize("code", [400, 422])
async def test_an_endpoint_that_does_not_know_stream_options_is_asked_without_once_and_for_all(
    system: System, code: int
) -> None:
    refusal = Whole(b'{"detail": "Extra inputs are not permitted: stream_options"}', code)
    system.endpoint.script(refusal, spoken("One ", "two"), spoken("three"))

    first, second = [told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text) for _ in range(2)]

    assert (text_of(first), text_of(second)) == ("One two", "three")
    assert ["stream_options" in request.body for request in system.endpoint.requests] == [True, False, False]
    assert all(request.is_streamed for request in system.endpoint.requests)


async def test_another_fault_of_a_streamed_request_is_not_asked_again(system: System) -> None:
    system.endpoint.script(Whole(b'{"detail": "context too long"}', 400))

    said = told_in((await system.chat.post("/chat/", json=MESSAGE, headers=STREAM)).text)

    assert said[-1].type == "RUN_ERROR"
    assert len(system.endpoint.requests) == 1


async def test_a_plain_turn_keeps_no_words(system: System) -> None:
    system.endpoint.script(spoken("One ", "two"))

    turn_id = (await system.say("Hi")).json()["turn_id"]

    assert not system.endpoint.requests[0].is_streamed
    deltas = [event for event in await events(system, turn_id) if event.type == "TEXT_MESSAGE_CONTENT"]
    assert [event.data["delta"] for event in deltas] == ["One two"]
