from datetime import timedelta
from typing import Any

from tests.unit.runtime_workflows.rig import Rig, until


def register_sleeper(rig: Rig) -> None:
    @rig.workflow
    def sleep(ctx: Any, seconds: float) -> Any:
        yield ctx.create_timer(timedelta(seconds=seconds))
        return "woken"


async def test_a_timer_fires_at_its_time_and_not_before(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    instance_id = await rig.start("sleep", 60)
    rig.clock.advance(59.5)
    early = (await rig.status(instance_id), rig.clock.next_alarm_in_s)

    rig.clock.advance(0.5)
    state = await rig.ended(instance_id)

    assert early == ("RUNNING", 0.5)
    assert state.serialized_output == '"woken"'


async def test_a_timer_that_came_due_while_the_system_was_down_fires_at_the_start(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    instance_id = await rig.start("sleep", 60)
    await rig.close()
    rig.clock.advance(3600)

    await rig.open()
    state = await rig.ended(instance_id)

    assert state.serialized_output == '"woken"'
    assert rig.engine.armed_timers == 0


async def test_a_clock_set_back_delays_a_timer_and_does_not_lose_it(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    instance_id = await rig.start("sleep", 60)
    rig.clock.advance(-1000)
    rig.clock.advance(1000)
    still = await rig.status(instance_id)

    rig.clock.advance(60)
    state = await rig.ended(instance_id)

    assert still == "RUNNING"
    assert state.serialized_output == '"woken"'


async def test_each_timer_fires_at_its_own_time(rig: Rig) -> None:
    fired: list[tuple[float, float]] = []
    began = rig.clock.now()

    @rig.activity
    async def note(_ctx: Any, seconds: float) -> None:
        fired.append((seconds, rig.clock.now() - began))

    @rig.workflow
    def sleep_and_note(ctx: Any, seconds: float) -> Any:
        yield ctx.create_timer(timedelta(seconds=seconds))
        yield ctx.call_activity("note", input=seconds)

    await rig.open()
    ids = [await rig.start("sleep_and_note", seconds) for seconds in (30, 10, 20)]

    for count in range(1, len(ids) + 1):
        rig.clock.advance(10)
        await until(lambda count=count: len(fired) == count)  # type: ignore[misc]
    for instance_id in ids:
        await rig.ended(instance_id)

    assert fired == [(10, 10), (20, 20), (30, 30)]


async def test_a_thousand_due_timers_all_fire(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    ids = [await rig.start("sleep", 5) for _ in range(300)]

    rig.clock.advance(5)
    states = [await rig.ended(instance_id) for instance_id in ids]

    assert {state.runtime_status.name for state in states} == {"COMPLETED"}


async def test_an_ended_workflow_leaves_no_timer(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    instance_id = await rig.start("sleep", 60)

    await rig.client.terminate_workflow(instance_id)

    assert rig.engine.armed_timers == 0
    assert rig.database.read("SELECT * FROM workflow_timers") == []
