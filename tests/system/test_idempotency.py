"""Idempotency keys: one key, one turn, one reply, one entry."""

import asyncio
from pathlib import Path

import pytest

from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import System, running


async def test_the_same_key_and_body_is_the_same_turn_and_the_same_reply(system: System) -> None:
    first = await system.say("Hi", Idempotency_Key="k")
    second = await system.say("Hi", Idempotency_Key="k")

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert len(system.questions()) == 1
    assert await system.history_of(2) == ["Hi", "hello"]


async def test_the_same_key_with_another_body_is_refused(system: System) -> None:
    await system.say("Hi", Idempotency_Key="k")

    refused = await system.say("Something else", Idempotency_Key="k")

    assert refused.status_code == 422
    assert len(system.questions()) == 1


async def test_a_key_counts_for_its_user_alone(system: System) -> None:
    ann = await system.say("Hi", Idempotency_Key="k")
    bob = await system.say("Hi", user="bob", session="of-bob", Idempotency_Key="k")

    assert ann.json()["turn_id"] != bob.json()["turn_id"]


async def test_a_second_request_waits_for_the_turn_of_the_first(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("once")))
    requests = [asyncio.create_task(system.say("Hi", Idempotency_Key="k")) for _ in range(5)]
    await system.endpoint.asked(1)
    release.set()

    replies = [response.json() for response in await asyncio.gather(*requests)]

    assert all(reply == replies[0] for reply in replies)
    assert len(system.questions()) == 1


async def test_a_client_that_gives_up_and_retries_gets_the_same_turn(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("patience")))
    gave_up = asyncio.create_task(system.say("Hi", Idempotency_Key="k"))
    await system.endpoint.asked(1)
    gave_up.cancel()
    release.set()

    reply = await system.say("Hi", Idempotency_Key="k")

    assert reply.json()["reply"] == "patience"
    assert len(system.questions()) == 1
    assert await system.history_of(2) == ["Hi", "patience"]


async def test_the_key_of_a_failed_turn_gives_the_same_failure_again(system: System) -> None:
    system.endpoint.script(status(401))
    first = await system.say("Hi", Idempotency_Key="k")

    second = await system.say("Hi", Idempotency_Key="k")

    assert first.status_code == second.status_code == 502
    assert first.json() == second.json()
    assert len(system.questions()) == 1


async def test_respond_async_on_a_turn_that_has_ended_gives_its_reply(system: System) -> None:
    first = await system.say("Hi", Idempotency_Key="k")

    again = await system.say("Hi", Idempotency_Key="k", Prefer="respond-async")

    assert again.status_code == 200
    assert again.json() == first.json()


@pytest.mark.parametrize("key", ["", " ", "a\u200bb", "x" * 257])
async def test_a_bad_key_is_refused(system: System, key: str) -> None:
    body = {"user_id": "ann", "text": "Hi"}

    response = await system.chat.post("/chat/", json=body, headers=[(b"idempotency-key", key.encode())])

    assert response.status_code == 422
    assert "Idempotency-Key" in response.json()["detail"]


@pytest.mark.parametrize("key", ["key-ü", "鍵", "🔑"])
async def test_a_key_of_any_script_is_a_key(system: System, key: str) -> None:
    headers = {b"idempotency-key": key.encode()}

    first = await system.chat.post("/chat/", json={"user_id": "ann", "text": "Hi"}, headers=headers)
    second = await system.chat.post("/chat/", json={"user_id": "ann", "text": "Hi"}, headers=headers)

    assert first.status_code == 200, first.text
    assert second.json() == first.json()


async def test_a_refused_request_uses_its_key_up_for_nobody(system: System) -> None:
    await system.say("mine", user="bob", session="of-bob")
    refused = await system.say("Hi", session="of-bob", Idempotency_Key="k")

    accepted = await system.say("Hi", session="s", Idempotency_Key="k")

    assert refused.status_code == 403
    assert accepted.status_code == 200


async def test_a_key_is_known_after_a_restart(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> None:
    async with running(tmp_path, endpoint, clock) as before:
        first = await before.say("Hi", Idempotency_Key="k")

    async with running(tmp_path, endpoint, clock) as after:
        again = await after.say("Hi", Idempotency_Key="k")

        assert again.json() == first.json()
        assert len(after.questions()) == 1
