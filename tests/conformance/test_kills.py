"""`kill -9` of the process behind each role of a system, in the middle of a turn."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from tools.dapr.layout import free_ports

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import PATIENCE_S, Client
from tests.conformance.fleet import Door, Fleet, make_fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROLES = ["chat", "memory", "chat-sidecar", "memory-sidecar", "scheduler", "placement", "redis"]


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["embedded", "dapr"])
async def fleet(
    request: pytest.FixtureRequest, endpoint: ModelEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    settings = {
        "EVERTURN_MODEL_BASE_URL": endpoint.base_url,
        "EVERTURN_MODEL_NAME": "scripted",
        # Enough to outlast a restart of anything.
        "EVERTURN_FETCH_ATTEMPTS": "1000",
        "EVERTURN_FETCH_MAX_DELAY_S": "0.5",
    }
    made = make_fleet(request.param, tmp_path_factory.mktemp(request.param), free_ports(), settings, {})
    try:
        made.start()
        yield made
    finally:
        await made.stop()


@pytest.mark.parametrize("role", ROLES)
async def test_a_turn_outlives_the_kill_of_any_process(
    fleet: Fleet, endpoint: ModelEndpoint, role: str, request: pytest.FixtureRequest
) -> None:
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        client = Client(http, Door(fleet, "chat"), request.node.name)
        text = f"message of {client.name}"
        release = asyncio.Event()
        endpoint.script_for(text, Held(release, completion("given")), completion("given"))
        turn_id = await client.accept(text, key="k")
        await endpoint.asked(1, about=text)

        fleet.kill(role)
        release.set()
        fleet.restart(role)
        turn = await client.ended(turn_id)

        assert (turn["status"], turn["reply"]["reply"], turn["reply"]["degraded"]) == ("completed", "given", [])
        assert (await client.say(text, headers={"Idempotency-Key": "k"})).json()["turn_id"] == turn_id
        assert await client.history_of(2) == [text, "given"]
        assert (await client.reply("the next one"))["reply"] == "hello"
