from datetime import timedelta
from typing import Any

import pytest

from tests.unit.runtime.workflow.rig import Rig, until


def register_sleeper(rig: Rig) -> None:
    @rig.workflow
    def sleep(ctx: Any, seconds: float) -> Any:
        yield ctx.create_timer(timedelta(seconds=seconds))
        return "woken"


@pytest.mark.parametrize("set_back_s", [0, 7200])
async def test_a_timer_fires_at_its_time_and_not_before_also_if_the_clock_is_set_back(
    rig: Rig, set_back_s: float
) -> None:
    register_sleeper(rig)
    await rig.open()
    instance_id = await rig.start("sleep", 60)
    rig.clock.jump(-set_back_s)
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


async def test_timers_set_before_and_after_a_clock_was_set_back_take_their_own_time_each(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    before = [await rig.start("sleep", seconds) for seconds in (40, 90)]
    rig.clock.jump(-7200)
    after = [await rig.start("sleep", seconds) for seconds in (30, 60)]

    ended = []
    for instance_id, seconds in ((after[0], 30), (before[0], 10), (after[1], 20), (before[1], 30)):
        rig.clock.advance(seconds)
        await rig.ended(instance_id)
        ended.append([await rig.status(one) for one in (*before, *after)].count("COMPLETED"))

    assert ended == [1, 2, 3, 4]
    assert rig.engine.armed_timers == 0


async def test_a_clock_set_forward_makes_due_what_is_due_by_it(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    soon, late = await rig.start("sleep", 60), await rig.start("sleep", 7200)

    rig.clock.jump(3600)
    state = await rig.ended(soon)

    assert state.serialized_output == '"woken"'
    assert await rig.status(late) == "RUNNING"


async def test_a_clock_set_back_and_forward_again_leaves_a_timer_as_it_was(rig: Rig) -> None:
    register_sleeper(rig)
    await rig.open()
    instance_id = await rig.start("sleep", 60)
    rig.clock.jump(-7200)
    await rig.run("sleep", 0.0)
    rig.clock.jump(7200)
    rig.clock.advance(59.5)
    early = await rig.status(instance_id)

    rig.clock.advance(0.5)
    state = await rig.ended(instance_id)

    assert early == "RUNNING"
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
