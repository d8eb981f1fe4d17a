import asyncio
import threading
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import RetryPolicy, when_all, when_any

from tests.unit.runtime.workflow.rig import Rig, until


async def test_a_workflow_gets_the_results_of_its_activities(rig: Rig) -> None:
    @rig.activity
    async def add(_ctx: Any, numbers: list[int]) -> int:
        return sum(numbers)

    @rig.workflow
    def sums(ctx: Any, first: int) -> Any:
        second = yield ctx.call_activity("add", input=[first, 2])
        third = yield ctx.call_activity("add", input=[second, 3])
        return third

    await rig.open()

    state = await rig.run("sums", 1)

    assert state.runtime_status.name == "COMPLETED"
    assert state.serialized_output == "6"
    assert state.serialized_input == "1"


async def test_coroutine_activities_run_in_the_loop_and_others_in_threads(rig: Rig) -> None:
    @rig.activity
    async def here(_ctx: Any, _: Any) -> bool:
        return threading.current_thread() is threading.main_thread() and asyncio.get_running_loop() is loop

    @rig.activity
    def elsewhere(_ctx: Any, _: Any) -> bool:
        return threading.current_thread() is not threading.main_thread()

    @rig.workflow
    def both(ctx: Any, _: Any) -> Any:
        return (yield when_all([ctx.call_activity("here"), ctx.call_activity("elsewhere")]))

    loop = asyncio.get_running_loop()
    await rig.open()

    state = await rig.run("both")

    assert state.serialized_output == "[true, true]"


async def test_activities_of_one_workflow_run_side_by_side(rig: Rig) -> None:
    barrier = asyncio.Barrier(3)

    @rig.activity
    async def meet(_ctx: Any, number: int) -> int:
        await barrier.wait()
        return number

    @rig.workflow
    def fan_out(ctx: Any, _: Any) -> Any:
        return (yield when_all([ctx.call_activity("meet", input=number) for number in range(3)]))

    await rig.open()

    state = await rig.run("fan_out")

    assert state.serialized_output == "[0, 1, 2]"


async def test_when_any_goes_on_with_the_first(rig: Rig) -> None:
    never = asyncio.Event()

    @rig.activity
    async def fast(_ctx: Any, _: Any) -> str:
        return "fast"

    @rig.activity
    async def slow(_ctx: Any, _: Any) -> None:
        await never.wait()

    @rig.workflow
    def race(ctx: Any, _: Any) -> Any:
        winner = yield when_any([ctx.call_activity("slow"), ctx.call_activity("fast")])
        return winner.get_result()

    await rig.open()

    state = await rig.run("race")

    assert state.serialized_output == '"fast"'


async def test_a_failed_activity_fails_its_workflow_and_tells_why(rig: Rig) -> None:
    @rig.activity
    async def fail(_ctx: Any, _: Any) -> None:
        raise LookupError("no such key")

    @rig.workflow
    def failing(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("fail")

    await rig.open()

    state = await rig.run("failing")

    assert state.runtime_status.name == "FAILED"
    assert "no such key" in state.failure_details.message


async def test_a_retry_waits_for_its_durable_timer(rig: Rig) -> None:
    attempts: list[float] = []

    @rig.activity
    async def flaky(_ctx: Any, _: Any) -> str:
        attempts.append(rig.clock.now())
        if len(attempts) < 3:
            raise ConnectionError
        return "at last"

    @rig.workflow
    def patient(ctx: Any, _: Any) -> Any:
        policy = RetryPolicy(
            first_retry_interval=timedelta(seconds=10), max_number_of_attempts=5, backoff_coefficient=2
        )
        return (yield ctx.call_activity("flaky", retry_policy=policy))

    await rig.open()
    instance_id = await rig.start("patient")
    await until(lambda: rig.engine.armed_timers == 1)
    rig.clock.advance(10)
    await until(lambda: len(attempts) == 2 and rig.engine.armed_timers == 1)
    rig.clock.advance(19)
    waited_for = rig.clock.next_alarm_in_s

    rig.clock.advance(1)
    state = await rig.ended(instance_id)

    assert waited_for == 1
    assert state.serialized_output == '"at last"'


async def test_an_activity_that_lets_a_cancellation_through_fails(rig: Rig) -> None:
    @rig.activity
    async def cancelled(_ctx: Any, _: Any) -> None:
        raise asyncio.CancelledError

    @rig.workflow
    def calls_it(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("cancelled")

    await rig.open()

    state = await rig.run("calls_it")

    assert state.runtime_status.name == "FAILED"


async def test_an_unknown_activity_fails_its_workflow(rig: Rig) -> None:
    @rig.workflow
    def calls_nobody(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("nobody")

    await rig.open()

    state = await rig.run("calls_nobody")

    assert state.failure_details.error_type == "ActivityNotRegisteredError" or "nobody" in state.failure_details.message


async def test_an_activity_of_another_app_runs_there(rig: Rig) -> None:
    @rig.activity
    async def where(_ctx: Any, _: Any) -> str:
        return "there"

    @rig.workflow
    def calls_over(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_activity("where", app_id="other"))

    await rig.open(worker=False)
    there = rig.runtime()
    rig.activities.clear()
    here = rig.runtime()
    rig.engine.register("app", here)
    instance_id = await rig.start("calls_over")
    before = await rig.status(instance_id)

    rig.engine.register("other", there)
    state = await rig.ended(instance_id)

    assert before == "RUNNING"
    assert state.serialized_output == '"there"'
