"""The SDK's own worker, sync client and asyncio client against the runtime, over a socket."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from dapr.ext.workflow import RetryPolicy, WorkflowStatus

from tests.unit.runtime.grpc.task_hub_rig import PATIENCE_S, TaskHubRig, until


async def fire_next_timer(hub: TaskHubRig, delay_s: float) -> None:
    """Let so much time pass once a timer is armed, and wait until its workflow has taken that."""
    await until(lambda: hub.engine.armed_timers == 1 and hub.engine.active_instances == 0)
    steps = hub.engine.commits
    hub.clock.advance(delay_s)
    await until(lambda: hub.engine.commits > steps)


def double(_ctx: Any, number: int) -> int:
    return number * 2


async def triple(_ctx: Any, number: int) -> int:
    return number * 3


def computes(ctx: Any, number: int) -> Any:
    doubled = yield ctx.call_activity("double", input=number)
    ctx.set_custom_status("doubled")
    return (yield ctx.call_activity("triple", input=doubled))


async def test_a_workflow_runs_with_the_sync_client(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[computes], activities=[double, triple])
    client = hub.sync_client()

    instance_id = await asyncio.to_thread(client.schedule_new_workflow, computes, input=7)
    state = await asyncio.to_thread(
        client.wait_for_workflow_completion, instance_id, timeout_in_seconds=PATIENCE_S, fetch_payloads=True
    )

    assert state is not None
    assert state.runtime_status is WorkflowStatus.COMPLETED
    assert state.serialized_output == "42"


async def test_a_workflow_runs_with_the_asyncio_client(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[computes], activities=[double, triple])
    client = hub.client()

    instance_id = await client.schedule_new_workflow("computes", input=7)
    state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert state.serialized_output == "42"
    assert state.serialized_custom_status == "doubled"


def waits(ctx: Any, _: Any) -> Any:
    return (yield ctx.wait_for_external_event("go"))


async def test_events_pause_resume_and_terminate_reach_a_workflow(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[waits])
    client = hub.client()
    first = await client.schedule_new_workflow("waits")
    second = await client.schedule_new_workflow("waits")

    await client.pause_workflow(first)
    paused = await client.get_workflow_state(first)
    await client.raise_workflow_event(first, "go", data="on")
    await client.resume_workflow(first)
    await client.terminate_workflow(second, output="enough")
    first_state = await client.wait_for_workflow_completion(first, timeout_in_seconds=PATIENCE_S)
    second_state = await client.wait_for_workflow_completion(second, timeout_in_seconds=PATIENCE_S)

    assert paused is not None
    assert paused.runtime_status is WorkflowStatus.SUSPENDED
    assert first_state is not None
    assert first_state.serialized_output == '"on"'
    assert second_state is not None
    assert second_state.runtime_status is WorkflowStatus.TERMINATED


def counts_down(ctx: Any, number: int) -> Any:
    yield ctx.create_timer(timedelta(seconds=10))
    if number > 1:
        ctx.continue_as_new(number - 1)
        return None
    return "landed"


async def test_timers_and_continue_as_new_work(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[counts_down])
    client = hub.client()
    instance_id = await client.schedule_new_workflow("counts_down", input=2)

    for _ in range(2):
        await fire_next_timer(hub, 10)
    state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert state.serialized_output == '"landed"'


def parent(ctx: Any, number: int) -> Any:
    return (yield ctx.call_child_workflow("computes", input=number))


async def test_child_workflows_work(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[parent, computes], activities=[double, triple])
    client = hub.client()

    instance_id = await client.schedule_new_workflow("parent", input=1)
    state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert state.serialized_output == "6"


async def test_the_retries_of_a_failing_activity_are_durable_timers(hub: TaskHubRig) -> None:
    attempts: list[int] = []

    def flaky(_ctx: Any, _: Any) -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise RuntimeError("not yet")
        return "at last"

    def tries(ctx: Any, _: Any) -> Any:
        policy = RetryPolicy(first_retry_interval=timedelta(seconds=5), max_number_of_attempts=3)
        return (yield ctx.call_activity("flaky", retry_policy=policy))

    await hub.sdk_worker(workflows=[tries], activities=[flaky])
    client = hub.client()
    instance_id = await client.schedule_new_workflow("tries")
    for delay_s in (5, 5):
        await fire_next_timer(hub, delay_s)
    state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert state.serialized_output == '"at last"'
    assert len(attempts) == 3


async def test_purge_history_list_and_rerun_work(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[computes], activities=[double, triple])
    client = hub.client()
    instance_id = await client.schedule_new_workflow("computes", input=7, instance_id="once")
    await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    history = await client.get_workflow_history("once")
    listed = [found async for found in client.iter_workflow_instance_ids()]
    again = await client.rerun_workflow_from_event("once", 1)
    rerun = await client.wait_for_workflow_completion(again, timeout_in_seconds=PATIENCE_S)
    await client.purge_workflow("once")

    assert [event.event_type.name for event in history].count("TASK_COMPLETED") == 2
    assert listed == ["once"]
    assert rerun is not None
    assert rerun.serialized_output == "42"
    assert await client.get_workflow_state("once") is None


async def test_a_second_start_of_an_active_id_is_refused(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[waits])
    client = hub.client()
    await client.schedule_new_workflow("waits", instance_id="same")

    with pytest.raises(Exception, match="already exists"):
        await client.schedule_new_workflow("waits", instance_id="same")


async def test_a_worker_goes_on_with_a_runtime_that_was_started_again(hub: TaskHubRig) -> None:
    await hub.sdk_worker(workflows=[waits])
    instance_id = await hub.client().schedule_new_workflow("waits")

    await hub.reopen()
    client = hub.client()
    async with asyncio.timeout(PATIENCE_S):
        await client.raise_workflow_event(instance_id, "go", data="still here")
    state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert state.serialized_output == '"still here"'


async def test_a_long_history_is_sent_in_parts_that_the_worker_puts_together(hub: TaskHubRig) -> None:
    def collects(ctx: Any, _: Any) -> Any:
        collected: list[int] = []
        for _i in range(20):
            collected.append((yield ctx.call_activity("double", input=len(collected))))
        return collected

    await hub.sdk_worker(workflows=[collects], activities=[double])
    client = hub.client()

    instance_id = await client.schedule_new_workflow("collects")
    state = await client.wait_for_workflow_completion(instance_id, timeout_in_seconds=PATIENCE_S)

    assert state is not None
    assert state.serialized_output == str([2 * number for number in range(20)])
