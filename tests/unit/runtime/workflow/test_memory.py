import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import WorkflowRuntime, when_all

from everturn.dapr.sdk.execution import Registered
from everturn.dapr.sdk.protocol import WorkflowResponse
from everturn.runtime.workflow.worker import LocalWorker, WorkflowRequest
from tests.unit.runtime.workflow.rig import Rig, until


async def test_histories_that_nobody_works_on_take_a_bounded_place(rig: Rig) -> None:
    @rig.workflow
    def bulky(ctx: Any, text: str) -> Any:
        yield ctx.wait_for_external_event("go")
        return len(text)

    await rig.open()
    ids = [await rig.start("bulky", "x" * 1_000_000) for _ in range(30)]
    in_memory = rig.engine.resident_instances

    for instance_id in ids:
        await rig.client.raise_workflow_event(instance_id, "go")
    outputs = {(await rig.ended(instance_id)).serialized_output for instance_id in ids}

    assert 1 <= in_memory <= 9
    assert outputs == {"1000000"}


async def test_of_workflows_that_ended_only_the_last_stay_in_memory_and_all_can_be_asked_for(rig: Rig) -> None:
    @rig.workflow
    def brief(_ctx: Any, number: int) -> Any:
        yield from ()
        return number

    await rig.open()
    ids = [await rig.start("brief", number) for number in range(200)]
    outputs = [(await rig.ended(instance_id)).serialized_output for instance_id in ids]

    in_memory = rig.engine.resident_instances

    assert in_memory <= 64
    assert outputs == [str(number) for number in range(200)]


async def test_of_workflows_that_wait_for_time_only_the_last_stay_in_memory_and_all_go_on(rig: Rig) -> None:
    @rig.workflow
    def patient(ctx: Any, number: int) -> Any:
        yield ctx.create_timer(timedelta(hours=1))
        return number

    await rig.open()
    ids = [await rig.start("patient", number) for number in range(200)]
    in_memory = rig.engine.resident_instances

    rig.clock.advance(3_600)
    outputs = [(await rig.ended(instance_id)).serialized_output for instance_id in ids]

    assert in_memory <= 64
    assert outputs == [str(number) for number in range(200)]


async def test_many_small_events_count_with_what_they_take_in_memory(rig: Rig) -> None:
    @rig.workflow
    def expectant(ctx: Any, timers: int) -> Any:
        yield when_all([ctx.create_timer(timedelta(days=1)) for _ in range(timers)])
        return "over"

    await rig.open()
    ids = [await rig.start("expectant", 500) for _ in range(24)]
    in_memory = rig.engine.resident_instances

    rig.clock.advance(86_400)
    outputs = {(await rig.ended(instance_id)).serialized_output for instance_id in ids}

    assert 1 <= in_memory <= 17
    assert outputs == {'"over"'}


class DoubtingWorker(LocalWorker):
    """Replays every turn from its whole history too, and compares."""

    def __init__(self, runtime: WorkflowRuntime) -> None:
        super().__init__(runtime)
        self._cold = Registered(runtime)
        self.turns: Counter[str] = Counter()

    async def run_workflow(self, request: WorkflowRequest) -> WorkflowResponse:
        warm = await super().run_workflow(request)
        cold = self._cold.execution(request.instance_id).take(request.past_events, request.new_events)
        assert warm == cold
        self.turns[request.instance_id] += 1
        return warm


async def test_a_workflow_that_was_kept_warm_does_what_a_replay_does(rig: Rig) -> None:
    @rig.activity
    async def step(_ctx: Any, value: Any) -> Any:
        return value

    @rig.workflow
    def long(ctx: Any, generation: int) -> Any:
        ctx.set_custom_status(f"generation {generation}")
        first = yield ctx.call_activity("step", input=str(ctx.new_guid()))
        yield when_all([ctx.call_activity("step", input=number) for number in range(3)])
        yield ctx.create_timer(timedelta(seconds=5))
        patched = ctx.is_patched("tea")
        yield ctx.wait_for_external_event("go", timeout=timedelta(seconds=50))
        now = ctx.current_utc_datetime.isoformat()
        last = yield ctx.call_activity("step", input=[first, patched, now])
        if generation == 0:
            ctx.continue_as_new(1)
            return None
        return last

    await rig.open(worker=False)
    worker = DoubtingWorker(rig.runtime())
    rig.engine.register("app", worker)
    instance_id = await rig.start("long", 0)

    for _ in range(2):
        await until(lambda: rig.clock.next_alarm_in_s == 5)
        rig.clock.advance(5)
        await until(lambda: rig.clock.next_alarm_in_s == 50)
        await rig.client.pause_workflow(instance_id)
        await rig.client.raise_workflow_event(instance_id, "go")
        await rig.client.resume_workflow(instance_id)
    state = await rig.ended(instance_id)

    assert state.runtime_status.name == "COMPLETED", state.failure_details
    assert worker.turns[instance_id] > 10


async def test_what_waits_for_a_worker_is_taken_up_as_others_are_done(rig: Rig) -> None:
    @rig.workflow
    def brief(ctx: Any, number: int) -> Any:
        return (yield ctx.call_activity("double", input=number))

    @rig.activity
    async def double(_ctx: Any, number: int) -> int:
        return 2 * number

    await rig.open(worker=False)
    for number in range(300):
        await rig.start("brief", number)
    most, commits = 0, rig.engine.commits

    rig.engine.register("app", rig.runtime())
    while rig.engine.commits < commits + 600:
        most = max(most, rig.engine.active_instances)
        await asyncio.sleep(0)

    assert most <= 150
