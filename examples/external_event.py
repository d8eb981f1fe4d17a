"""External event: wait for a person's answer, and for a limit of time. It waits through restarts."""

from datetime import timedelta
from typing import Any

import dapr.ext.workflow as wf

runtime = wf.WorkflowRuntime()


@runtime.workflow(name="approve_order")
def approve_order(ctx: wf.DaprWorkflowContext, order: dict[str, Any]) -> Any:
    yield ctx.call_activity(ask, input=order["item"])
    answer = ctx.wait_for_external_event("answer")
    too_late = ctx.create_timer(timedelta(seconds=order["patience_s"]))
    first = yield wf.when_any([answer, too_late])
    if first == too_late:
        return f"{order['item']}: nobody answered"
    return f"{order['item']}: {answer.get_result()}"


@runtime.activity(name="ask")
def ask(_ctx: wf.WorkflowActivityContext, item: str) -> None:
    print(f"may I order {item}?", flush=True)


if __name__ == "__main__":
    runtime.start()
    client = wf.DaprWorkflowClient()
    answered = client.schedule_new_workflow(approve_order, input={"item": "a desk", "patience_s": 60})
    ignored = client.schedule_new_workflow(approve_order, input={"item": "a boat", "patience_s": 1})
    client.raise_workflow_event(answered, "answer", data="approved")
    for instance in (answered, ignored):
        state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
        print(f"{state.runtime_status.name}: {state.serialized_output}", flush=True)
    runtime.shutdown()
