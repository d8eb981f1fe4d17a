"""A message that comes while a turn of its session has not ended: the same on both runtimes."""

import asyncio

import pytest

from everturn.testing.model_answers import Held, Whole, completion, tool_calls
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def held(client: Client, endpoint: ModelEndpoint, answer: Whole) -> tuple[str, str, asyncio.Event]:
    """The text and the turn of a message whose model does not answer before the event is set."""
    text, release = f"message of {client.name}", asyncio.Event()
    endpoint.script_for(text, Held(release, answer))
    turn_id = await client.accept(text)
    await endpoint.asked(1, about=text)
    return text, turn_id, release


async def test_a_message_that_does_not_wait_is_refused_and_its_key_is_free_again(
    client: Client, endpoint: ModelEndpoint
) -> None:
    text, first, release = await held(client, endpoint, completion("in the end"))
    key = {"Idempotency-Key": f"key of {client.name}"}

    refused = await client.say("now or never", overlap="reject", headers=key)
    release.set()
    await client.ended(first)
    taken = await client.say("now or never", overlap="reject", headers=key)

    assert (refused.status_code, taken.status_code) == (409, 200)
    assert await client.history_of(4) == [text, "in the end", "now or never", "hello"]


async def test_an_interrupting_message_ends_what_is_before_it(client: Client, endpoint: ModelEndpoint) -> None:
    _, first, release = await held(client, endpoint, completion("never"))
    waiting = await client.accept("never answered")

    turn = await client.ended(await client.accept("this instead", overlap="interrupt"))
    release.set()

    assert (turn["status"], turn["sequence"]) == ("completed", 3)
    assert [(await client.ended(turn_id))["status"] for turn_id in (first, waiting)] == ["cancelled", "cancelled"]
    assert await client.history_of(2) == ["this instead", "hello"]


async def test_a_merging_message_is_answered_by_the_turn_that_runs(client: Client, endpoint: ModelEndpoint) -> None:
    text, first, release = await held(client, endpoint, tool_calls(("get_current_time", "{}")))
    second = await client.accept("and this", overlap="merge")
    release.set()

    turns = [await client.ended(turn_id) for turn_id in (first, second)]
    late = await client.say("and that", overlap="merge")

    assert [(turn["status"], turn.get("merged_into")) for turn in turns] == [("completed", None), ("completed", first)]
    assert turns[0]["reply"]["reply"] == turns[1]["reply"]["reply"]
    assert late.status_code == 200
    assert await client.history_of(5) == [text, "and this", "hello", "and that", "hello"]
