"""The SDK's own executor and client, run in this process: so histories and clients are those of real Dapr."""

import logging
from collections.abc import Iterable
from typing import Any

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow._durabletask.internal.shared import is_async_callable
from dapr.ext.workflow._durabletask.worker import (
    VersionNotRegisteredException,
    _ActivityExecutor,
    _OrchestrationExecutor,
    _RuntimeOrchestrationContext,
)
from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.propagation import PropagatedHistory as PropagatedHistoryView

from everturn.dapr.sdk.loggers import tame_sdk_loggers
from everturn.dapr.sdk.protocol import (
    ActivityRequest,
    HistoryEvent,
    PropagatedHistory,
    StringValue,
    WorkflowResponse,
    WorkflowVersion,
)

# The executors log each work item; a level above INFO keeps them from making most of those messages.
_log = logging.getLogger("everturn.dapr.sdk.executor")
_log.setLevel(logging.WARNING)


class Registered:
    """The workflows and activities that are registered on a `WorkflowRuntime`, ready to be run in this process.

    `registry` is the SDK's own.
    """

    def __init__(self, runtime: WorkflowRuntime) -> None:
        worker = runtime._WorkflowRuntime__worker  # noqa: SLF001 - see the package's docstring
        self.registry = worker._registry  # noqa: SLF001
        self._activities = _ActivityExecutor(_log)
        self._is_coroutine: dict[object, bool] = {}
        self.thread_count: int = worker.concurrency_options.maximum_thread_pool_workers
        tame_sdk_loggers()

    def execution(self, instance_id: str, propagated: PropagatedHistory | None = None) -> "Execution":
        """A workflow before its first event."""
        return Execution(_OrchestrationExecutor(self.registry, _log), instance_id, propagated)

    def is_coroutine_activity(self, name: str) -> bool:
        """Whether the activity must be awaited in the loop; an unknown one need not."""
        activity = self.registry.get_activity(name)
        known = self._is_coroutine.get(activity)
        if known is None:
            known = self._is_coroutine[activity] = activity is not None and bool(is_async_callable(activity))
        return known

    def run_activity(self, request: ActivityRequest) -> str | None:
        """The JSON result of a plain activity. Raises what the activity raises."""
        result: str | None = self._activities.execute(*self._activity_arguments(request))
        return result

    async def await_activity(self, request: ActivityRequest) -> str | None:
        """The JSON result of a coroutine activity. Raises what the activity raises."""
        result: str | None = await self._activities.execute_async(*self._activity_arguments(request))
        return result

    def _activity_arguments(self, request: ActivityRequest) -> tuple[Any, ...]:
        propagated = None
        if request.HasField("propagatedHistory"):
            propagated = PropagatedHistoryView.from_proto(request.propagatedHistory)
        return (
            self.registry.get_activity(request.name),
            request.workflowInstance.instanceId,
            request.name,
            request.taskId,
            request.input.value,
            request.taskExecutionId,
            propagated,
        )


class Execution:
    """A workflow between its work items: what `_OrchestrationExecutor.execute` makes again for each, kept.

    Fed the history event by event, it is in the state to which a replay of the whole history would have brought it.
    """

    def __init__(
        self, executor: _OrchestrationExecutor, instance_id: str, propagated: PropagatedHistory | None
    ) -> None:
        self._executor = executor
        self._instance_id = instance_id
        self._context = _RuntimeOrchestrationContext(instance_id)
        if propagated is not None:
            self._context.set_propagated_history(PropagatedHistoryView.from_proto(propagated))

    def take(self, past_events: Iterable[HistoryEvent], new_events: Iterable[HistoryEvent]) -> WorkflowResponse:
        """Take the events of the history that it has not had, then new ones: a work item.

        A fault of the workflow's code is an action (failed), never raised.
        """
        context, process = self._context, self._executor.process_event
        try:
            context._is_replaying = True  # noqa: SLF001 - as `execute` does
            for event in past_events:
                process(context, event)
            context._is_replaying = False  # noqa: SLF001
            for event in new_events:
                process(context, event)
        except VersionNotRegisteredException:
            context.set_version_not_registered()
        except Exception as error:  # noqa: BLE001 - the workflow's own, which fails it
            context.set_failed(error)
        status = context._encoded_custom_status  # noqa: SLF001
        name, patches = context._version_name, context._encountered_patches  # noqa: SLF001
        return WorkflowResponse(
            instanceId=self._instance_id,
            actions=context.get_actions(),
            customStatus=None if status is None else StringValue(value=status),
            version=WorkflowVersion(name=name, patches=patches) if name or patches else None,
        )


def client_over(stub: object) -> DaprWorkflowClient:
    """The SDK's asyncio client, with `stub` in the place of its gRPC stub: it never opens a channel."""
    client = DaprWorkflowClient(host="127.0.0.1", port="1")
    client._DaprWorkflowClient__obj._stub = stub  # noqa: SLF001 - see the package's docstring
    tame_sdk_loggers()
    return client
