"""Chaining: steps one after the other, each with the result of the one before."""

from datetime import timedelta
from typing import Any

import dapr.ext.workflow as wf

runtime = wf.WorkflowRuntime()
PATIENTLY = wf.RetryPolicy(first_retry_interval=timedelta(seconds=1), max_number_of_attempts=5, backoff_coefficient=2)


@runtime.workflow(name="publish_article")
def publish_article(ctx: wf.DaprWorkflowContext, title: str) -> Any:
    draft = yield ctx.call_activity(write, input=title, retry_policy=PATIENTLY)
    checked = yield ctx.call_activity(check, input=draft, retry_policy=PATIENTLY)
    return (yield ctx.call_activity(publish, input=checked, retry_policy=PATIENTLY))


@runtime.activity(name="write")
def write(_ctx: wf.WorkflowActivityContext, title: str) -> str:
    print(f"writing about {title}", flush=True)
    return f"{title}: teh story"


@runtime.activity(name="check")
def check(_ctx: wf.WorkflowActivityContext, draft: str) -> str:
    print(f"checking {draft!r}", flush=True)
    return draft.replace("teh", "the")


@runtime.activity(name="publish")
def publish(_ctx: wf.WorkflowActivityContext, text: str) -> str:
    print(f"publishing {text!r}", flush=True)
    return f"published {text!r}"


if __name__ == "__main__":
    runtime.start()
    client = wf.DaprWorkflowClient()
    instance = client.schedule_new_workflow(publish_article, input="sidecars")
    state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
    print(f"{state.runtime_status.name}: {state.serialized_output}", flush=True)
    runtime.shutdown()
