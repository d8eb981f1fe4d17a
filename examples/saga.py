"""Saga: when a step fails for good, what was done before it is undone, the last first."""

from typing import Any

import dapr.ext.workflow as wf

runtime = wf.WorkflowRuntime()


@runtime.workflow(name="book_trip")
def book_trip(ctx: wf.DaprWorkflowContext, city: str) -> Any:
    booked: list[str] = []
    try:
        for what in ("flight", "hotel", "car"):
            yield ctx.call_activity(book, input={"what": what, "city": city})
            booked.append(what)
    except wf.TaskFailedError as error:
        for what in reversed(booked):
            yield ctx.call_activity(cancel, input=what)
        return f"no trip to {city}: {error.details.message}"
    return f"a trip to {city}: {', '.join(booked)}"


@runtime.activity(name="book")
def book(_ctx: wf.WorkflowActivityContext, order: dict[str, str]) -> None:
    if order["what"] == "car" and order["city"] == "Venice":
        raise ValueError("there are no cars in Venice")
    print(f"booked the {order['what']} in {order['city']}", flush=True)


@runtime.activity(name="cancel")
def cancel(_ctx: wf.WorkflowActivityContext, what: str) -> None:
    """May run more than once for one booking, as any activity; so cancelling twice must do no harm."""
    print(f"cancelled the {what}", flush=True)


if __name__ == "__main__":
    runtime.start()
    client = wf.DaprWorkflowClient()
    for city in ("Lahore", "Venice"):
        instance = client.schedule_new_workflow(book_trip, input=city)
        state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
        print(f"{state.runtime_status.name}: {state.serialized_output}", flush=True)
    runtime.shutdown()
