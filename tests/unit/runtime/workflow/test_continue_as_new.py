import asyncio
from datetime import timedelta
from typing import Any

from tests.unit.runtime.workflow.rig import Rig, until


async def test_it_goes_on_with_the_new_input_and_a_fresh_history(rig: Rig) -> None:
    @rig.activity
    async def work(_ctx: Any, _: Any) -> None:
        pass

    @rig.workflow
    def count(ctx: Any, number: int) -> Any:
        yield ctx.call_activity("work")
        if number < 5:
            ctx.continue_as_new(number + 1)
            return None
        return number

    await rig.open()
    instance_id = await rig.start("count", 1)

    state = await rig.ended(instance_id)

    assert state.serialized_output == "5"
    assert (await rig.history(instance_id)).count("TASK_SCHEDULED") == 1


async def test_a_hundred_in_a_row_without_anything_between_still_end(rig: Rig) -> None:
    @rig.workflow
    def spin(ctx: Any, number: int) -> Any:
        if number < 100:
            ctx.continue_as_new(number + 1)
            return None
        return number

    await rig.open()

    state = await rig.run("spin", 0)

    assert state.serialized_output == "100"


async def test_one_that_never_stops_lets_others_run_and_can_be_terminated(rig: Rig) -> None:
    @rig.workflow
    def forever(ctx: Any, number: int) -> Any:
        ctx.continue_as_new(number + 1)

    @rig.workflow
    def other(_ctx: Any, _: Any) -> Any:
        return "ran"

    await rig.open()
    instance_id = await rig.start("forever", 0)

    beside = await rig.run("other")
    await rig.client.terminate_workflow(instance_id)

    assert beside.serialized_output == '"ran"'
    assert await rig.status(instance_id) == "TERMINATED"


async def test_unconsumed_events_go_along_when_asked(rig: Rig) -> None:
    @rig.workflow
    def collect(ctx: Any, found: list[int]) -> Any:
        if not found:
            yield ctx.wait_for_external_event("go")
        item = yield ctx.wait_for_external_event("item")
        if len(found) == 2:
            return [*found, item]
        ctx.continue_as_new([*found, item], save_events=True)

    await rig.open()
    instance_id = await rig.start("collect", [])
    for number in (1, 2, 3):
        await rig.client.raise_workflow_event(instance_id, "item", data=number)

    await rig.client.raise_workflow_event(instance_id, "go")
    state = await rig.ended(instance_id)

    assert state.serialized_output == "[1, 2, 3]"


async def test_a_timer_of_the_execution_before_does_not_fire_into_the_next(rig: Rig) -> None:
    @rig.workflow
    def restart(ctx: Any, generation: int) -> Any:
        ctx.create_timer(timedelta(seconds=10))
        if generation == 0:
            yield ctx.wait_for_external_event("again")
            ctx.continue_as_new(1)
            return None
        yield ctx.create_timer(timedelta(seconds=100))
        return "second"

    await rig.open()
    instance_id = await rig.start("restart", 0)
    rig.clock.advance(5)
    await rig.client.raise_workflow_event(instance_id, "again")

    rig.clock.advance(6)
    await until(lambda: rig.engine.active_instances == 0)
    history = await rig.history(instance_id)

    assert history.count("TIMER_CREATED") == 2
    assert "TIMER_FIRED" not in history


async def test_an_activity_of_the_execution_before_is_not_taken_for_one_of_the_next(rig: Rig) -> None:
    gates = {0: asyncio.Event(), 1: asyncio.Event()}

    @rig.activity
    async def named(_ctx: Any, generation: int) -> int:
        await gates[generation].wait()
        return generation

    @rig.workflow
    def restart(ctx: Any, generation: int) -> Any:
        task = ctx.call_activity("named", input=generation)
        if generation == 0:
            yield ctx.wait_for_external_event("again")
            ctx.continue_as_new(1)
            return None
        return (yield task)

    await rig.open()
    instance_id = await rig.start("restart", 0)
    await rig.client.raise_workflow_event(instance_id, "again")
    await until(lambda: rig.engine.running_activities == 2)

    gates[0].set()
    await until(lambda: rig.engine.running_activities == 1)
    gates[1].set()
    state = await rig.ended(instance_id)

    assert state.serialized_output == "1"
