"""What we change in the SDK's threaded worker."""

import logging
from collections.abc import Generator
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime
from dapr.ext.workflow._durabletask import worker as sdk_worker
from dapr.ext.workflow._durabletask.internal.history_events_pb2 import HistoryEvent

from everturn.sidecar.sdk_worker import pass_over_needless_resumes


def test_a_workflow_that_is_resumed_without_being_suspended_goes_on() -> None:
    def waits(ctx: DaprWorkflowContext, _: Any) -> Generator[Any, Any, Any]:
        return (yield ctx.wait_for_external_event("go"))

    runtime = WorkflowRuntime()
    runtime.register_workflow(waits, name="waits")
    registry = getattr(runtime, "_WorkflowRuntime__worker")._registry  # noqa: B009 - mypy knows no private names
    started, resumed, raised = HistoryEvent(eventId=-1), HistoryEvent(eventId=-1), HistoryEvent(eventId=-1)
    started.executionStarted.name = "waits"
    resumed.executionResumed.SetInParent()
    raised.eventRaised.name = "go"
    raised.eventRaised.input.value = '"now"'

    pass_over_needless_resumes()
    executor = sdk_worker._OrchestrationExecutor(registry, logging.getLogger("test"))
    result = executor.execute("one", [started], [resumed, raised])

    assert [
        action.completeWorkflow.result.value for action in result.actions if action.HasField("completeWorkflow")
    ] == ['"now"']
