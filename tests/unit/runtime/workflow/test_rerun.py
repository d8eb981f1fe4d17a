from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from tests.unit.runtime.workflow.rig import Rig


def register(rig: Rig, calls: list[Any]) -> None:
    @rig.activity
    async def step(_ctx: Any, value: Any) -> Any:
        calls.append(value)
        return value

    @rig.workflow
    def three(ctx: Any, _: Any) -> Any:
        first = yield ctx.call_activity("step", input=1)
        second = yield ctx.call_activity("step", input=2)
        third = yield ctx.call_activity("step", input=3)
        return [first, second, third]

    @rig.workflow
    def child(ctx: Any, value: Any) -> Any:
        return (yield ctx.call_activity("step", input=value))

    @rig.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow("child", input="kid"))


async def event_id(rig: Rig, instance_id: str, kind: str, number: int = 0) -> int:
    events = await rig.client.get_workflow_history(instance_id)
    return int([event.event_id for event in events if event.event_type.name == kind][number])


async def test_a_rerun_begins_at_the_event_and_keeps_what_came_before(rig: Rig) -> None:
    calls: list[Any] = []
    register(rig, calls)
    await rig.open()
    await rig.ended(await rig.start("three", instance_id="source"))
    second = await event_id(rig, "source", "TASK_SCHEDULED", 1)

    new_id = await rig.client.rerun_workflow_from_event("source", second, new_instance_id="again")
    state = await rig.ended(new_id)

    assert new_id == "again"
    assert calls == [1, 2, 3, 2, 3]
    assert state.serialized_output == "[1, 2, 3]"


async def test_a_rerun_can_give_the_event_another_input(rig: Rig) -> None:
    calls: list[Any] = []
    register(rig, calls)
    await rig.open()
    await rig.ended(await rig.start("three", instance_id="source"))
    second = await event_id(rig, "source", "TASK_SCHEDULED", 1)

    new_id = await rig.client.rerun_workflow_from_event("source", second, input=20)
    state = await rig.ended(new_id)

    assert state.serialized_output == "[1, 20, 3]"
    assert (await rig.ended("source")).serialized_output == "[1, 2, 3]"


async def test_a_rerun_of_a_child_gets_a_new_child(rig: Rig) -> None:
    calls: list[Any] = []
    register(rig, calls)
    await rig.open()
    await rig.ended(await rig.start("parent", instance_id="source"))
    created = await event_id(rig, "source", "CHILD_WORKFLOW_INSTANCE_CREATED")

    await rig.client.rerun_workflow_from_event("source", created, new_instance_id="again")
    state = await rig.ended("again")

    assert state.serialized_output == '"kid"'
    assert [found async for found in rig.client.iter_workflow_instance_ids()] == [
        "again",
        "again:0001",
        "source",
        "source:0001",
    ]


async def test_an_unfinished_rerun_survives_a_restart(rig: Rig) -> None:
    calls: list[Any] = []
    register(rig, calls)
    await rig.open()
    await rig.ended(await rig.start("three", instance_id="source"))
    third = await event_id(rig, "source", "TASK_SCHEDULED", 2)
    await rig.engine.unregister("app")
    await rig.client.rerun_workflow_from_event("source", third, new_instance_id="again")

    await rig.reopen()
    state = await rig.ended("again")

    assert state.serialized_output == "[1, 2, 3]"
    assert calls == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("source", "event", "new_id", "code"),
    [
        ("nobody", 1, "again", StatusCode.NOT_FOUND),
        ("source", 99, "again", StatusCode.NOT_FOUND),
        ("source:0001", 1, "again", StatusCode.INVALID_ARGUMENT),
        ("source", 1, "source", StatusCode.INVALID_ARGUMENT),
        ("source", 1, "source:0001", StatusCode.ALREADY_EXISTS),
    ],
)
async def test_what_cannot_be_rerun_is_refused(
    rig: Rig, source: str, event: int, new_id: str, code: StatusCode
) -> None:
    register(rig, [])
    await rig.open()
    await rig.ended(await rig.start("parent", instance_id="source"))

    with pytest.raises(AioRpcError) as raised:
        await rig.client.rerun_workflow_from_event(source, event, new_instance_id=new_id)

    assert raised.value.code() is code


async def test_a_running_workflow_cannot_be_rerun(rig: Rig) -> None:
    @rig.workflow
    def wait(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")

    await rig.open()
    instance_id = await rig.start("wait")

    with pytest.raises(AioRpcError) as raised:
        await rig.client.rerun_workflow_from_event(instance_id, 1)

    assert raised.value.code() is StatusCode.INVALID_ARGUMENT
