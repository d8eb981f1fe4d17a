"""Kills, restarts, and a memory service that is away: the same on both runtimes."""

import asyncio
import json
from typing import Any

import pytest

from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.conformance.client import Client
from tests.conformance.conftest import CANARY_KEY
from tests.conformance.systems import Embedded

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_turn_that_ran_at_a_kill_goes_on_where_it_stood(client: Client, endpoint: ModelEndpoint) -> None:
    text = f"message of {client.name}"
    endpoint.script_for(text, Held(asyncio.Event(), completion("never given")), completion("given"))
    turn_id = await client.accept(text, key="k")
    await endpoint.asked(1, about=text)

    async def shows_what_it_has_done() -> bool:
        steps = (await client.turn(turn_id))["steps"]
        return bool(steps) and steps[0]["status"] == "completed"

    # Dapr gives out a step before it saves the end of the one before it (orchestrator/run.go of 1.18.0).
    await client.until(shows_what_it_has_done)
    before = await client.turn(turn_id)

    client.system.kill_chat()
    client.system.start()
    turn = await client.ended(turn_id)

    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "given")
    steps = {step["name"]: step for step in turn["steps"]}
    assert steps["fetch_context"] == before["steps"][0], "a finished step ran again"
    assert steps["generate_response"]["attempts"] == 1, "a crash used up an attempt"
    assert len(endpoint.requests_about(text)) == 2
    assert (await client.say(text, headers={"Idempotency-Key": "k"})).json()["turn_id"] == turn_id
    assert await client.history_of(2) == [text, "given"]


async def test_a_turn_waits_for_the_memory_service(client: Client) -> None:
    await client.reply("before")
    client.system.take_memory_away()
    turn_id = await client.accept("meanwhile")

    async def shows_a_retry() -> bool:
        steps = (await client.turn(turn_id))["steps"]
        return bool(steps) and steps[0]["attempts"] >= 2 and steps[0].get("error") is not None

    await client.until(shows_a_retry)
    client.system.bring_memory_back()
    turn = await client.ended(turn_id)

    assert (turn["status"], turn["reply"]["degraded"]) == ("completed", [])
    assert await client.history_of(4) == ["before", "hello", "meanwhile", "hello"]


async def test_a_key_stands_for_its_turn_over_a_restart(client: Client) -> None:
    key = {"Idempotency-Key": "k"}
    first = await client.say("Hi there", headers=key)

    await client.system.stop()
    client.system.start()
    again = await client.say("Hi there", headers=key)
    other = await client.say("Something else", headers=key)

    assert first.status_code == 200
    assert again.json() == first.json()
    assert other.status_code == 422
    assert await client.history_of(2) == ["Hi there", "hello"]


async def test_many_requests_with_one_key_at_once_are_one_turn(client: Client) -> None:
    answers = await asyncio.gather(*(client.say("Hi there", headers={"Idempotency-Key": "k"}) for _ in range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["turn_id"] for answer in answers}) == 1
    assert await client.history_of(2) == ["Hi there", "hello"]


def event(client: Client, **changes: Any) -> dict[str, Any]:
    data = {
        "event_type": "ConversationUpdated",
        "user_id": client.user,
        "session_id": client.session,
        "user_message": "said",
        "assistant_reply": "answered",
        "turn_id": f"turn of {client.name}",
        "sequence": 1,
        "occurred_at": "2026-01-31T12:00:00.000Z",
    }
    return {"specversion": "1.0", "id": data["turn_id"], "source": "chat-service", "type": "x", "data": data | changes}


async def test_an_event_that_comes_twice_is_stored_once(client: Client) -> None:
    url = f"{client.system.memory_url}/conversations"

    answers = [await client.http.post(url, json=event(client)) for _ in range(2)]
    poison = await client.http.post(url, json=event(client, event_type="SomethingElse"))

    if isinstance(client.system, Embedded):  # its token is made at each start: nobody else sends events
        assert [answer.status_code for answer in (*answers, poison)] == [401, 401, 401]
        assert await client.history() == []
        return
    assert [answer.json() for answer in answers] == [{"status": "SUCCESS"}, {"status": "SUCCESS"}]
    assert poison.json() == {"status": "DROP"}
    assert await client.history() == ["said", "answered"]


async def test_the_key_of_the_model_is_written_nowhere(client: Client, endpoint: ModelEndpoint) -> None:
    text = f"message of {client.name}"
    endpoint.script_for(text, status(401))

    failed = await client.say(text)
    shown = json.dumps(await client.turn(failed.json()["turn_id"]))

    assert endpoint.requests_about(text)[0].headers["authorization"] == f"Bearer {CANARY_KEY}"
    assert CANARY_KEY not in failed.text + shown
    assert [path for path in client.system.written() if CANARY_KEY.encode() in path.read_bytes()] == []
