"""Turns whose workflow ends without them: terminated or purged by an operator through Dapr's API, or failed by a bug.

A `chat_workflow` whose input is not what it expects is the bug.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from everturn.dapr.wire import Request
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import Gate, System, running
from tests.system.test_order import held


async def operate(system: System, method: str, path: str, body: object = None) -> Any:
    """Ask the chat service's sidecar over its HTTP API."""
    transport = system.composed.chat.parts.sidecar.transport
    sent = b"" if body is None else json.dumps(body).encode()
    response = await transport.send(Request(method, f"/v1.0/{path}", {"content-type": "application/json"}, sent))
    assert response.status < 300, response.body
    return json.loads(response.body) if response.body else None


async def terminate(system: System, turn_id: str) -> None:
    await operate(system, "POST", f"workflows/dapr/{turn_id}/terminate")


async def purge(system: System, turn_id: str) -> None:
    await terminate(system, turn_id)
    await operate(system, "POST", f"workflows/dapr/{turn_id}/purge")


async def fail(system: System, turn_id: str) -> None:
    """Let the turn's workflow be one that failed."""
    await purge(system, turn_id)
    await operate(system, "POST", f"workflows/dapr/chat_workflow/start?instanceID={turn_id}", {"no": "turn"})

    async def has_failed() -> bool:
        state = await operate(system, "GET", f"workflows/dapr/{turn_id}")
        return bool(state["runtimeStatus"] == "FAILED")

    await system.until(has_failed)


async def ended_turns(system: System, how: str) -> float:
    """How many turns have ended so, by the metrics."""
    lines = (await system.chat.get("/metrics")).text.splitlines()
    name = f'everturn_turns_total{{status="{how}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.parametrize(("leave", "how"), [(terminate, "cancelled"), (fail, "failed")])
async def test_a_turn_that_its_workflow_has_left_lets_the_next_message_go(
    system: System, leave: Callable[[System, str], Awaitable[None]], how: str
) -> None:
    first, release = await held(system)
    await leave(system, first)

    reply = await system.say("second")

    assert (reply.status_code, reply.json()["reply"]) == (200, "hello")
    assert (await system.turn(first))["status"] == how
    assert await ended_turns(system, how) == 1
    assert await system.history_of(2) == ["second", "hello"]
    release.set()


async def test_a_client_that_waits_for_a_terminated_turn_gets_409(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("never given")))
    client = asyncio.create_task(system.say("Hi", Idempotency_Key="k"))
    await system.endpoint.asked(1)
    turn_id = await system.accept("Hi", Idempotency_Key="k")

    await terminate(system, turn_id)
    response = await client

    assert (response.status_code, response.json()["turn_id"]) == (409, turn_id)
    release.set()


async def test_a_client_that_asks_again_for_a_failed_workflow_gets_502_and_can_run_it_again(system: System) -> None:
    release = asyncio.Event()
    system.endpoint.script(Held(release, completion("never given")))
    turn_id = await system.accept("Hi", Idempotency_Key="k")
    await system.endpoint.asked(1)
    await fail(system, turn_id)

    response = await system.say("Hi", Idempotency_Key="k")
    shown = await system.turn(turn_id)
    rerun = await system.steer(turn_id, "rerun")
    turn = await system.ended(turn_id)

    assert response.status_code == 502
    assert response.json().items() >= {"turn_id": turn_id, "step": "fetch_context", "kind": "workflow_failed"}.items()
    assert (shown["status"], shown["error"]["kind"]) == ("failed", "workflow_failed")
    assert rerun.status_code == 202
    assert (turn["status"], turn["reply"]["reply"]) == ("completed", "hello")
    assert await system.history_of(2) == ["Hi", "hello"]
    release.set()


async def test_looking_ends_an_abandoned_turn_once_however_many_look(system: System) -> None:
    turn_id, release = await held(system)
    second = await system.accept("second")
    await terminate(system, turn_id)

    shown = await asyncio.gather(*(system.turn(turn_id) for _ in range(8)))

    assert {turn["status"] for turn in shown} == {"cancelled"}
    assert shown[0]["steps"][-1]["status"] == "failed"
    assert await ended_turns(system, "cancelled") == 1
    assert (await system.ended(second))["status"] == "completed"
    assert len(system.questions()) == 2
    release.set()


async def test_a_step_that_outlives_its_terminated_turn_leaves_no_reply(system: System) -> None:
    turn_id, release = await held(system)
    await terminate(system, turn_id)
    assert (await system.turn(turn_id))["status"] == "cancelled"

    release.set()

    async def has_been_refused() -> bool:
        metrics = (await system.chat.get("/metrics")).text
        return 'everturn_step_attempts_total{outcome="failed_terminal",step="generate_response"} 1.0' in metrics

    await system.until(has_been_refused)
    verdict = await operate(system, "GET", f"state/statestore/turn:{turn_id}:0:verdict")
    assert verdict["verdict"] == "cancellation"


async def test_a_turn_that_is_terminated_while_its_reply_is_saved_completes(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    gate.wanted = lambda request: "/publish/" in request.target
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        turn_id = await system.accept("Hi")
        await gate.reached.wait()

        await terminate(system, turn_id)
        turn = await system.turn(turn_id)

        assert (turn["status"], turn["reply"]["reply"]) == ("completed", "hello")
        assert await system.history_of(2) == ["Hi", "hello"], "the event waited for who was terminated"
        gate.release.set()
        await system.say("And?")
        assert await system.history_of(4) == ["Hi", "hello", "And?", "hello"]


async def test_a_turn_that_is_terminated_while_it_ends_ends_once(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    gate.wanted = lambda request: b':outcome","value"' in request.body
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        turn_id = await system.accept("Hi")
        await gate.reached.wait()

        await terminate(system, turn_id)
        turn = await system.turn(turn_id)
        gate.release.set()
        await system.say("And?")

        assert turn["status"] == (await system.turn(turn_id))["status"] == "completed"
        assert await ended_turns(system, "completed") == 2


async def test_the_late_end_of_a_run_does_not_end_the_rerun(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    gate.wanted = lambda request: b':outcome","value"' in request.body
    endpoint.script(status(400))
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        turn_id = await system.accept("Hi")
        await gate.reached.wait()  # the first run is about to end as failed
        await fail(system, turn_id)
        release = asyncio.Event()
        endpoint.script(Held(release, completion("after all")))
        await system.steer(turn_id, "rerun")
        await endpoint.asked(2)

        gate.release.set()
        # A whole turn of another session: had the first run's end been taken for the second's, it would be written.
        await system.say("Hi", session="other")
        shown = await system.turn(turn_id)
        release.set()

        assert shown["status"] == "running"
        assert (await system.ended(turn_id))["reply"]["reply"] == "after all"


async def test_a_turn_whose_workflow_is_purged_starts_again_with_the_next_message(system: System) -> None:
    first, release = await held(system)
    await purge(system, first)

    reply = await system.say("second")

    assert reply.status_code == 200
    assert (await system.turn(first))["reply"]["reply"] == "hello"
    assert await system.history_of(4) == ["first", "hello", "second", "hello"]
    release.set()


async def test_an_ended_turn_that_a_crash_left_in_the_queue_holds_nobody(system: System) -> None:
    """On a store without transactions the record can be written and the session not."""
    ended = (await system.say("first")).json()["turn_id"]
    session: dict[str, Any] = {}

    async def has_left() -> bool:
        session.update(await operate(system, "GET", "state/statestore/session:s"))
        return "recent" in session

    await system.until(has_left)
    before = {**session, "queue": session.pop("recent"), "recent": []}
    await operate(system, "POST", "state/statestore", [{"key": "session:s", "value": before}])

    reply = await system.say("second")

    assert reply.status_code == 200
    assert (await system.turn(ended))["status"] == "completed"
    assert await system.history_of(4) == ["first", "hello", "second", "hello"]

    async def is_empty() -> bool:
        return "queue" not in await operate(system, "GET", "state/statestore/session:s")

    await system.until(is_empty)


async def test_the_purge_ends_an_abandoned_turn_and_then_takes_its_workflow_away(system: System) -> None:
    turn_id, release = await held(system)
    await terminate(system, turn_id)

    purged = [await system.purge() for _ in range(2)]

    assert await ended_turns(system, "cancelled") == 1
    assert purged == [0, 1]
    steps = (await system.turn(turn_id))["steps"]
    assert [step["name"] for step in steps] == ["fetch_context", "generate_response"]
    release.set()
