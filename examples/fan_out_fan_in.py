"""Fan-out and fan-in: many activities at once, and one that puts their results together."""

from typing import Any

import dapr.ext.workflow as wf

runtime = wf.WorkflowRuntime()


@runtime.workflow(name="count_words")
def count_words(ctx: wf.DaprWorkflowContext, pages: list[str]) -> Any:
    counts = yield wf.when_all([ctx.call_activity(count, input=page) for page in pages])
    return (yield ctx.call_activity(add_up, input=counts))


@runtime.activity(name="count")
def count(_ctx: wf.WorkflowActivityContext, page: str) -> int:
    print(f"counting {page!r}", flush=True)
    return len(page.split())


@runtime.activity(name="add_up")
def add_up(_ctx: wf.WorkflowActivityContext, counts: list[int]) -> int:
    print(f"adding up {counts}", flush=True)
    return sum(counts)


if __name__ == "__main__":
    runtime.start()
    client = wf.DaprWorkflowClient()
    instance = client.schedule_new_workflow(count_words, input=["one two three", "four five", "six"])
    state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
    print(f"{state.runtime_status.name}: {state.serialized_output} words", flush=True)
    runtime.shutdown()
