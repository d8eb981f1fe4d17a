"""What we change in the SDK's threaded worker."""

import logging
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime

from everturn.dapr.sdk.execution import Registered
from everturn.dapr.sdk.protocol import HistoryEvent
from everturn.dapr.sdk.worker_thread import SuspendableExecutor

Replay = Callable[[list[HistoryEvent], list[HistoryEvent]], list[Any]]


def worker_of(workflow: Any) -> Replay:
    """What our worker decides in a turn of `workflow`, of past and new events."""
    runtime = WorkflowRuntime()
    runtime.register_workflow(workflow, name=workflow.__name__)

    def replay(past: list[HistoryEvent], new: list[HistoryEvent]) -> list[Any]:
        executor = SuspendableExecutor(Registered(runtime).registry, logging.getLogger("test"))
        return list(executor.execute("one", past, new).actions)

    return replay


def event(kind: str, **fields: Any) -> HistoryEvent:
    """A history event; `id` is its own."""
    made = HistoryEvent(eventId=fields.pop("id", -1))
    getattr(made, kind).SetInParent()
    for name, value in fields.items():
        setattr(getattr(made, kind), name, value)
    return made


def results(actions: list[Any]) -> list[str]:
    return [action.completeWorkflow.result.value for action in actions if action.HasField("completeWorkflow")]


def test_a_workflow_that_is_resumed_without_being_suspended_goes_on() -> None:
    def waits(ctx: DaprWorkflowContext, _: Any) -> Generator[Any, Any, Any]:
        yield ctx.wait_for_external_event("go")
        return "gone"

    started, raised = event("executionStarted", name="waits"), event("eventRaised", name="go")

    actions = worker_of(waits)([started], [event("executionResumed"), raised])

    assert results(actions) == ['"gone"']


def test_what_a_workflow_decided_as_it_was_suspended_is_decided_once() -> None:
    def steps(ctx: DaprWorkflowContext, _: Any) -> Generator[Any, Any, Any]:
        yield ctx.call_activity("first")
        yield ctx.call_activity("second")
        yield ctx.create_timer(timedelta(hours=1))

    history = [event("executionStarted", name="steps"), event("taskScheduled", id=1, name="first")]
    history += [event("taskCompleted", taskScheduledId=1), event("executionSuspended")]
    history += [event("taskScheduled", id=2, name="second")]
    done = event("taskCompleted", taskScheduledId=2)
    replay = worker_of(steps)

    while_suspended = replay(history, [done])
    resumed = replay([*history, done], [event("executionResumed")])

    assert while_suspended == []
    assert [(action.id, action.WhichOneof("workflowActionType")) for action in resumed] == [(3, "createTimer")]


def test_a_suspended_workflow_takes_in_nothing_else() -> None:
    def waits(ctx: DaprWorkflowContext, _: Any) -> Generator[Any, Any, Any]:
        yield ctx.call_activity("step")
        return "gone"

    history = [event("executionStarted", name="waits"), event("taskScheduled", id=1, name="step")]
    history.append(event("executionSuspended"))
    done = event("taskCompleted", taskScheduledId=1)
    replay = worker_of(waits)

    held = replay(history, [done])
    resumed = replay([*history, done], [event("executionResumed")])

    assert held == []
    assert results(resumed) == ['"gone"']
