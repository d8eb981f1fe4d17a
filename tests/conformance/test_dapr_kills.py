"""`kill -9` of every process of a system on real Dapr, in the middle of a turn. The embedded runtime is one process."""

import asyncio

import pytest

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import Client
from tests.conformance.systems import OnDapr

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROCESSES = ["chat", "memory", "chat-sidecar", "memory-sidecar", "scheduler", "placement", "redis"]


@pytest.mark.parametrize("shared_system", ["dapr"], indirect=True, scope="session")
@pytest.mark.parametrize("name", PROCESSES)
async def test_a_turn_outlives_the_kill_of_any_process(client: Client, endpoint: ModelEndpoint, name: str) -> None:
    assert isinstance(client.system, OnDapr)
    text = f"message of {client.name}"
    release = asyncio.Event()
    endpoint.script_for(text, Held(release, completion("given")), completion("given"))
    turn_id = await client.accept(text, key="k")
    await endpoint.asked(1, about=text)

    client.system.system.kill(name)
    release.set()
    client.system.system.restart(name)
    turn = await client.ended(turn_id)

    assert (turn["status"], turn["reply"]["reply"], turn["reply"]["degraded"]) == ("completed", "given", [])
    assert (await client.say(text, headers={"Idempotency-Key": "k"})).json()["turn_id"] == turn_id
    assert await client.history_of(2) == [text, "given"]
    assert (await client.reply("the next one"))["reply"] == "hello"
