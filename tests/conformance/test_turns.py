"""A turn, its history, its memory: the same on both runtimes."""

import asyncio
from urllib.parse import quote

import pytest

from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

ODD_IDS = ["a/b c%", "..", "%2F", "a?b#c", "ünï/çødé", "x" * 256, "😀" * 256, "/", "a||b", "a%", "+", "'\"\\"]


async def test_a_message_is_answered_and_both_sides_get_into_the_history(client: Client) -> None:
    reply = await client.reply("Hi there")

    assert reply["reply"] == "hello"
    assert reply["status"] == "completed"
    assert reply["degraded"] == []
    assert await client.history_of(2) == ["Hi there", "hello"]


async def test_the_steps_of_a_turn_are_shown(client: Client) -> None:
    reply = await client.reply("Hi there")

    turn = await client.turn(reply["turn_id"])

    assert [(step["name"], step["status"], step["attempts"]) for step in turn["steps"]] == [
        ("fetch_context", "completed", 1),
        ("generate_response", "completed", 1),
        ("save_conversation", "completed", 1),
    ]


async def test_the_next_prompt_has_the_turn_before_it(client: Client, endpoint: ModelEndpoint) -> None:
    await client.reply(f"first of {client.name}")
    await client.reply(f"second of {client.name}")

    (asked,) = endpoint.requests_about(f"second of {client.name}")

    said = [message["content"] for message in asked.body["messages"][1:]]
    assert said == [f"first of {client.name}", "hello", f"second of {client.name}"]


async def test_what_a_user_is_initialized_with_gets_into_the_prompt(client: Client, endpoint: ModelEndpoint) -> None:
    memory = {"name": "Dr. Junaid", "preferred_style": "formal", "user_summary": "Junaid lives in Karachi."}
    url = f"{client.system.memory_url}/memories/{quote(client.user, safe='')}/initialize"
    assert (await client.http.post(url, json=memory)).status_code == 200

    await client.reply(f"question of {client.name}")

    (asked,) = endpoint.requests_about(f"question of {client.name}")
    assert "Dr. Junaid" in asked.body["messages"][0]["content"]
    assert "Karachi" in asked.body["messages"][0]["content"]


async def test_a_summary_is_refreshed_after_a_turn(client: Client) -> None:
    await client.reply("Hi there")
    url = f"{client.system.memory_url}/memories/{quote(client.user, safe='')}"

    async def is_refreshed() -> bool:
        return bool((await client.http.get(url)).json()["user_summary"] == "hello")

    await client.until(is_refreshed)


@pytest.mark.parametrize("odd", ODD_IDS, ids=range(len(ODD_IDS)))
async def test_any_id_works(client: Client, odd: str) -> None:
    user = odd
    session = odd if len(odd) == 256 else f"{odd} of {client.name}"

    first = await client.reply("first", user=user, session=session)
    second = await client.reply("second", user=user, session=session)

    assert (first["degraded"], second["degraded"]) == ([], [])
    assert await client.history_of(4, session) == ["first", "hello", "second", "hello"]


async def test_messages_of_one_session_are_answered_in_order(client: Client, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    endpoint.script_for(f"first of {client.name}", Held(release, completion("one")))
    first = await client.accept(f"first of {client.name}")
    second = await client.accept(f"second of {client.name}")
    third = await client.accept(f"third of {client.name}")
    await endpoint.asked(1, about=f"first of {client.name}")

    waiting = (await client.turn(second))["status"]
    release.set()
    turns = [await client.ended(turn_id) for turn_id in (first, second, third)]

    assert waiting == "queued"
    assert [turn["sequence"] for turn in turns] == [1, 2, 3]
    assert turns[0]["finished_at"] <= turns[1]["finished_at"] <= turns[2]["finished_at"]
    assert (await client.history_of(6))[::2] == [f"{which} of {client.name}" for which in ("first", "second", "third")]


async def test_a_model_that_asks_for_patience_is_asked_again(client: Client, endpoint: ModelEndpoint) -> None:
    text = f"message of {client.name}"
    endpoint.script_for(text, status(429, retry_after="1"), completion("at last"))

    reply = await client.reply(text)

    assert reply["reply"] == "at last"
    steps = {step["name"]: step for step in (await client.turn(reply["turn_id"]))["steps"]}
    assert steps["generate_response"]["attempts"] == 2
    assert steps["generate_response"]["error"]["kind"] == "http_429"


async def test_a_turn_that_fails_for_good_is_502_and_can_be_rerun(client: Client, endpoint: ModelEndpoint) -> None:
    text = f"message of {client.name}"
    endpoint.script_for(text, status(401), completion("better"))

    failed = await client.say(text)
    turn_id = failed.json()["turn_id"]
    rerun = await client.steer(turn_id, "rerun")
    turn = await client.ended(turn_id)

    assert (failed.status_code, failed.json()["step"]) == (502, "generate_response")
    assert rerun.status_code == 202
    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "better")
    assert await client.history_of(2) == [text, "better"]


async def test_a_message_without_the_slash_is_answered_as_it_comes_by_invocation(client: Client) -> None:
    response = await client.http.post(f"{client.system.chat_url}/chat", json={"user_id": client.user, "text": "Hi"})

    assert (response.status_code, response.json()["reply"]) == (200, "hello")


async def test_an_unknown_turn_is_404(client: Client) -> None:
    for response in (
        await client.http.get(f"{client.system.chat_url}/turns/nobody"),
        await client.steer("nobody", "cancel"),
        await client.steer("nobody", "pause"),
        await client.steer("nobody", "rerun"),
    ):
        assert response.status_code == 404
