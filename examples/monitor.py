"""Monitor: look, wait, look again, for as long as it takes. Each look is a new run with a short history."""

from datetime import timedelta
from typing import Any

import dapr.ext.workflow as wf

runtime = wf.WorkflowRuntime()


@runtime.workflow(name="watch_parcel")
def watch_parcel(ctx: wf.DaprWorkflowContext, looks: int) -> Any:
    place = yield ctx.call_activity(look, input=looks)
    ctx.set_custom_status(place)
    if place == "at your door":
        return f"delivered, after {looks + 1} looks"
    yield ctx.create_timer(timedelta(seconds=1))
    ctx.continue_as_new(looks + 1)
    return None


@runtime.activity(name="look")
def look(_ctx: wf.WorkflowActivityContext, looks: int) -> str:
    """Where the parcel is; a real one would ask the carrier."""
    place = ["in the depot", "on the road", "at your door"][looks]
    print(f"the parcel is {place}", flush=True)
    return place


if __name__ == "__main__":
    runtime.start()
    client = wf.DaprWorkflowClient()
    instance = client.schedule_new_workflow(watch_parcel, input=0)
    state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
    print(f"{state.runtime_status.name}: {state.serialized_output}", flush=True)
    runtime.shutdown()
