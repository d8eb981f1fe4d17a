"""Cancelling, pausing, resuming: the same on both runtimes."""

import asyncio

import pytest

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def running(client: Client, endpoint: ModelEndpoint, release: asyncio.Event) -> str:
    """A turn whose model does not answer before `release`."""
    text = f"message of {client.name}"
    endpoint.script_for(text, Held(release, completion("in the end")))
    turn_id = await client.accept(text)
    await endpoint.asked(1, about=text)
    return turn_id


async def test_a_running_turn_can_be_cancelled(client: Client, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    turn_id = await running(client, endpoint, release)

    cancelled = await client.steer(turn_id, "cancel")
    release.set()
    again = await client.steer(turn_id, "cancel")
    next_reply = await client.reply("the next one")

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    assert next_reply["reply"] == "hello"
    assert await client.history_of(2) == ["the next one", "hello"]


async def test_a_waiting_turn_can_be_cancelled(client: Client, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    first = await running(client, endpoint, release)
    second = await client.accept("never answered")

    cancelled = await client.steer(second, "cancel")
    release.set()

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert (await client.ended(first))["status"] == "completed"
    assert await client.history_of(2) == [f"message of {client.name}", "in the end"]


async def test_a_running_turn_can_be_paused_and_resumed(client: Client, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    turn_id = await running(client, endpoint, release)

    paused = await client.steer(turn_id, "pause")
    again = await client.steer(turn_id, "pause")
    release.set()
    shown = (await client.turn(turn_id))["status"]
    resumed = await client.steer(turn_id, "resume")
    turn = await client.ended(turn_id)

    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert (again.status_code, again.json()["status"]) == (200, "paused")
    assert shown == "paused"
    assert resumed.status_code == 200
    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "in the end")


async def test_a_paused_turn_can_be_cancelled(client: Client, endpoint: ModelEndpoint) -> None:
    release = asyncio.Event()
    turn_id = await running(client, endpoint, release)
    await client.steer(turn_id, "pause")

    cancelled = await client.steer(turn_id, "cancel")
    release.set()

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")


async def test_a_turn_that_has_ended_cannot_be_steered(client: Client) -> None:
    turn_id = (await client.reply("Hi there"))["turn_id"]

    codes = [(await client.steer(turn_id, how)).status_code for how in ("cancel", "pause", "resume", "rerun")]

    assert codes == [409, 409, 409, 409]
