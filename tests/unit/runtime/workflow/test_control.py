import asyncio
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from tests.unit.runtime.workflow.rig import Rig, until


def register_waiters(rig: Rig) -> None:
    @rig.workflow
    def wait(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    @rig.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow("wait", instance_id="kid"))

    @rig.workflow
    def grandparent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow("parent", instance_id="middle"))


async def test_a_suspended_workflow_holds_its_events_until_it_is_resumed(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("wait")
    await rig.client.pause_workflow(instance_id)
    await rig.client.raise_workflow_event(instance_id, "go", data=1)
    paused = await rig.status(instance_id)

    await rig.client.resume_workflow(instance_id)
    state = await rig.ended(instance_id)

    assert paused == "SUSPENDED"
    assert state.serialized_output == "1"


async def test_a_suspension_survives_a_restart(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("wait")
    await rig.client.pause_workflow(instance_id)

    await rig.reopen()

    assert await rig.status(instance_id) == "SUSPENDED"


async def test_resuming_what_is_not_suspended_does_no_harm(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("wait")

    await rig.client.resume_workflow(instance_id)

    assert await rig.status(instance_id) == "RUNNING"


async def test_a_terminated_workflow_ends_with_the_given_output(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("wait")

    await rig.client.terminate_workflow(instance_id, output="enough")
    state = await rig.ended(instance_id)

    assert state.runtime_status.name == "TERMINATED"
    assert state.serialized_output == '"enough"'


async def test_a_suspended_workflow_can_be_terminated(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("wait")
    await rig.client.pause_workflow(instance_id)

    await rig.client.terminate_workflow(instance_id)

    assert await rig.status(instance_id) == "TERMINATED"


async def test_termination_reaches_children_and_their_children(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("grandparent")
    await until(lambda: rig.database.read("SELECT 1 FROM workflow_instances WHERE instance_id = 'kid'") != [])

    await rig.client.terminate_workflow(instance_id)
    middle, kid = await rig.ended("middle"), await rig.ended("kid")

    assert (middle.runtime_status.name, kid.runtime_status.name) == ("TERMINATED", "TERMINATED")


async def test_termination_that_is_not_recursive_leaves_children(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("parent")
    await until(lambda: rig.database.read("SELECT 1 FROM workflow_instances WHERE instance_id = 'kid'") != [])

    await rig.client.terminate_workflow(instance_id, recursive=False)

    assert await rig.status("kid") == "RUNNING"


async def test_pausing_waits_for_a_worker(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open(worker=False)
    instance_id = await rig.start("wait")
    pause = asyncio.ensure_future(rig.client.pause_workflow(instance_id))
    await until(lambda: len(rig.database.read("SELECT 1 FROM workflow_inbox")) == 2)
    waiting = not pause.done()

    rig.engine.register("app", rig.runtime())
    await pause

    assert waiting
    assert await rig.status(instance_id) == "SUSPENDED"


async def test_a_suspension_that_comes_with_the_start_schedules_nothing_twice(rig: Rig) -> None:
    noted: list[int] = []

    @rig.activity
    def note(_ctx: Any, number: int) -> None:
        noted.append(number)

    @rig.workflow
    def noting(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("note", input=1)
        yield ctx.call_activity("note", input=2)

    await rig.open(worker=False)
    instance_id = await rig.start("noting")
    pause = asyncio.ensure_future(rig.client.pause_workflow(instance_id))
    await until(lambda: len(rig.database.read("SELECT 1 FROM workflow_inbox")) == 2)
    rig.engine.register("app", rig.runtime())
    await pause
    await until(lambda: noted != [] and rig.database.read("SELECT 1 FROM workflow_activities") == [])

    await rig.client.resume_workflow(instance_id)
    state = await rig.ended(instance_id)

    assert state.runtime_status.name == "COMPLETED"
    assert noted == [1, 2]


@pytest.mark.parametrize("call", ["raise", "pause", "resume", "terminate", "purge"])
async def test_commands_to_a_missing_workflow_are_unknown(rig: Rig, call: str) -> None:
    await rig.open()
    commands = {
        "raise": lambda: rig.client.raise_workflow_event("nobody", "go"),
        "pause": lambda: rig.client.pause_workflow("nobody"),
        "resume": lambda: rig.client.resume_workflow("nobody"),
        "terminate": lambda: rig.client.terminate_workflow("nobody"),
        "purge": lambda: rig.client.purge_workflow("nobody"),
    }

    with pytest.raises(AioRpcError) as raised:
        await commands[call]()

    assert raised.value.code() is StatusCode.UNKNOWN
    assert "no such instance exists" in (raised.value.details() or "")


async def test_commands_to_an_ended_workflow_have_no_effect(rig: Rig) -> None:
    register_waiters(rig)
    await rig.open()
    instance_id = await rig.start("wait")
    await rig.client.raise_workflow_event(instance_id, "go", data=1)
    await rig.ended(instance_id)

    await rig.client.pause_workflow(instance_id)
    await rig.client.resume_workflow(instance_id)
    await rig.client.terminate_workflow(instance_id)

    assert await rig.status(instance_id) == "COMPLETED"


async def test_the_custom_status_is_shown_and_cleared(rig: Rig) -> None:
    @rig.workflow
    def tells(ctx: Any, _: Any) -> Any:
        ctx.set_custom_status("half way")
        yield ctx.wait_for_external_event("go")
        ctx.set_custom_status(None)
        yield ctx.wait_for_external_event("end")

    await rig.open()
    instance_id = await rig.start("tells")
    await rig.reopen()
    first = await rig.client.get_workflow_state(instance_id)

    await rig.client.raise_workflow_event(instance_id, "go")
    second = await rig.client.get_workflow_state(instance_id)

    assert first is not None
    assert second is not None
    assert (first.serialized_custom_status, second.serialized_custom_status) == ("half way", None)
