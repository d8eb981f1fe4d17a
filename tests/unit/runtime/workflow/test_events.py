from datetime import timedelta
from typing import Any

from tests.unit.runtime.workflow.rig import Rig


def register_waiter(rig: Rig) -> None:
    @rig.workflow
    def wait(ctx: Any, timeout_s: float | None) -> Any:
        timeout = None if timeout_s is None else timedelta(seconds=timeout_s)
        try:
            return (yield ctx.wait_for_external_event("approval", timeout=timeout))
        except TimeoutError:
            return "timed out"


async def test_an_event_reaches_the_workflow_that_waits_for_it(rig: Rig) -> None:
    register_waiter(rig)
    await rig.open()
    instance_id = await rig.start("wait")

    await rig.client.raise_workflow_event(instance_id, "approval", data={"by": "ada"})
    state = await rig.ended(instance_id)

    assert state.serialized_output == '{"by": "ada"}'


async def test_event_names_are_compared_without_case(rig: Rig) -> None:
    register_waiter(rig)
    await rig.open()
    instance_id = await rig.start("wait", 60)

    await rig.client.raise_workflow_event(instance_id, "APPROVAL", data=1)
    state = await rig.ended(instance_id)

    assert state.serialized_output == "1"


async def test_a_wait_forever_arms_no_timer(rig: Rig) -> None:
    register_waiter(rig)
    await rig.open()

    instance_id = await rig.start("wait")

    assert "TIMER_CREATED" in await rig.history(instance_id)
    assert rig.engine.armed_timers == 0


async def test_a_wait_that_times_out_says_so(rig: Rig) -> None:
    register_waiter(rig)
    await rig.open()
    instance_id = await rig.start("wait", 60)

    rig.clock.advance(60)
    state = await rig.ended(instance_id)

    assert state.serialized_output == '"timed out"'


async def test_an_event_cancels_the_oldest_timer_of_its_name(rig: Rig) -> None:
    @rig.workflow
    def wait_twice(ctx: Any, _: Any) -> Any:
        first = ctx.wait_for_external_event("approval", timeout=timedelta(seconds=60))
        second = ctx.wait_for_external_event("Approval", timeout=timedelta(seconds=90))
        return [(yield first), (yield second)]

    await rig.open()
    instance_id = await rig.start("wait_twice")
    armed_before = rig.engine.armed_timers

    await rig.client.raise_workflow_event(instance_id, "approval", data=1)
    armed_after, next_in_s = rig.engine.armed_timers, rig.clock.next_alarm_in_s
    await rig.client.raise_workflow_event(instance_id, "approval", data=2)
    state = await rig.ended(instance_id)

    assert (armed_before, armed_after) == (2, 1)
    assert next_in_s == 90
    assert state.serialized_output == "[1, 2]"


async def test_events_that_come_before_they_are_waited_for_are_kept_in_order(rig: Rig) -> None:
    @rig.activity
    async def nothing(_ctx: Any, _: Any) -> None:
        pass

    @rig.workflow
    def late(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")
        first = yield ctx.wait_for_external_event("item")
        second = yield ctx.wait_for_external_event("item")
        third = yield ctx.wait_for_external_event("item")
        return [first, second, third]

    await rig.open()
    instance_id = await rig.start("late")
    for number in (1, 2, 3):
        await rig.client.raise_workflow_event(instance_id, "item", data=number)

    await rig.client.raise_workflow_event(instance_id, "go")
    state = await rig.ended(instance_id)

    assert state.serialized_output == "[1, 2, 3]"


async def test_an_acknowledged_event_survives_a_crash_without_a_worker(rig: Rig) -> None:
    register_waiter(rig)
    await rig.open(worker=False)
    instance_id = await rig.start("wait")
    await rig.client.raise_workflow_event(instance_id, "approval", data="kept")

    await rig.reopen()
    state = await rig.ended(instance_id)

    assert state.serialized_output == '"kept"'
    assert rig.database.read("SELECT * FROM workflow_inbox") == []


async def test_an_event_for_an_ended_workflow_has_no_effect(rig: Rig) -> None:
    @rig.workflow
    def short(_ctx: Any, _: Any) -> Any:
        return "done"

    await rig.open()
    instance_id = await rig.start("short")

    await rig.client.raise_workflow_event(instance_id, "late")

    assert "EVENT_RAISED" not in await rig.history(instance_id)
