"""The only module that touches private names of the Dapr workflow SDK (dapr 1.19.0, pinned in pyproject.toml).

The embedded engine replays workflows with the SDK's own executor and speaks its protobuf messages, so that histories
and clients are those of real Dapr. `tests/contract/test_sdk_private_names.py` says what broke when the SDK changes.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from dapr.ext.workflow import WorkflowRuntime
from dapr.ext.workflow._durabletask.internal.helpers import (
    OPTIONAL_TIMER_FIRE_AT,
    new_complete_workflow_action,
    new_failure_details,
)
from dapr.ext.workflow._durabletask.internal.history_events_pb2 import (
    ChildWorkflowInstanceCompletedEvent,
    ChildWorkflowInstanceCreatedEvent,
    ChildWorkflowInstanceFailedEvent,
    DetachedWorkflowInstanceCreatedEvent,
    EventRaisedEvent,
    EventSentEvent,
    ExecutionCompletedEvent,
    ExecutionResumedEvent,
    ExecutionStalledEvent,
    ExecutionStartedEvent,
    ExecutionSuspendedEvent,
    ExecutionTerminatedEvent,
    HistoryEvent,
    PropagatedHistory,
    PropagatedHistoryChunk,
    TaskCompletedEvent,
    TaskFailedEvent,
    TaskScheduledEvent,
    TimerCreatedEvent,
    TimerFiredEvent,
    TimerOriginExternalEvent,
    WorkflowStartedEvent,
)
from dapr.ext.workflow._durabletask.internal.orchestration_pb2 import (
    HISTORY_PROPAGATION_SCOPE_LINEAGE,
    HISTORY_PROPAGATION_SCOPE_NONE,
    PATCH_MISMATCH,
    PAYLOAD_SIZE_EXCEEDED,
    VERSION_NOT_AVAILABLE,
    HistoryPropagationScope,
    OrchestrationStatus,
    ParentInstanceInfo,
    RerunParentInstanceInfo,
    TaskFailureDetails,
    TaskRouter,
    WorkflowInstance,
    WorkflowState,
    WorkflowVersion,
)
from dapr.ext.workflow._durabletask.internal.orchestrator_actions_pb2 import (
    CompleteWorkflowAction,
    CreateChildWorkflowAction,
    CreateTimerAction,
    ScheduleTaskAction,
    WorkflowAction,
)
from dapr.ext.workflow._durabletask.internal.orchestrator_service_pb2 import (
    WORKER_CAPABILITY_HEALTH_PING,
    WORKER_CAPABILITY_STATEFUL_HISTORY,
    ActivityRequest,
    ActivityResponse,
    CachedHistory,
    CompleteTaskResponse,
    CreateInstanceRequest,
    CreateInstanceResponse,
    GetInstanceHistoryRequest,
    GetInstanceHistoryResponse,
    GetInstanceRequest,
    GetInstanceResponse,
    GetWorkItemsRequest,
    HealthPing,
    ListInstanceIDsRequest,
    ListInstanceIDsResponse,
    PurgeInstancesRequest,
    PurgeInstancesResponse,
    RaiseEventRequest,
    RaiseEventResponse,
    RerunWorkflowFromEventRequest,
    RerunWorkflowFromEventResponse,
    ResumeRequest,
    ResumeResponse,
    SuspendRequest,
    SuspendResponse,
    TerminateRequest,
    TerminateResponse,
    WorkflowResponse,
    WorkItem,
)
from dapr.ext.workflow._durabletask.internal.orchestrator_service_pb2 import WorkflowRequest as WorkflowWork
from dapr.ext.workflow._durabletask.internal.shared import is_async_callable
from dapr.ext.workflow._durabletask.task import TaskFailedError
from dapr.ext.workflow._durabletask.worker import (
    VersionNotRegisteredException,
    _ActivityExecutor,
    _OrchestrationExecutor,
    _RuntimeOrchestrationContext,
)
from dapr.ext.workflow.aio import DaprWorkflowClient
from dapr.ext.workflow.propagation import PropagatedHistory as PropagatedHistoryView
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BoolValue, StringValue

from everturn.sidecar.sdk_logging import tame_sdk_loggers

# The executors log each turn; a level above INFO keeps them from making most of those messages.
_log = logging.getLogger("everturn.runtime.sdk.executor")
_log.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Replay:
    """What a workflow did with its new events: the worker's answer to a turn, as `WorkflowResponse` carries it.

    `patches` names every patch that the replay met, in order and with repeats. `too_large`, where not None, says why
    the turn could not be sent to a worker at all.
    """

    actions: Sequence[WorkflowAction]
    custom_status: str | None = None
    version: str | None = None
    patches: Sequence[str] = ()
    too_large: str | None = None


class Registered:
    """The workflows and activities that are registered on a `WorkflowRuntime`, ready to be run in this process."""

    def __init__(self, runtime: WorkflowRuntime) -> None:
        worker = runtime._WorkflowRuntime__worker  # noqa: SLF001 - see the module's docstring
        self._registry = worker._registry  # noqa: SLF001
        self._activities = _ActivityExecutor(_log)
        self.thread_count: int = worker.concurrency_options.maximum_thread_pool_workers
        tame_sdk_loggers()

    def execution(self, instance_id: str, propagated: PropagatedHistory | None = None) -> "Execution":
        """A workflow before its first event."""
        return Execution(_OrchestrationExecutor(self._registry, _log), instance_id, propagated)

    def is_coroutine_activity(self, name: str) -> bool:
        """Whether the activity must be awaited in the loop; an unknown one need not."""
        activity = self._registry.get_activity(name)
        return activity is not None and bool(is_async_callable(activity))

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
            self._registry.get_activity(request.name),
            request.workflowInstance.instanceId,
            request.name,
            request.taskId,
            request.input.value,
            request.taskExecutionId,
            propagated,
        )


class Execution:
    """A workflow between its turns: what `_OrchestrationExecutor.execute` makes anew for every turn, kept.

    Fed the history event by event, it stands where a replay of the whole history would have brought it.
    """

    def __init__(
        self, executor: _OrchestrationExecutor, instance_id: str, propagated: PropagatedHistory | None
    ) -> None:
        self._executor = executor
        self._context = _RuntimeOrchestrationContext(instance_id)
        if propagated is not None:
            self._context.set_propagated_history(PropagatedHistoryView.from_proto(propagated))

    def take(self, past_events: Iterable[HistoryEvent], new_events: Iterable[HistoryEvent]) -> Replay:
        """Take the events of the history that it has not had, then new ones: a turn.

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
        return Replay(
            context.get_actions(),
            context._encoded_custom_status,  # noqa: SLF001
            context._version_name,  # noqa: SLF001
            tuple(context._encountered_patches),  # noqa: SLF001
        )


def status_value(status: int) -> "OrchestrationStatus.ValueType":
    """A status as protobuf messages take it."""
    return cast("OrchestrationStatus.ValueType", int(status))


def scope_value(scope: int) -> "HistoryPropagationScope.ValueType":
    """A scope as protobuf messages take it."""
    return cast("HistoryPropagationScope.ValueType", int(scope))


def client_over(stub: object) -> DaprWorkflowClient:
    """The SDK's asyncio client, with `stub` in the place of its gRPC stub: it never opens a channel."""
    client = DaprWorkflowClient(host="127.0.0.1", port="1")
    client._DaprWorkflowClient__obj._stub = stub  # noqa: SLF001 - see the module's docstring
    tame_sdk_loggers()
    return client


__all__ = [
    "HISTORY_PROPAGATION_SCOPE_LINEAGE",
    "HISTORY_PROPAGATION_SCOPE_NONE",
    "OPTIONAL_TIMER_FIRE_AT",
    "PATCH_MISMATCH",
    "PAYLOAD_SIZE_EXCEEDED",
    "VERSION_NOT_AVAILABLE",
    "WORKER_CAPABILITY_HEALTH_PING",
    "WORKER_CAPABILITY_STATEFUL_HISTORY",
    "ActivityRequest",
    "ActivityResponse",
    "BoolValue",
    "CachedHistory",
    "ChildWorkflowInstanceCompletedEvent",
    "ChildWorkflowInstanceCreatedEvent",
    "ChildWorkflowInstanceFailedEvent",
    "CompleteTaskResponse",
    "CompleteWorkflowAction",
    "CreateChildWorkflowAction",
    "CreateInstanceRequest",
    "CreateInstanceResponse",
    "CreateTimerAction",
    "DaprWorkflowClient",
    "DetachedWorkflowInstanceCreatedEvent",
    "EventRaisedEvent",
    "EventSentEvent",
    "Execution",
    "ExecutionCompletedEvent",
    "ExecutionResumedEvent",
    "ExecutionStalledEvent",
    "ExecutionStartedEvent",
    "ExecutionSuspendedEvent",
    "ExecutionTerminatedEvent",
    "GetInstanceHistoryRequest",
    "GetInstanceHistoryResponse",
    "GetInstanceRequest",
    "GetInstanceResponse",
    "GetWorkItemsRequest",
    "HealthPing",
    "HistoryEvent",
    "ListInstanceIDsRequest",
    "ListInstanceIDsResponse",
    "ParentInstanceInfo",
    "PropagatedHistory",
    "PropagatedHistoryChunk",
    "PurgeInstancesRequest",
    "PurgeInstancesResponse",
    "RaiseEventRequest",
    "RaiseEventResponse",
    "Registered",
    "Replay",
    "RerunParentInstanceInfo",
    "RerunWorkflowFromEventRequest",
    "RerunWorkflowFromEventResponse",
    "ResumeRequest",
    "ResumeResponse",
    "ScheduleTaskAction",
    "StringValue",
    "SuspendRequest",
    "SuspendResponse",
    "TaskCompletedEvent",
    "TaskFailedError",
    "TaskFailedEvent",
    "TaskFailureDetails",
    "TaskRouter",
    "TaskScheduledEvent",
    "TerminateRequest",
    "TerminateResponse",
    "TimerCreatedEvent",
    "TimerFiredEvent",
    "TimerOriginExternalEvent",
    "Timestamp",
    "WorkItem",
    "WorkflowAction",
    "WorkflowInstance",
    "WorkflowResponse",
    "WorkflowRuntime",
    "WorkflowStartedEvent",
    "WorkflowState",
    "WorkflowVersion",
    "WorkflowWork",
    "client_over",
    "new_complete_workflow_action",
    "new_failure_details",
    "scope_value",
    "status_value",
]
