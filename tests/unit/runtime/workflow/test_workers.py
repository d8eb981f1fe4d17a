import asyncio
import threading
from typing import Any

import pytest

from everturn.dapr.sdk.protocol import ActivityRequest, ActivityResponse, WorkflowResponse
from everturn.errors import TransientError
from everturn.runtime.workflow.worker import LocalWorker, WorkflowRequest
from tests.unit.runtime.workflow.rig import Rig, until


def works(ctx: Any, _: Any) -> Any:
    return (yield ctx.call_activity("work"))


async def test_an_activity_may_finish_while_its_worker_is_taken_away(rig: Rig) -> None:
    gate = asyncio.Event()
    runs: list[int] = []

    @rig.activity
    async def work(_ctx: Any, _: Any) -> str:
        runs.append(1)
        await gate.wait()
        return "finished"

    rig.workflow(works)
    await rig.open()
    instance_id = await rig.start("works")
    await until(lambda: len(runs) == 1)
    leaving = asyncio.ensure_future(rig.engine.unregister("app", limit_s=20))
    await asyncio.sleep(0)
    gate.set()
    await leaving
    between = await rig.status(instance_id)

    rig.engine.register("app", rig.runtime())
    state = await rig.ended(instance_id)

    assert between == "RUNNING"
    assert state.serialized_output == '"finished"'
    assert len(runs) == 1


async def test_an_activity_that_is_not_done_at_the_limit_runs_again(rig: Rig) -> None:
    never = asyncio.Event()
    runs: list[int] = []

    @rig.activity
    async def work(_ctx: Any, _: Any) -> str:
        runs.append(1)
        if len(runs) == 1:
            await never.wait()
        return "second time"

    rig.workflow(works)
    await rig.open()
    instance_id = await rig.start("works")
    await until(lambda: len(runs) == 1)

    await rig.reopen()
    state = await rig.ended(instance_id)

    assert state.serialized_output == '"second time"'
    assert len(runs) == 2


async def test_a_graceful_stop_keeps_what_an_activity_came_to(rig: Rig) -> None:
    gate, entered = threading.Event(), threading.Event()
    runs: list[int] = []

    @rig.activity
    def work(_ctx: Any, _: Any) -> str:
        runs.append(1)
        entered.set()
        gate.wait()
        return "kept"

    rig.workflow(works)
    await rig.open()
    instance_id = await rig.start("works")
    await asyncio.to_thread(entered.wait)
    stopping = asyncio.ensure_future(rig.engine.stop(limit_s=20))
    await asyncio.sleep(0)
    gate.set()
    await stopping
    await rig.database.close()

    await rig.open()
    state = await rig.ended(instance_id)

    assert state.serialized_output == '"kept"'
    assert len(runs) == 1


async def test_who_waits_when_the_engine_stops_is_told(rig: Rig) -> None:
    @rig.workflow
    def waits(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")

    await rig.open()
    waiting = asyncio.ensure_future(rig.ended(await rig.start("waits")))
    await asyncio.sleep(0)

    await rig.engine.stop(limit_s=0)

    with pytest.raises(Exception, match="stopping"):
        await waiting


async def test_an_app_has_one_worker(rig: Rig) -> None:
    await rig.open()

    with pytest.raises(ValueError, match="has a worker already"):
        rig.engine.register("app", rig.runtime())


class LosingWorker(LocalWorker):
    """Loses its first turn and its first activity, as a broken stream does."""

    lost_turns = 0
    lost_activities = 0

    async def run_workflow(self, request: WorkflowRequest) -> WorkflowResponse:
        if self.lost_turns == 0:
            self.lost_turns = 1
            raise TransientError("the stream broke", kind="worker_lost")
        return await super().run_workflow(request)

    async def run_activity(self, request: ActivityRequest) -> ActivityResponse:
        if self.lost_activities == 0:
            self.lost_activities = 1
            raise TransientError("the stream broke", kind="worker_lost")
        return await super().run_activity(request)


async def test_a_turn_and_an_activity_that_a_worker_lost_are_sent_out_again(rig: Rig) -> None:
    @rig.activity
    async def work(_ctx: Any, _: Any) -> str:
        return "worked"

    @rig.workflow
    def works(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")
        return (yield ctx.call_activity("work"))

    await rig.open()
    instance_id = await rig.start("works")
    await rig.client.raise_workflow_event(instance_id, "other")
    await rig.engine.unregister("app")
    await rig.client.raise_workflow_event(instance_id, "go")

    rig.engine.register("app", worker := LosingWorker(rig.runtime()))
    state = await rig.ended(instance_id)

    assert (worker.lost_turns, worker.lost_activities) == (1, 1)
    assert state.serialized_output == '"worked"'


class StumblingWorker(LocalWorker):
    """Has a bug that strikes once, in the second turn of the instance `bad`."""

    turns = 0

    async def run_workflow(self, request: WorkflowRequest) -> WorkflowResponse:
        if request.instance_id == "bad":
            self.turns += 1
            if self.turns == 2:
                raise ZeroDivisionError
        return await super().run_workflow(request)


async def test_a_fault_in_a_step_stops_no_other_instance_and_the_step_is_tried_again(rig: Rig) -> None:
    @rig.activity
    async def work(_ctx: Any, _: Any) -> str:
        return "worked"

    rig.workflow(works)
    await rig.open(worker=False)
    rig.engine.register("app", StumblingWorker(rig.runtime()))

    ids = [await rig.start("works", instance_id=name) for name in ("bad", "good")]
    outputs = [(await rig.ended(instance_id)).serialized_output for instance_id in ids]

    assert outputs == ['"worked"', '"worked"']


async def test_a_workflow_that_nobody_registered_fails(rig: Rig) -> None:
    await rig.open()

    state = await rig.run("nobody")

    assert state.runtime_status.name == "FAILED"
    assert "nobody" in state.failure_details.message
