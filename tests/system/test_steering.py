"""Cancel, pause, resume, rerun."""

import asyncio
from pathlib import Path

import pytest

from everturn.dapr.wire import Request
from everturn.testing.clock import ManualClock
from everturn.testing.model_answers import Held, completion, status
from everturn.testing.model_endpoint import ModelEndpoint
from tests.system.conftest import Gate, System, running
from tests.system.test_order import held


async def test_a_running_turn_is_cancelled_and_lets_the_next_one_go(system: System) -> None:
    turn_id, release = await held(system)
    second = await system.accept("second")

    response = await system.steer(turn_id, "cancel")

    assert response.status_code == 200
    assert response.json()["status"] == "cancelled"
    assert response.json()["steps"][-1]["status"] == "failed"
    assert (await system.ended(second))["status"] == "completed"
    release.set()
    assert await system.history_of(2) == ["second", "hello"]


async def test_a_queued_turn_is_cancelled_without_having_run(system: System) -> None:
    first, release = await held(system)
    queued = await system.accept("queued")

    response = await system.steer(queued, "cancel")
    release.set()
    await system.ended(first)

    assert response.status_code == 200
    assert response.json()["status"] == "cancelled"
    assert response.json()["steps"] == []
    assert len(system.questions()) == 1


async def test_a_client_that_waits_for_a_cancelled_turn_gets_409(system: System) -> None:
    first, release = await held(system)
    waiting = asyncio.create_task(system.say("queued", Idempotency_Key="k"))
    queued = ""

    async def is_queued() -> bool:
        nonlocal queued
        queued = await system.accept("queued", Idempotency_Key="k")
        return True

    await system.until(is_queued)
    await system.steer(queued, "cancel")

    assert (await waiting).status_code == 409
    assert (await system.say("queued", Idempotency_Key="k")).status_code == 409
    release.set()
    await system.ended(first)


async def test_cancelling_twice_is_fine_and_cancelling_what_has_ended_is_not(system: System) -> None:
    turn_id, release = await held(system)
    completed = (await system.say("Hi", session="other")).json()["turn_id"]

    first, second = await system.steer(turn_id, "cancel"), await system.steer(turn_id, "cancel")

    assert (first.status_code, second.status_code) == (200, 200)
    assert (await system.steer(completed, "cancel")).status_code == 409
    release.set()


async def test_a_paused_turn_goes_on_when_it_is_resumed(system: System) -> None:
    turn_id, release = await held(system)

    paused = await system.steer(turn_id, "pause")
    again = await system.steer(turn_id, "pause")
    release.set()
    second = await system.accept("second")
    resumed = await system.steer(turn_id, "resume")

    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert again.status_code == 200
    assert resumed.status_code == 200
    assert (await system.ended(turn_id))["reply"]["reply"] == "re: first"
    assert (await system.ended(second))["status"] == "completed"


async def test_a_paused_turn_holds_its_session(system: System) -> None:
    turn_id, release = await held(system)
    await system.steer(turn_id, "pause")
    release.set()
    second = await system.accept("second")

    assert (await system.turn(second))["status"] == "queued"
    await system.steer(turn_id, "resume")
    assert (await system.ended(second))["status"] == "completed"


async def test_a_queued_turn_can_be_paused_and_holds_those_behind_it(system: System) -> None:
    first, release = await held(system)
    second, third = await system.accept("second"), await system.accept("third")

    paused = await system.steer(second, "pause")
    release.set()
    await system.ended(first)

    # A whole turn of another session: had the second one started, the model would have been asked by now.
    await system.say("Hi", session="other")
    assert "second" not in [messages[-1]["content"] for messages in system.questions()]
    assert paused.json()["status"] == "paused"
    assert (await system.turn(second))["status"] == "paused"
    assert (await system.turn(third))["status"] == "queued"
    await system.steer(second, "resume")
    assert (await system.ended(third))["status"] == "completed"


async def test_a_paused_turn_can_be_cancelled(system: System) -> None:
    turn_id, release = await held(system)
    await system.steer(turn_id, "pause")
    release.set()

    response = await system.steer(turn_id, "cancel")

    assert response.status_code == 200
    assert response.json()["status"] == "cancelled"
    await system.say("next")
    assert await system.history_of(2) == ["next", "hello"]


async def test_a_turn_whose_reply_came_while_it_was_paused_can_only_complete(system: System) -> None:
    turn_id, release = await held(system)
    await system.steer(turn_id, "pause")
    release.set()

    async def has_its_reply() -> bool:
        metrics = (await system.chat.get("/metrics")).text
        return 'everturn_step_attempts_total{outcome="completed",step="generate_response"} 1.0' in metrics

    await system.until(has_its_reply)
    response = await system.steer(turn_id, "cancel")
    await system.steer(turn_id, "resume")

    assert response.status_code == 409
    assert (await system.ended(turn_id))["status"] == "completed"
    assert await system.history_of(2) == ["first", "re: first"]


@pytest.mark.parametrize("how", ["cancel", "pause", "resume"])
async def test_what_has_ended_cannot_be_steered(system: System, how: str) -> None:
    turn_id = (await system.say("Hi")).json()["turn_id"]

    assert (await system.steer(turn_id, how)).status_code == 409


@pytest.mark.parametrize("how", ["cancel", "pause", "resume", "rerun"])
async def test_an_unknown_turn_is_404(system: System, how: str) -> None:
    assert (await system.steer("no-such-turn", how)).status_code == 404
    assert (await system.chat.get("/turns/no-such-turn")).status_code == 404


async def test_a_failed_turn_is_run_again_with_a_fresh_context(system: System) -> None:
    system.endpoint.script(status(400))
    failed = await system.say("Hi", Idempotency_Key="k")
    turn_id = failed.json()["turn_id"]

    response = await system.steer(turn_id, "rerun")
    turn = await system.ended(turn_id)

    assert response.status_code == 202
    assert response.headers["location"] == f"/turns/{turn_id}"
    assert turn["status"] == "completed"
    attempts = {step["name"]: step["attempts"] for step in turn["steps"]}
    assert attempts["fetch_context"] == 2
    assert attempts["generate_response"] == 2
    assert await system.history_of(2) == ["Hi", "hello"]
    assert (await system.say("Hi", Idempotency_Key="k")).json()["reply"] == "hello"


async def test_a_rerun_goes_to_the_end_of_its_session_and_sees_what_came_before(system: System) -> None:
    system.endpoint.script(status(400))
    turn_id = (await system.say("failed first")).json()["turn_id"]
    await system.say("in between")

    await system.steer(turn_id, "rerun")
    turn = await system.ended(turn_id)

    assert turn["sequence"] == 3
    assert turn["reply"]["degraded"] == []
    assert await system.history_of(4) == ["in between", "hello", "failed first", "hello"]
    contents = [message["content"] for message in system.questions()[-1]]
    assert contents[-3:] == ["in between", "hello", "failed first"]


async def test_only_a_failed_turn_can_be_run_again(system: System) -> None:
    turn_id = (await system.say("Hi")).json()["turn_id"]

    assert (await system.steer(turn_id, "rerun")).status_code == 409


async def test_a_pause_outlasts_a_restart(tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock) -> None:
    release = asyncio.Event()
    async with running(tmp_path, endpoint, clock) as before:
        endpoint.script(Held(release, completion("never")))
        turn_id = await before.accept("Hi")
        await endpoint.asked(1)
        await before.steer(turn_id, "pause")

    async with running(tmp_path, endpoint, clock) as after:
        assert (await after.turn(turn_id))["status"] == "paused"
        await after.steer(turn_id, "resume")
        assert (await after.ended(turn_id))["reply"]["reply"] == "hello"


async def test_a_turn_that_is_ending_cannot_be_paused_and_ends(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    gate.wanted = lambda request: b':outcome","value"' in request.body
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        turn_id = await system.accept("Hi")
        await gate.reached.wait()

        paused = await system.steer(turn_id, "pause")
        gate.release.set()
        turn = await system.ended(turn_id)

        assert paused.status_code == 409
        assert turn["status"] == "completed"
        await system.runtime.engine.client("chat-service").wait_for_workflow_completion(turn_id)

    async with running(tmp_path, endpoint, clock) as system:
        assert system.runtime.engine.resumed_by_name.get("chat_workflow", 0) == 0


async def test_a_turn_that_is_paused_while_it_is_handed_the_session_stays_paused(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        first, release = await held(system)
        second = await system.accept("second")
        has_left = False

        def wanted(request: Request) -> bool:
            nonlocal has_left
            has_left = has_left or b'"session:s"' in request.body
            return has_left and request.method == "GET" and request.target.endswith("session:s")

        gate.wanted = wanted
        release.set()
        await gate.reached.wait()  # the session is the second turn's, whose workflow is about to look

        paused = await system.steer(second, "pause")
        gate.release.set()
        await system.ended(first)
        await system.ended(await system.accept("meanwhile", session="other"))

        assert paused.json()["status"] == (await system.turn(second))["status"] == "paused"
        assert "second" not in [question[-1]["content"] for question in system.questions()]
        assert (await system.steer(second, "resume")).json()["status"] != "paused"
        assert (await system.ended(second))["status"] == "completed"


async def test_a_turn_that_is_cancelled_too_late_is_in_the_history_also_without_a_broker(
    tmp_path: Path, endpoint: ModelEndpoint, clock: ManualClock
) -> None:
    gate = Gate()
    async with running(tmp_path, endpoint, clock, gate=gate) as system:
        system.faults.set_away("broker", away=True)
        gate.wanted = lambda request: b':outcome","value"' in request.body
        turn_id = await system.accept("Hi")
        await gate.reached.wait()

        cancelled = await system.steer(turn_id, "cancel")
        gate.release.set()

        assert cancelled.status_code == 409
        assert (await system.ended(turn_id))["status"] == "completed"
        system.faults.set_away("broker", away=False)
        assert await system.history_of(2) == ["Hi", "hello"]
