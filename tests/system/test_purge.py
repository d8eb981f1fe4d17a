"""What is over is purged, and is still answered from what is kept. The test's clock is years behind: all is old."""

from everturn.testing.model_answers import status
from tests.system.conftest import System
from tests.system.test_abandoned import operate


async def workflows(system: System) -> list[str]:
    """The instances of both apps."""
    ids: list[str] = []
    for app_id in ("chat-service", "agent-memory-service"):
        client = system.runtime.engine.client(app_id)
        ids += [instance_id async for instance_id in client.iter_workflow_instance_ids()]
    return ids


async def test_a_purged_turn_still_answers(system: System) -> None:
    first = await system.say("Hi", Idempotency_Key="k")
    turn_id = first.json()["turn_id"]
    before = await system.turn(turn_id)

    async def is_over() -> bool:
        await system.purge()
        return await workflows(system) == []

    await system.until(is_over)

    assert await system.turn(turn_id) == before
    assert (await system.say("Hi", Idempotency_Key="k")).json() == first.json()
    assert len(system.questions()) == 1
    assert await system.history() == ["Hi", "hello"]


async def test_a_purged_failure_can_be_run_again(system: System) -> None:
    system.endpoint.script(status(400))
    turn_id = (await system.say("Hi")).json()["turn_id"]
    await system.runtime.engine.client("chat-service").wait_for_workflow_completion(turn_id)
    assert await system.purge() == 1

    await system.steer(turn_id, "rerun")
    turn = await system.ended(turn_id)

    assert turn["status"] == "completed"
    attempts = {step["name"]: step["attempts"] for step in turn["steps"]}
    assert attempts["fetch_context"] == 2
    assert attempts["generate_response"] == 2


async def test_a_turn_that_runs_is_not_purged(system: System) -> None:
    system.endpoint.script(status(429, retry_after="300"))
    turn_id = await system.accept("Hi")
    await system.endpoint.asked(1)

    assert await system.purge() == 0

    assert (await system.ended(turn_id))["status"] == "completed"


async def test_an_unreadable_fact_keeps_nothing_else_from_being_purged(system: System) -> None:
    turn_ids = [(await system.say("Hi", session=session)).json()["turn_id"] for session in ("a", "b", "c")]
    for turn_id in turn_ids:
        await system.runtime.engine.client("chat-service").wait_for_workflow_completion(turn_id)
    broken = {"key": f"turn:{turn_ids[1]}:0:steps", "value": {"no": "steps"}}
    await operate(system, "POST", "state/statestore", [broken])

    assert await system.purge() >= 2

    left = await workflows(system)
    assert turn_ids[1] in left
    assert turn_ids[0] not in left
    assert turn_ids[2] not in left
