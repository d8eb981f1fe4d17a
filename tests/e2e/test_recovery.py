"""A stop and a start, gentle or not; and neighbours that go away and come back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from everturn.testing.model_answers import Held, completion
from everturn.testing.model_endpoint import ModelEndpoint
from tests.e2e.conftest import Client, Machine

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
async def endpoint(machine: Machine) -> AsyncIterator[ModelEndpoint]:
    """A model that the machine is set to use; it answers with "hello" unless told otherwise."""
    async with ModelEndpoint(otherwise=completion("hello")) as started:
        machine.settings |= {"EVERTURN_MODEL_BASE_URL": started.base_url, "EVERTURN_MODEL_NAME": "scripted"}
        yield started


def questions(endpoint: ModelEndpoint) -> int:
    """How many requests were those of a turn; a summary asks too, whenever it is ready, and offers no tools."""
    return sum(1 for request in endpoint.requests if request.body.get("tools"))


async def ended(client: Client, turn_id: str) -> dict[str, Any]:
    async def has_ended() -> bool:
        return (await client.turn(turn_id))["status"] in ("completed", "failed", "cancelled")

    await client.until(has_ended)
    return await client.turn(turn_id)


async def test_a_turn_that_was_running_at_a_kill_finishes_after_a_start(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script(Held(asyncio.Event(), completion("never given")))
    first = await machine.up()
    turn_id = (await client.say("Hi there", headers=ASYNC)).json()["turn_id"]
    await endpoint.asked(1)
    before = await client.turn(turn_id)
    await first.kill()

    second = await machine.up()
    turn = await ended(client, turn_id)

    assert "  resumed 1 unfinished turn" in second.out.all
    assert turn["status"] == "completed"
    assert turn["reply"]["reply"] == "hello"
    steps = {step["name"]: step for step in turn["steps"]}
    assert steps["fetch_context"] == before["steps"][0], "a finished step ran again"
    assert steps["generate_response"]["attempts"] == 1, "a crash used up an attempt"
    assert questions(endpoint) == 2


async def test_a_start_after_a_kill_leaves_one_entry_a_message(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script(Held(asyncio.Event(), completion("never given")))
    first = await machine.up()
    key = {"Idempotency-Key": "k1"}
    turn_id = (await client.say("Hi there", headers=ASYNC | key)).json()["turn_id"]
    await endpoint.asked(1)
    await first.kill()
    await machine.up()

    again = await client.say("Hi there", headers=key)

    assert again.json()["turn_id"] == turn_id

    async def is_stored() -> bool:
        return bool(await client.history())

    await client.until(is_stored)
    assert [entry["content"] for entry in await client.history()] == ["Hi there", "hello"]


async def test_the_resumed_turns_are_counted(machine: Machine, client: Client, endpoint: ModelEndpoint) -> None:
    endpoint.script(Held(asyncio.Event(), completion("never given")))
    first = await machine.up()
    await client.say("Hi there", headers=ASYNC)
    await endpoint.asked(1)
    await first.kill()

    await machine.up()

    metrics = (await client.http.get(f"{machine.chat_url}/metrics")).text
    assert "everturn_turns_resumed_total 1.0" in metrics


async def test_a_graceful_stop_finishes_the_turn_that_runs(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, completion("just in time")))
    running = await machine.up(EVERTURN_SHUTDOWN_S="30")
    waiting = asyncio.create_task(client.say("Hi there"))
    await endpoint.asked(1)

    running.process.send_signal(signal.SIGTERM)
    await running.event("stopping")
    release.set()
    reply = await waiting

    assert reply.json()["reply"] == "just in time"
    assert await running.exit_code() == 0


async def test_a_graceful_stop_lets_a_step_finish_that_nobody_waits_for(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    release = asyncio.Event()
    endpoint.script(Held(release, completion("just in time")))
    running = await machine.up(EVERTURN_SHUTDOWN_S="30")
    turn_id = (await client.say("Hi there", headers=ASYNC)).json()["turn_id"]
    await endpoint.asked(1)

    running.process.send_signal(signal.SIGTERM)
    await running.event("requests_ended")
    release.set()
    await running.exit_code()
    await machine.up()

    assert (await ended(client, turn_id))["reply"]["reply"] == "just in time"
    assert questions(endpoint) == 1


async def test_a_stop_that_takes_too_long_keeps_the_turn_for_the_next_start(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script(Held(asyncio.Event(), completion("never given")))
    running = await machine.up(EVERTURN_SHUTDOWN_S="1")
    turn_id = (await client.say("Hi there", headers=ASYNC)).json()["turn_id"]
    await endpoint.asked(1)

    code = await running.stop()
    await machine.up()

    assert code == 0
    assert (await ended(client, turn_id))["status"] == "completed"


async def test_who_waits_when_a_stop_takes_too_long_is_told_where_to_look(
    machine: Machine, client: Client, endpoint: ModelEndpoint
) -> None:
    endpoint.script(Held(asyncio.Event(), completion("never given")))
    running = await machine.up(EVERTURN_SHUTDOWN_S="2")
    waiting = asyncio.create_task(client.say("Hi there"))
    await endpoint.asked(1)

    code = await running.stop()
    answer = await waiting

    assert code == 0
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/turns/{answer.json()['turn_id']}"
    assert not [line for line in running.err.all if '"level": "error"' in line]


async def test_a_second_ctrl_c_ends_at_once(machine: Machine, client: Client, endpoint: ModelEndpoint) -> None:
    endpoint.script(Held(asyncio.Event(), completion("never given")))
    running = await machine.up(EVERTURN_SHUTDOWN_S="3600")
    await client.say("Hi there", headers=ASYNC)
    await endpoint.asked(1)
    running.process.send_signal(signal.SIGINT)
    await running.event("stopping")

    code = await running.stop(signal.SIGINT)

    assert code == 0
    assert await running.event("ended_at_once")


async def test_a_turn_waits_for_the_memory_service_and_shows_that_it_does(machine: Machine, client: Client) -> None:
    running = await machine.up("--faults", EVERTURN_FETCH_ATTEMPTS="1000", EVERTURN_FETCH_MAX_DELAY_S="0.2")
    await client.switch("memory", away=True)
    turn_id = (await client.say("Hi there", headers=ASYNC)).json()["turn_id"]

    await running.event("step_attempt_failed", step="fetch_context", turn_id=turn_id)

    async def shows_a_retry() -> bool:
        steps = (await client.turn(turn_id))["steps"]
        return bool(steps) and steps[0]["attempts"] >= 2 and steps[0]["error"] is not None

    await client.until(shows_a_retry)
    await client.switch("memory", away=False)
    turn = await ended(client, turn_id)
    assert turn["status"] == "completed"
    assert turn["reply"]["degraded"] == []


async def test_a_reply_does_not_wait_for_the_broker_and_its_history_comes_later(
    machine: Machine, client: Client
) -> None:
    await machine.up("--faults", EVERTURN_SAVE_ATTEMPTS="2", EVERTURN_SAVE_FIRST_DELAY_S="0.05")
    await client.switch("broker", away=True)

    reply = await client.say("Hi there")

    assert reply.status_code == 200, reply.text
    assert await client.history() == []
    await client.switch("broker", away=False)

    async def is_stored() -> bool:
        return len(await client.history()) == 2

    await client.until(is_stored)
