"""The SDK's asyncio clients."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dapr.aio.clients import DaprClient
from dapr.ext.workflow.aio import DaprWorkflowClient
from tools.dapr.layout import HOST

from tests.conformance.sdk.app import PATIENCE_S
from tests.conformance.sdk.program import Program

T = TypeVar("T")


def with_workflows(program: Program, use: "Callable[[DaprWorkflowClient], Awaitable[T]]") -> T:
    async def run() -> T:
        return await use(DaprWorkflowClient(HOST, str(program.sidecar.grpc_port)))

    return asyncio.run(run())


def test_a_workflow_from_its_start_to_its_purge(program: Program) -> None:
    @program.workflow
    def waits(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    async def use(client: DaprWorkflowClient) -> list[Any]:
        instance = await client.schedule_new_workflow(waits, instance_id=program.named("one"))
        await client.pause_workflow(instance)
        paused = await client.get_workflow_state(instance)
        await client.resume_workflow(instance)
        await client.raise_workflow_event(instance, "go", data=1)
        ended = await client.wait_for_workflow_completion(instance, timeout_in_seconds=int(PATIENCE_S))
        events = await client.get_workflow_history(instance)
        await client.purge_workflow(instance)
        return [paused, ended, len(events), await client.get_workflow_state(instance)]

    paused, ended, events, purged = with_workflows(program, use)

    assert (paused.runtime_status.name, ended.serialized_output, purged) == ("SUSPENDED", "1", None)
    assert events > 4


def test_many_workflows_at_once(program: Program) -> None:
    @program.activity
    async def double(_ctx: Any, number: int) -> int:
        return number * 2

    @program.workflow
    def doubled(ctx: Any, number: int) -> Any:
        return (yield ctx.call_activity(double, input=number))

    async def use(client: DaprWorkflowClient) -> list[str]:
        ids = await asyncio.gather(*(client.schedule_new_workflow(doubled, input=number) for number in range(20)))
        ended = await asyncio.gather(
            *(client.wait_for_workflow_completion(each, timeout_in_seconds=int(PATIENCE_S)) for each in ids)
        )
        return [state.serialized_output for state in ended]

    assert with_workflows(program, use) == [str(number * 2) for number in range(20)]


def test_state_and_metadata(program: Program) -> None:
    async def use() -> tuple[bytes, str]:
        async with DaprClient(program.sidecar.grpc_address) as client:
            await client.save_state("statestore", program.named("k"), "value")
            found = await client.get_state("statestore", program.named("k"))
            metadata = await client.get_metadata()
            return found.data, metadata.application_id

    assert asyncio.run(use()) == (b"value", program.sidecar.app_id)
