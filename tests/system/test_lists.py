"""What a user has: lists of turns and of conversations, newest first, of nobody else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from everturn.dapr.wire import Request
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import Gate, System, running


async def listed(system: System, what: str, **query: Any) -> dict[str, Any]:
    response = await system.chat.get(f"/{what}", params={"user_id": "ann", **query})
    assert response.status_code == 200, response.text
    return dict(response.json())


async def every(system: System, what: str, **query: Any) -> list[list[dict[str, Any]]]:
    """The parts of a list, followed to its end."""
    parts = []
    while True:
        part = await listed(system, what, **query)
        parts.append(part[what])
        if "next" not in part:
            return parts
        query["cursor"] = part["next"]


async def test_turns_are_whole_and_newest_first(system: System) -> None:
    ids = [(await system.say(f"Hi {n}", session=f"s{n % 2}")).json()["turn_id"] for n in range(5)]
    await system.say("mine", user="bob", session="of-bob")

    (turns,) = await every(system, "turns")

    assert [turn["turn_id"] for turn in turns] == ids[::-1]
    assert turns[0] == await system.turn(ids[-1])
    assert turns[0]["reply"]["reply"] == "hello"


async def test_a_list_goes_on_where_the_part_before_ended_whatever_came_meanwhile(system: System) -> None:
    ids = [(await system.say(f"Hi {n}")).json()["turn_id"] for n in range(5)]

    first = await listed(system, "turns", limit=2)
    await system.say("later")
    rest = await every(system, "turns", limit=2, cursor=first["next"])

    assert [turn["turn_id"] for part in [first["turns"], *rest] for turn in part] == ids[::-1]
    assert [len(part) for part in rest] == [2, 1]


async def test_turns_of_one_session_or_status_are_asked_for(system: System) -> None:
    kept = (await system.say("Hi", session="a")).json()["turn_id"]
    other = (await system.say("Hi", session="b")).json()["turn_id"]

    async def found(**query: str) -> list[str]:
        (turns,) = await every(system, "turns", **query)
        return [turn["turn_id"] for turn in turns]

    assert await found(session_id="a") == [kept]
    assert await found(status="completed") == [other, kept]
    assert await found(status="completed", session_id="b") == [other]
    assert await found(status="failed") == []
    assert await found(session_id="unknown") == []


async def test_a_failed_turn_is_found_by_its_status(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    async with running(tmp_path, endpoint, clock) as system:
        endpoint.script(status(400))
        failed = (await system.say("Hi")).json()["turn_id"]
        await system.say("Hi again")

        (turns,) = await every(system, "turns", status="failed")

        assert [(turn["turn_id"], turn["error"]["kind"]) for turn in turns] == [(failed, "http_400")]


async def test_conversations_are_listed_by_their_last_turn(system: System) -> None:
    for session, text in (("a", "What  is\n up?"), ("b", "x" * 300), ("a", "And now?")):
        last = (await system.say(text, session=session)).json()
    await system.say("mine", user="bob", session="of-bob")

    (sessions,) = await every(system, "sessions")

    turn = await system.turn(last["turn_id"])
    assert sessions[0] == {"session_id": "a", "turns": 2, "last_at": turn["created_at"], "title": "What is up?"}
    assert (sessions[1]["session_id"], sessions[1]["turns"], sessions[1]["title"]) == ("b", 1, "x" * 80)
    assert len(sessions) == 2


async def test_each_conversation_is_once_in_the_parts_of_a_list(system: System) -> None:
    for n in range(40):
        await system.say("Hi", session=f"s{n % 7}")

    parts = await every(system, "sessions", limit=3)

    assert [session["session_id"] for part in parts for session in part] == ["s4", "s3", "s2", "s1", "s0", "s6", "s5"]


async def test_lists_are_there_after_a_restart(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> None:
    async with running(tmp_path, endpoint, clock) as before:
        turn_id = (await before.say("Hi")).json()["turn_id"]
    async with running(tmp_path, endpoint, clock) as after:
        (turns,), (sessions,) = await every(after, "turns"), await every(after, "sessions")

    assert [turn["turn_id"] for turn in turns] == [turn_id]
    assert [session["session_id"] for session in sessions] == ["s"]


async def test_a_user_without_turns_has_empty_lists(system: System) -> None:
    assert await listed(system, "turns") == {"turns": []}
    assert await listed(system, "sessions") == {"sessions": []}


async def test_lists_cost_the_same_whatever_others_have(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate, asked = Gate(), list[tuple[str, bytes]]()

    def note(request: Request) -> bool:
        if "index" in request.target or request.target.endswith("/bulk"):  # the rest is of turns that are ending
            asked.append((request.target, request.body))
        return False

    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        gate.wanted = note

        async def cost(what: str) -> list[tuple[str, bytes]]:
            asked.clear()
            await listed(system, what)
            return list(asked)

        await system.ended(await system.accept("Hi"))
        alone = [await cost("turns"), await cost("sessions")]
        for number in range(12):
            await system.ended(await system.accept("Hi", user=f"u{number}", session=f"s{number}"))

        assert [await cost("turns"), await cost("sessions")] == alone
        assert len(alone[0]) == 2


@pytest.mark.parametrize(
    "query",
    ["", "user_id=%20", "user_id=a&limit=0", "user_id=a&limit=101", "user_id=a&cursor=x", "user_id=a&cursor=0"],
)
@pytest.mark.parametrize("what", ["turns", "sessions"])
async def test_a_list_that_is_asked_for_wrongly_is_422(system: System, what: str, query: str) -> None:
    assert (await system.chat.get(f"/{what}?{query}")).status_code == 422


async def test_an_unknown_status_is_422(system: System) -> None:
    assert (await system.chat.get("/turns?user_id=a&status=done")).status_code == 422


@pytest.fixture
async def limited(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> AsyncIterator[System]:
    async with running(tmp_path, endpoint, clock, max_open_turns_per_user=3) as started:
        yield started


def hold(endpoint: ModelEndpoint) -> asyncio.Event:
    """Let the model answer nothing to "Hi" until the event is set."""
    held = asyncio.Event()
    endpoint.script_for("Hi", *[Held(held, completion("at last"))] * 10)
    return held


async def test_a_message_beyond_a_users_open_turns_is_429_and_uses_no_key_up(
    limited: System, endpoint: ModelEndpoint
) -> None:
    held = hold(endpoint)
    turn_ids = [await limited.accept("Hi", session=f"s{n}") for n in range(3)]

    refused = await limited.say("one more", session="s9", Idempotency_Key="k")
    bob = await limited.accept("Hi", user="bob", session="of-bob")
    await limited.steer(turn_ids[0], "cancel")
    held.set()
    taken = await limited.say("another", session="s9", Idempotency_Key="k")

    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert int(refused.headers["retry-after"]) >= 1
    assert "EVERTURN_MAX_OPEN_TURNS_PER_USER" in refused.json()["detail"]
    assert taken.status_code == 200, taken.text
    assert (await limited.ended(bob))["status"] == "completed"


async def test_a_rerun_is_an_open_turn_until_it_has_ended(limited: System, endpoint: ModelEndpoint) -> None:
    endpoint.script_for("fails", status(400), status(400))
    failed = [await limited.ended(await limited.accept("fails", session=f"f{n}")) for n in range(2)]
    held = hold(endpoint)
    endpoint.script_for("fails", *[Held(held, completion("at last"))] * 2)
    await limited.accept("Hi", session="s0")
    await limited.accept("Hi", session="s1")

    first, second = [await limited.steer(turn["turn_id"], "rerun") for turn in failed]
    message = await limited.say("one more", session="s9")
    unchanged = await limited.turn(failed[1]["turn_id"])
    held.set()
    await limited.ended(failed[0]["turn_id"])
    again = await limited.steer(failed[1]["turn_id"], "rerun")

    assert (first.status_code, second.status_code, message.status_code) == (202, 429, 429)
    assert int(second.headers["retry-after"]) >= 1
    assert unchanged["status"] == "failed"
    assert again.status_code == 202
    assert (await limited.ended(failed[1]["turn_id"]))["status"] == "completed"


async def test_of_many_messages_at_once_those_beyond_the_limit_use_no_key_up(
    limited: System, endpoint: ModelEndpoint
) -> None:
    held = hold(endpoint)

    async def say(n: int, text: str) -> int:
        response = await limited.say(text, session=f"s{n}", Idempotency_Key=f"k{n}", Prefer="respond-async")
        return response.status_code

    statuses = await asyncio.gather(*(say(n, "Hi") for n in range(10)))
    held.set()
    refused = [n for n, status in enumerate(statuses) if status == 429]
    (turns,) = await every(limited, "turns")
    for turn in turns:
        await limited.ended(turn["turn_id"])

    assert (len(refused), len(turns)) == (7, 3)
    assert await say(refused[0], "another text") == 202


async def test_a_repeat_of_an_accepted_message_is_no_message_more(limited: System, endpoint: ModelEndpoint) -> None:
    held = hold(endpoint)
    turn_id = await limited.accept("Hi", session="s0", Idempotency_Key="k")
    for n in range(2):
        await limited.accept("Hi", session=f"s{n + 1}")

    again = await limited.accept("Hi", session="s0", Idempotency_Key="k")
    held.set()

    assert again == turn_id
