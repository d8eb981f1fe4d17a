import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from everturn.dapr.sdk import protocol as pb
from everturn.runtime.workflow.rpc import PURGE, RERUN, RpcFault
from tests.unit.runtime.workflow.faulty_database import FaultyDatabase, Job, T
from tests.unit.runtime.workflow.rig import PATIENCE_S, Rig, until


def register(rig: Rig, gate: asyncio.Event, calls: list[str]) -> None:
    @rig.activity
    async def work(_ctx: Any, _: Any) -> str:
        calls.append("work")
        await gate.wait()
        return "worked"

    @rig.workflow
    def works(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_activity("work"))

    @rig.workflow
    def waits(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))


async def test_a_step_that_a_full_disk_refused_is_taken_once_there_is_room(rig: Rig) -> None:
    gate, calls = asyncio.Event(), list[str]()
    register(rig, gate, calls)
    database = await FaultyDatabase.create(rig.path)
    await rig.open(database=database)
    instance_id = await rig.start("works")
    database.full = True
    gate.set()
    await until(lambda: database.refused >= 2)
    meanwhile = await rig.status(instance_id)

    database.full = False
    state = await rig.ended(instance_id)

    assert meanwhile == "RUNNING"
    assert state.serialized_output == '"worked"'
    assert calls == ["work"]


async def test_a_start_on_a_full_disk_is_refused_and_leaves_nothing(rig: Rig) -> None:
    register(rig, asyncio.Event(), [])
    database = await FaultyDatabase.create(rig.path)
    await rig.open(database=database)
    database.full = True

    with pytest.raises(AioRpcError) as raised:
        await rig.start("waits", instance_id="one")
    database.full = False

    assert raised.value.code() is StatusCode.UNAVAILABLE
    assert await rig.client.get_workflow_state("one") is None
    assert await rig.start("waits", instance_id="one") == "one"


async def test_a_purge_by_force_that_a_full_disk_refused_leaves_the_workflow_its_timers(rig: Rig) -> None:
    @rig.workflow
    def sleeps(ctx: Any, _: Any) -> Any:
        yield ctx.create_timer(timedelta(seconds=60))
        return "awake"

    database = await FaultyDatabase.create(rig.path)
    await rig.open(database=database)
    instance_id = await rig.start("sleeps")
    later = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    later_id = await rig.client.schedule_new_workflow("sleeps", start_at=later)
    database.full = True
    for each in (instance_id, later_id):
        with pytest.raises(RpcFault):
            await rig.engine.hub("app").call(PURGE, pb.PurgeInstancesRequest(instanceId=each, force=True))
    database.full = False

    rig.clock.advance(60)
    state = await rig.ended(instance_id)
    await until(lambda: rig.engine.armed_timers == 1)
    rig.clock.advance(60)

    assert state.serialized_output == '"awake"'
    assert (await rig.ended(later_id)).serialized_output == '"awake"'


class FullAfterOneWrite(FaultyDatabase):
    """Once `fills_up` is set, it takes one more write."""

    fills_up = False

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        written = await super().write(job, committed, durable=durable)
        if self.fills_up:
            self.full, self.fills_up = True, False
        return written


class SlowlyFullDatabase(FaultyDatabase):
    """Takes its time to refuse a write: until `refuses` is set."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.refuses = asyncio.Event()

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        if self.full:
            await self.refuses.wait()
        return await super().write(job, committed, durable=durable)


async def slowly_full(rig: Rig) -> SlowlyFullDatabase:
    """The database of `rig`, which is opened with it."""
    database = await SlowlyFullDatabase.create(rig.path)
    assert isinstance(database, SlowlyFullDatabase)
    await rig.open(database=database)
    return database


async def test_an_event_for_an_instance_that_a_full_disk_refused_is_refused_with_it(rig: Rig) -> None:
    register(rig, asyncio.Event(), [])
    database = await slowly_full(rig)
    database.full = True
    starting = asyncio.ensure_future(rig.start("waits", instance_id="one"))
    await until(lambda: rig.engine.active_instances == 1)
    await asyncio.sleep(0)
    raising = asyncio.ensure_future(rig.client.raise_workflow_event("one", "go", data=1))
    await asyncio.sleep(0)
    database.refuses.set()

    with pytest.raises(AioRpcError) as start_refused:
        await starting
    database.full = False
    again = await rig.start("waits", instance_id="one")
    with pytest.raises(AioRpcError) as event_refused:
        await raising

    assert start_refused.value.code() is event_refused.value.code() is StatusCode.UNAVAILABLE
    assert again == "one"


async def test_an_event_for_a_rerun_that_a_full_disk_refused_is_refused_with_it(rig: Rig) -> None:
    gate = asyncio.Event()
    register(rig, gate, [])
    gate.set()
    database = await slowly_full(rig)
    source = await rig.start("works")
    await rig.ended(source)
    database.full = True
    wanted = pb.RerunWorkflowFromEventRequest(sourceInstanceID=source, eventID=1, newInstanceID="again")
    rerunning = asyncio.ensure_future(rig.engine.hub("app").call(RERUN, wanted))
    await until(lambda: rig.engine.active_instances == 1)
    raising = asyncio.ensure_future(rig.client.raise_workflow_event("again", "go", data=1))
    await asyncio.sleep(0)
    database.refuses.set()

    with pytest.raises(RpcFault) as rerun_refused:
        await rerunning
    with pytest.raises(AioRpcError) as event_refused:
        async with asyncio.timeout(PATIENCE_S):
            await raising

    assert rerun_refused.value.code is event_refused.value.code() is StatusCode.UNAVAILABLE


async def test_a_start_that_the_end_of_the_runtime_cut_off_is_refused_and_holds_up_no_other(rig: Rig) -> None:
    register(rig, asyncio.Event(), [])
    database = await slowly_full(rig)
    database.full = True
    starting = asyncio.ensure_future(rig.start("waits", instance_id="one"))
    await until(lambda: rig.engine.active_instances == 1)
    await asyncio.sleep(0)
    await rig.engine.stop(limit_s=0)
    database.full = False

    with pytest.raises(AioRpcError) as refused:
        await starting
    again = await rig.start("waits", instance_id="one")

    assert refused.value.code() is StatusCode.UNAVAILABLE
    assert again == "one"


async def test_an_event_that_a_full_disk_refused_has_not_moved_the_workflow_and_can_be_raised_again(rig: Rig) -> None:
    @rig.workflow
    def waits_twice(ctx: Any, _: Any) -> Any:
        first = yield ctx.wait_for_external_event("go")
        second = yield ctx.wait_for_external_event("go")
        return [first, second]

    database = await FaultyDatabase.create(rig.path)
    await rig.open(database=database)
    instance_id = await rig.start("waits_twice")
    database.full = True
    with pytest.raises(AioRpcError):
        await rig.client.raise_workflow_event(instance_id, "go", data=1)
    database.full = False

    await rig.client.raise_workflow_event(instance_id, "go", data=2)
    await rig.client.raise_workflow_event(instance_id, "go", data=3)

    assert (await rig.ended(instance_id)).serialized_output == "[2, 3]"


@pytest.mark.parametrize("is_reloaded", [False, True])
async def test_a_later_start_whose_early_event_a_full_disk_refused_is_for_its_time_again(
    rig: Rig, is_reloaded: bool
) -> None:
    gate = asyncio.Event()
    register(rig, gate, [])
    database = await FaultyDatabase.create(rig.path)
    await rig.open(database=database)
    at = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    instance_id = await rig.client.schedule_new_workflow("waits", start_at=at)
    if is_reloaded:
        await rig.close()
        database = await FaultyDatabase.create(rig.path)
        await rig.open(database=database)
    other = await rig.start("works")
    database.full = True
    with pytest.raises(AioRpcError):
        await rig.client.raise_workflow_event(instance_id, "go", data=1)
    refused = database.refused
    gate.set()
    await until(lambda: database.refused > refused)
    database.full = False

    await rig.ended(other)  # which was refused later, so it is tried again later
    before = await rig.status(instance_id)
    rig.clock.advance(60)
    await until(lambda: rig.engine.armed_timers == 0)
    await rig.client.raise_workflow_event(instance_id, "go", data=2)
    state = await rig.ended(instance_id)

    assert before == "PENDING"
    assert state.serialized_output == "2"


async def test_a_fault_in_one_instance_does_not_stop_the_others(rig: Rig) -> None:
    register(rig, asyncio.Event(), [])
    await rig.open()
    broken = await rig.start("waits")
    key = rig.database.read("SELECT key FROM workflow_instances WHERE instance_id = ?", (broken,))[0][0]
    other = await rig.start("waits")
    await rig.close()
    await rig.open(worker=False)
    await rig.database.write(
        lambda cursor: cursor.execute("UPDATE workflow_history SET events = x'0aff' WHERE key = ?", (key,)) and None
    )
    rig.engine.register("app", rig.runtime())

    with pytest.raises(Exception, match="parsing"):
        await rig.client.raise_workflow_event(broken, "go", data=1)
    await rig.client.raise_workflow_event(other, "go", data=2)

    assert (await rig.ended(other)).serialized_output == "2"


async def test_an_instance_that_is_to_be_tried_again_stays_in_memory_however_many_others_are_asked_for(
    rig: Rig,
) -> None:
    register(rig, asyncio.Event(), [])

    @rig.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow("waits", instance_id="child"))

    database = await FullAfterOneWrite.create(rig.path)
    assert isinstance(database, FullAfterOneWrite)
    await rig.open(database=database)
    others = [await rig.start("waits") for _ in range(70)]
    await rig.start("parent", instance_id="parent")
    await until(lambda: rig.engine.active_instances == 0)
    database.fills_up = True
    await rig.client.raise_workflow_event("child", "go", data=1)
    await until(lambda: database.refused > 0)
    for other in others:
        await rig.status(other)
    meanwhile = await rig.status("parent")

    database.full = False
    state = await rig.ended("parent")

    assert meanwhile == "RUNNING"
    assert state.serialized_output == "1"
    assert await rig.status("parent") == "COMPLETED"
