"""`kill -9` of the process behind each role of a system, in the middle of a turn."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from tools.dapr.layout import free_ports

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import ASYNC, PATIENCE_S, Client
from tests.conformance.counts import SAME
from tests.conformance.fleet import Door, Fleet, make_fleet

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROLES = ["chat", "memory", "chat-sidecar", "memory-sidecar", "scheduler", "placement", "store"]


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=SAME)
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
        await client.served()
        turn = await client.ended(turn_id)

        assert (turn["status"], turn["reply"]["reply"], turn["reply"]["degraded"]) == ("completed", "given", [])
        assert (await client.say(text, headers={"Idempotency-Key": "k"})).json()["turn_id"] == turn_id
        assert await client.history_of(2) == [text, "given"]
        assert (await client.reply("the next one"))["reply"] == "hello"


@pytest.mark.parametrize("role", ["chat", "chat-sidecar", "store"])
async def test_what_was_accepted_as_a_process_died_is_answered_though_nobody_asks(
    fleet: Fleet, role: str, request: pytest.FixtureRequest
) -> None:
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        client = Client(http, Door(fleet, "chat"), request.node.name)
        # Two to a session, so that one of each waits behind another.
        sent = {f"message {number} of {client.name}": f"session {number // 2} of {client.name}" for number in range(8)}
        answers = [asyncio.create_task(_accept(client, text, session)) for text, session in sent.items()]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)

        fleet.kill(role)
        outcome = dict(zip(sent, await asyncio.gather(*answers), strict=True))
        fleet.restart(role)
        await client.served()

        for text, session in sent.items():
            if outcome[text]:
                await client.said(text, session)
        for text, session in sent.items():
            answer = await client.answered(text, session, key=text)
            assert answer.status_code == 200, answer.text
        for session in set(sent.values()):
            history = await client.history_of(4, session)
            assert sorted(history[::2]) == [text for text, its in sent.items() if its == session]


async def _accept(client: Client[Door], text: str, session: str) -> bool:
    """Whether the answer said that `text` is accepted."""
    try:
        response = await client.say(text, session=session, headers=ASYNC | {"Idempotency-Key": text})
    except httpx2.TransportError:
        return False
    return response.status_code == 202
