"""Child workflows: a workflow that starts others and waits for them; each has an id and a history of its own."""

from typing import Any

import dapr.ext.workflow as wf

runtime = wf.WorkflowRuntime()


@runtime.workflow(name="ship_order")
def ship_order(ctx: wf.DaprWorkflowContext, items: list[str]) -> Any:
    children = [
        ctx.call_child_workflow(ship_item, input=item, instance_id=f"{ctx.instance_id}-{number}")
        for number, item in enumerate(items, start=1)
    ]
    return (yield wf.when_all(children))


@runtime.workflow(name="ship_item")
def ship_item(ctx: wf.DaprWorkflowContext, item: str) -> Any:
    packed = yield ctx.call_activity(pack, input=item)
    return (yield ctx.call_activity(send, input=packed))


@runtime.activity(name="pack")
def pack(_ctx: wf.WorkflowActivityContext, item: str) -> str:
    print(f"packing {item}", flush=True)
    return f"a box with {item}"


@runtime.activity(name="send")
def send(_ctx: wf.WorkflowActivityContext, box: str) -> str:
    print(f"sending {box}", flush=True)
    return f"sent {box}"


if __name__ == "__main__":
    runtime.start()
    client = wf.DaprWorkflowClient()
    instance = client.schedule_new_workflow(ship_order, input=["a lamp", "two chairs"])
    state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
    print(f"{state.runtime_status.name}: {state.serialized_output}", flush=True)
    for number in (1, 2):
        child = client.get_workflow_state(f"{instance}-{number}")
        print(f"child {number} {child.runtime_status.name}: {child.serialized_output}", flush=True)
    runtime.shutdown()
