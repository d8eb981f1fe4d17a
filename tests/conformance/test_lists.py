"""What a user has, listed: on every runtime, whose stores differ in what two writers at once are told."""

import asyncio
from typing import Any

import pytest

from everturn.chat.user_index import PAGE
from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import ASYNC, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def listed(client: Client, what: str, **query: Any) -> list[dict[str, Any]]:
    """The whole list, part by part."""
    found: list[dict[str, Any]] = []
    while True:
        url = f"{client.system.chat_url}/{what}"
        response = await client.http.get(url, params={"user_id": client.user, **query})
        assert response.status_code == 200, response.text
        found += response.json()[what]
        if "next" not in response.json():
            return found
        query["cursor"] = response.json()["next"]


async def test_turns_and_conversations_are_listed_newest_first(client: Client) -> None:
    sessions = [f"{client.session} {n}" for n in (1, 2, 1)]
    replies = [await client.reply("Hi", session=session) for session in sessions]
    await client.reply("Hi", user=f"another {client.user}", session=f"another {client.session}")

    turns = await listed(client, "turns", limit=2)
    conversations = await listed(client, "sessions", limit=1)

    assert [turn["turn_id"] for turn in turns] == [reply["turn_id"] for reply in replies[::-1]]
    assert [turn["status"] for turn in turns] == ["completed"] * 3
    assert [(each["session_id"], each["turns"]) for each in conversations] == [(sessions[0], 2), (sessions[1], 1)]


async def test_messages_of_a_user_at_once_are_all_listed_once(client: Client) -> None:
    count = PAGE + 5

    replies = await asyncio.gather(*(client.reply("Hi", session=f"{client.session} {n}") for n in range(count)))

    turns = await listed(client, "turns", limit=100)
    assert sorted(turn["turn_id"] for turn in turns) == sorted(reply["turn_id"] for reply in replies)
    assert len(await listed(client, "sessions", limit=100)) == count


async def test_a_user_has_so_many_open_turns_and_no_more(client: Client, endpoint: ModelEndpoint) -> None:
    held = asyncio.Event()
    endpoint.script_for(f"waits for {client.name}", *[Held(held, completion("at last"))] * 60)
    text = f"waits for {client.name}"

    async def say(n: int) -> tuple[int, str]:
        response = await client.say(text, session=f"{client.session} {n}", headers=ASYNC)
        return response.status_code, response.headers.get("retry-after", "")

    try:
        answers = await asyncio.gather(*(say(n) for n in range(55)))
        other = await client.reply("Hi", user=f"another {client.user}", session=f"another {client.session}")
    finally:
        held.set()

    assert sorted(status for status, _ in answers) == [202] * 50 + [429] * 5
    assert all(int(retry_after) >= 1 for status, retry_after in answers if status == 429)
    assert other["status"] == "completed"
    for turn in await listed(client, "turns", limit=100):
        assert (await client.ended(turn["turn_id"]))["status"] == "completed"
