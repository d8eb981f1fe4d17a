import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from everturn.dapr.sdk.protocol import PurgeInstancesRequest, Timestamp
from everturn.runtime.database.database import Database
from tests.unit.runtime.workflow.faulty_database import Job, T
from tests.unit.runtime.workflow.rig import PATIENCE_S, Rig, until


class SlowDatabase(Database):
    """Its writes wait until `goes_on` is set; `waiting` counts those that do."""

    waiting = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        self.waiting += 1
        await self.goes_on.wait()
        self.waiting -= 1
        return await super().write(job, committed, durable=durable)


def register(rig: Rig) -> None:
    @rig.workflow
    def echo(_ctx: Any, value: Any) -> Any:
        return value

    @rig.workflow
    def wait(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @rig.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow("echo", input=1, instance_id="kid"))

    @rig.workflow
    def waiting_parent(ctx: Any, _: Any) -> Any:
        child = ctx.call_child_workflow("wait", instance_id="kid")
        yield ctx.wait_for_external_event("leave")
        return child.is_complete


async def test_an_active_id_cannot_be_started_again(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.start("wait", instance_id="one")

    with pytest.raises(AioRpcError) as raised:
        await rig.start("wait", instance_id="one")

    assert raised.value.code() is StatusCode.ALREADY_EXISTS
    assert "an active workflow with ID 'one' already exists" in (raised.value.details() or "")


async def test_of_two_starts_at_once_one_wins(rig: Rig) -> None:
    register(rig)
    await rig.open()

    answers = await asyncio.gather(*(rig.start("wait", instance_id="one") for _ in range(5)), return_exceptions=True)

    assert sorted(type(answer) is str for answer in answers) == [False] * 4 + [True]


async def test_an_id_can_be_used_again_after_its_end(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.ended(await rig.start("echo", "first", "one"))
    await rig.reopen()

    await rig.start("echo", "second", "one")
    state = await rig.ended("one")

    assert state.serialized_output == '"second"'
    assert (await rig.history("one")).count("EXECUTION_STARTED") == 1
    assert len(rig.database.read("SELECT DISTINCT key FROM workflow_history")) == 1


async def test_a_start_without_a_worker_is_kept_until_there_is_one(rig: Rig) -> None:
    register(rig)
    await rig.open(worker=False)
    instance_id = await rig.start("echo", "kept")
    before = await rig.status(instance_id)

    await rig.reopen()
    state = await rig.ended(instance_id)

    assert before == "PENDING"
    assert rig.engine.resumed == 1
    assert state.serialized_output == '"kept"'


async def test_a_later_start_waits_for_its_time(rig: Rig) -> None:
    register(rig)
    await rig.open()
    at = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    instance_id = await rig.client.schedule_new_workflow("echo", input="later", start_at=at)
    await rig.reopen()
    rig.clock.advance(59)
    before = await rig.status(instance_id)

    rig.clock.advance(1)
    state = await rig.ended(instance_id)

    assert before == "PENDING"
    assert state.serialized_output == '"later"'
    assert rig.database.read("SELECT * FROM workflow_timers") == []


async def test_an_event_starts_a_later_start_early(rig: Rig) -> None:
    register(rig)
    await rig.open()
    at = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    instance_id = await rig.client.schedule_new_workflow("wait", start_at=at)

    await rig.client.raise_workflow_event(instance_id, "go", data=1)
    state = await rig.ended(instance_id)

    assert state.serialized_output == "1"
    assert rig.engine.armed_timers == 0


async def test_of_two_later_starts_at_once_one_is_refused(rig: Rig) -> None:
    register(rig)
    await rig.open()
    at = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    starts = (rig.client.schedule_new_workflow("wait", instance_id="one", start_at=at) for _ in range(2))

    first, second = await asyncio.gather(*starts, return_exceptions=True)

    assert first == "one"
    assert isinstance(second, AioRpcError)
    assert second.code() is StatusCode.ALREADY_EXISTS
    assert rig.engine.armed_timers == 1


async def test_an_event_raised_while_a_later_start_is_written_starts_it_early(rig: Rig) -> None:
    @rig.workflow
    def waits_twice(ctx: Any, _: Any) -> Any:
        first = yield ctx.wait_for_external_event("go")
        second = yield ctx.wait_for_external_event("go")
        return [first, second]

    await rig.open()
    at = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    starting = asyncio.ensure_future(rig.client.schedule_new_workflow("waits_twice", instance_id="one", start_at=at))
    await until(lambda: rig.engine.resident_instances == 1)

    await rig.client.raise_workflow_event("one", "go", data=1)
    await starting
    await rig.client.raise_workflow_event("one", "go", data=2)
    state = await rig.ended("one")

    assert state.serialized_output == "[1, 2]"
    assert rig.engine.armed_timers == 0


async def test_an_event_raised_while_a_start_without_a_worker_is_written_is_on_disk_soon_as_well(rig: Rig) -> None:
    register(rig)
    database = await SlowDatabase.open(rig.path)
    await rig.open(worker=False, database=database)
    database.goes_on.clear()
    starting = asyncio.ensure_future(rig.start("wait", instance_id="one"))
    await until(lambda: database.waiting == 1)
    raising = asyncio.ensure_future(rig.client.raise_workflow_event("one", "go", data=1))
    for _ in range(10):
        await asyncio.sleep(0)

    database.goes_on.set()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(starting, raising)
    await rig.reopen()
    state = await rig.ended("one")

    assert state.serialized_output == "1"


async def test_a_later_start_that_was_due_before_there_was_a_worker_waits_for_one(rig: Rig) -> None:
    register(rig)
    await rig.open(worker=False)
    at = datetime.fromtimestamp(rig.clock.now(), UTC) + timedelta(seconds=60)
    instance_id = await rig.client.schedule_new_workflow("echo", input="later", start_at=at)
    rig.clock.advance(60)
    await until(lambda: rig.engine.armed_timers == 0)
    for _ in range(10):
        await asyncio.sleep(0)

    rig.engine.register("app", rig.runtime())
    state = await rig.ended(instance_id)

    assert state.serialized_output == '"later"'


async def test_waiting_begins_before_the_workflow_exists(rig: Rig) -> None:
    register(rig)
    await rig.open()
    waiting = asyncio.ensure_future(rig.ended("unborn"))
    await asyncio.sleep(0)

    await rig.start("echo", 1, "unborn")

    assert (await waiting).serialized_output == "1"


async def test_a_wait_that_takes_too_long_is_a_timeout(rig: Rig) -> None:
    register(rig)
    await rig.open()
    instance_id = await rig.start("wait")

    with pytest.raises(TimeoutError):
        await rig.client.wait_for_workflow_completion(instance_id, timeout_in_seconds=1)


async def test_a_missing_workflow_has_no_state(rig: Rig) -> None:
    await rig.open()

    assert await rig.client.get_workflow_state("nobody") is None


async def test_a_purged_workflow_is_gone_with_its_children(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.ended(await rig.start("parent", instance_id="one"))

    await rig.client.purge_workflow("one")

    assert await rig.client.get_workflow_state("one") is None
    assert await rig.client.get_workflow_state("kid") is None
    for table in ("instances", "history", "inbox", "activities", "timers"):
        assert rig.database.read(f"SELECT * FROM workflow_{table}") == []


async def test_a_purge_that_is_not_recursive_leaves_children(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.ended(await rig.start("parent", instance_id="one"))

    await rig.client.purge_workflow("one", recursive=False)

    assert await rig.status("kid") == "COMPLETED"


async def test_a_running_workflow_is_not_purged(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.start("wait", instance_id="one")

    with pytest.raises(AioRpcError) as raised:
        await rig.client.purge_workflow("one")

    assert raised.value.code() is StatusCode.UNKNOWN
    assert "has not yet completed" in (raised.value.details() or "")
    assert await rig.status("one") == "RUNNING"


async def test_a_running_child_keeps_its_parent_from_being_purged(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.start("waiting_parent", instance_id="one")
    await until(lambda: rig.database.read("SELECT 1 FROM workflow_instances WHERE instance_id = 'kid'") != [])
    await rig.client.raise_workflow_event("one", "leave")
    await rig.ended("one")

    with pytest.raises(AioRpcError):
        await rig.client.purge_workflow("one")

    assert await rig.status("one") == "COMPLETED"


async def test_force_purges_a_running_workflow(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.start("wait", instance_id="one")

    purge = PurgeInstancesRequest(instanceId="one", force=True)
    answer = await rig.engine.task_hub("app").purge_instances(purge)

    assert answer.deletedInstanceCount == 1
    assert await rig.client.get_workflow_state("one") is None


async def test_a_purge_by_filter_takes_what_ended_in_the_time(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.ended(await rig.start("echo", 1, "old"))
    rig.clock.advance(100)
    await rig.ended(await rig.start("echo", 1, "young"))
    await rig.start("wait", instance_id="running")

    purge = PurgeInstancesRequest()
    purge.purgeInstanceFilter.createdTimeTo.CopyFrom(Timestamp(seconds=int(rig.clock.now()) - 50))
    answer = await rig.engine.task_hub("app").purge_instances(purge)

    assert answer.deletedInstanceCount == 1
    assert [found async for found in rig.client.iter_workflow_instance_ids()] == ["running", "young"]


async def test_ids_are_listed_page_by_page(rig: Rig) -> None:
    register(rig)
    await rig.open()
    names = [f"w{number}" for number in range(5)]
    for name in names:
        await rig.start("wait", instance_id=name)

    page = await rig.client.list_workflow_instance_ids(page_size=2)
    listed = [found async for found in rig.client.iter_workflow_instance_ids(page_size=2)]

    assert page.instance_ids == ["w0", "w1"]
    assert listed == names


async def test_instances_of_another_app_are_not_listed(rig: Rig) -> None:
    register(rig)
    await rig.open()
    await rig.start("wait")

    assert [found async for found in rig.engine.client("other").iter_workflow_instance_ids()] == []


async def test_the_history_of_a_missing_workflow_is_not_found(rig: Rig) -> None:
    await rig.open()

    with pytest.raises(AioRpcError) as raised:
        await rig.client.get_workflow_history("nobody")

    assert raised.value.code() is StatusCode.NOT_FOUND


async def test_the_history_is_the_same_after_a_restart(rig: Rig) -> None:
    register(rig)
    await rig.open()
    instance_id = await rig.start("parent")
    await rig.ended(instance_id)
    before = await rig.client.get_workflow_history(instance_id)

    await rig.reopen()
    after = await rig.client.get_workflow_history(instance_id)

    assert before == after
    assert [event.event_type.name for event in after] == [
        "WORKFLOW_STARTED",
        "EXECUTION_STARTED",
        "CHILD_WORKFLOW_INSTANCE_CREATED",
        "WORKFLOW_STARTED",
        "CHILD_WORKFLOW_INSTANCE_COMPLETED",
        "EXECUTION_COMPLETED",
    ]
