from typing import Any

import pytest
from dapr.ext.workflow import WorkflowRuntime
from grpc import StatusCode
from grpc.aio import AioRpcError

from everturn.dapr.sdk.protocol import GetInstanceRequest
from tests.unit.runtime.workflow.rig import Rig


def versioned(*versions: str, latest: str) -> WorkflowRuntime:
    """A worker that has these versions of the workflow `greet`; each returns its name after the event `go`."""
    runtime = WorkflowRuntime()
    for name in versions:

        def greet(ctx: Any, _: Any, name: str = name) -> Any:
            yield ctx.wait_for_external_event("go")
            return name

        runtime.register_versioned_workflow(greet, name="greet", version_name=name, is_latest=name == latest)
    return runtime


def patched(*patches: str) -> WorkflowRuntime:
    """A worker whose workflow `greet` asks for these patches before it waits for `go`."""
    runtime = WorkflowRuntime()

    def greet(ctx: Any, _: Any) -> Any:
        found = [ctx.is_patched(patch) for patch in patches]
        yield ctx.wait_for_external_event("go")
        return found

    runtime.register_workflow(greet, name="greet")
    return runtime


async def test_an_instance_stays_with_the_version_that_it_began_with(rig: Rig) -> None:
    await rig.open(worker=False)
    rig.engine.register("app", versioned("v1", latest="v1"))
    old = await rig.start("greet")
    await rig.reopen(worker=False)
    rig.engine.register("app", versioned("v1", "v2", latest="v2"))
    new = await rig.start("greet")

    await rig.client.raise_workflow_event(old, "go")
    await rig.client.raise_workflow_event(new, "go")

    assert (await rig.ended(old)).serialized_output == '"v1"'
    assert (await rig.ended(new)).serialized_output == '"v2"'
    answer = await rig.engine.task_hub("app").get_instance(GetInstanceRequest(instanceId=old))
    assert answer.workflowState.version.value == "v1"


async def test_a_version_that_no_worker_has_stalls_the_instance_until_one_comes(rig: Rig) -> None:
    await rig.open(worker=False)
    rig.engine.register("app", versioned("v1", latest="v1"))
    instance_id = await rig.start("greet")
    await rig.engine.unregister("app")
    rig.engine.register("app", versioned("v2", latest="v2"))
    await rig.client.raise_workflow_event(instance_id, "go")
    stalled = await rig.status(instance_id)
    await rig.reopen(worker=False)
    still = await rig.status(instance_id)

    rig.engine.register("app", versioned("v1", "v2", latest="v2"))
    state = await rig.ended(instance_id)

    assert (stalled, still) == ("STALLED", "STALLED")
    assert state.serialized_output == '"v1"'
    assert (await rig.history(instance_id)).count("EXECUTION_STALLED") == 1


async def test_a_stalled_instance_takes_no_commands(rig: Rig) -> None:
    await rig.open(worker=False)
    rig.engine.register("app", versioned("v1", latest="v1"))
    instance_id = await rig.start("greet")
    await rig.engine.unregister("app")
    rig.engine.register("app", versioned("v2", latest="v2"))
    await rig.client.raise_workflow_event(instance_id, "go")

    with pytest.raises(AioRpcError) as raised:
        await rig.client.terminate_workflow(instance_id)

    assert raised.value.code() is StatusCode.UNKNOWN
    assert "actor is stalled" in (raised.value.details() or "")


async def test_a_patch_holds_for_instances_that_began_with_it_and_not_for_older_ones(rig: Rig) -> None:
    await rig.open(worker=False)
    rig.engine.register("app", patched())
    old = await rig.start("greet")
    await rig.reopen(worker=False)
    rig.engine.register("app", patched("tea"))
    new = await rig.start("greet")
    await rig.reopen(worker=False)
    rig.engine.register("app", patched("tea"))

    await rig.client.raise_workflow_event(old, "go")
    await rig.client.raise_workflow_event(new, "go")

    assert (await rig.ended(old)).serialized_output == "[false]"
    assert (await rig.ended(new)).serialized_output == "[true]"


async def test_a_worker_without_a_recorded_patch_stalls_the_instance(rig: Rig) -> None:
    await rig.open(worker=False)
    rig.engine.register("app", patched("tea"))
    instance_id = await rig.start("greet")
    await rig.reopen(worker=False)
    rig.engine.register("app", patched())
    await rig.client.raise_workflow_event(instance_id, "go")
    stalled = await rig.status(instance_id)

    await rig.engine.unregister("app")
    rig.engine.register("app", patched("tea"))
    state = await rig.ended(instance_id)

    assert stalled == "STALLED"
    assert state.serialized_output == "[true]"
