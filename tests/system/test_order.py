"""One session, one turn at a time, in the order of acceptance; other sessions do not wait."""

import asyncio
from pathlib import Path

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import PATIENCE_S, System, running


async def held(system: System, text: str = "first") -> tuple[str, asyncio.Event]:
    """A turn whose model call hangs until the event is set."""
    release = asyncio.Event()
    before = len(system.endpoint.requests)
    system.endpoint.script(Held(release, completion(f"re: {text}")))
    turn_id = await system.accept(text)
    await system.endpoint.asked(before + 1)
    return turn_id, release


async def test_a_second_message_of_a_session_waits_and_sees_the_first(system: System) -> None:
    first, release = await held(system)
    second = await system.accept("second")

    waiting = await system.turn(second)
    release.set()
    await system.ended(second)

    assert waiting["status"] == "queued"
    assert waiting["steps"] == []
    assert (await system.turn(first))["status"] == "completed"
    contents = [message["content"] for message in system.questions()[1]]
    assert contents[-3:] == ["first", "re: first", "second"]


async def test_fifty_waiting_turns_are_answered_in_order(system: System) -> None:
    _, release = await held(system, "0")
    turn_ids = [await system.accept(str(n)) for n in range(1, 50)]
    release.set()

    turns = [await system.ended(turn_id) for turn_id in turn_ids]

    assert [turn["sequence"] for turn in turns] == list(range(2, 51))
    asked = [messages[-1]["content"] for messages in system.questions()]
    assert asked == [str(n) for n in range(50)]
    history = await system.history_of(100)
    assert history[0::2] == [str(n) for n in range(50)]


async def test_sessions_do_not_wait_for_each_other(system: System) -> None:
    first, release = await held(system)

    other = await system.say("Hi", session="other")

    assert other.status_code == 200
    assert (await system.turn(first))["status"] == "running"
    release.set()
    await system.ended(first)


async def test_a_turn_that_fails_lets_the_next_one_go(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, status(400)))
    failing = await system.accept("fails")
    await system.endpoint.asked(1)
    second = await system.accept("second")
    release.set()

    turn = await system.ended(second)

    assert (await system.turn(failing))["status"] == "failed"
    assert turn["status"] == "completed"


async def test_a_session_is_its_first_users(system: System) -> None:
    await system.say("Hi")

    refused = await system.say("Hi", user="bob")

    assert refused.status_code == 403
    assert "ann" not in refused.text


async def test_a_conversation_that_is_anothers_is_not_shown_to_the_model(system: System) -> None:
    event = {
        "specversion": "1.0",
        "id": "old-1",
        "source": "elsewhere",
        "type": "ConversationUpdated",
        "data": {
            "event_type": "ConversationUpdated",
            "user_id": "bob",
            "session_id": "s",
            "user_message": "bob's secret",
            "assistant_reply": "noted",
        },
    }
    await system.memory.post("/conversations", json=event, headers=system.of_the_sidecar)

    reply = await system.say("Hi")

    assert reply.json()["degraded"] == ["history"]
    assert "bob's secret" not in str(system.questions())


async def test_no_more_models_are_asked_at_once_than_the_settings_allow(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock, max_model_calls=2) as system:
        releases = [asyncio.Event() for _ in range(6)]
        endpoint.script(*(Held(release, completion("hello")) for release in releases))
        turn_ids = [await system.accept("Hi", session=f"s{n}") for n in range(6)]
        for answered, release in enumerate(releases, start=1):
            await endpoint.asked(min(answered + 1, 6))

            assert len(system.questions()) <= answered + 1
            release.set()
        for turn_id in turn_ids:
            assert (await system.ended(turn_id))["status"] == "completed"


async def test_the_next_turn_starts_although_nobody_looks_for_it(system: System) -> None:
    _, release = await held(system)
    await system.accept("second")

    release.set()

    async with asyncio.timeout(PATIENCE_S):
        await system.endpoint.asked(2)
