"""`TaskHubSidecarService` over gRPC: the table of its calls. Decisions are made behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from everturn.runtime.grpc_call import streaming, unary
from everturn.runtime.grpc_worker import RemoteWorker
from everturn.runtime.sdk import (
    ActivityResponse,
    CompleteTaskResponse,
    CreateInstanceRequest,
    GetInstanceHistoryRequest,
    GetInstanceRequest,
    GetWorkItemsRequest,
    ListInstanceIDsRequest,
    PurgeInstancesRequest,
    RaiseEventRequest,
    RerunWorkflowFromEventRequest,
    ResumeRequest,
    SuspendRequest,
    TerminateRequest,
    WorkflowResponse,
    WorkItem,
)
from everturn.runtime.task_hub import TaskHub

_SERVICE = "TaskHubSidecarService"


def task_hub_handlers(
    hub: TaskHub, worker: RemoteWorker, on_connect: Callable[[], None]
) -> "grpc.GenericRpcHandler[Any, Any]":
    """The whole service over `hub` and `worker`; `on_connect` is called when a worker has come."""
    calls = _WorkerCalls(worker, on_connect)
    handlers = {
        "Hello": unary(calls.hello, Empty),
        "GetWorkItems": streaming(calls.get_work_items, GetWorkItemsRequest),
        "CompleteOrchestratorTask": unary(calls.complete_workflow, WorkflowResponse),
        "CompleteWorkflowTask": unary(calls.complete_workflow, WorkflowResponse),
        "CompleteActivityTask": unary(calls.complete_activity, ActivityResponse),
        "StartInstance": unary(hub.start_instance, CreateInstanceRequest, whole=True),
        "GetInstance": unary(hub.get_instance, GetInstanceRequest),
        "WaitForInstanceStart": unary(hub.wait_for_instance_start, GetInstanceRequest),
        "WaitForInstanceCompletion": unary(hub.wait_for_instance_completion, GetInstanceRequest),
        "RaiseEvent": unary(hub.raise_event, RaiseEventRequest),
        "TerminateInstance": unary(hub.terminate_instance, TerminateRequest),
        "SuspendInstance": unary(hub.suspend_instance, SuspendRequest),
        "ResumeInstance": unary(hub.resume_instance, ResumeRequest),
        "PurgeInstances": unary(hub.purge_instances, PurgeInstancesRequest, whole=True),
        "ListInstanceIDs": unary(hub.list_instance_ids, ListInstanceIDsRequest),
        "GetInstanceHistory": unary(hub.get_instance_history, GetInstanceHistoryRequest),
        "RerunWorkflowFromEvent": unary(hub.rerun_workflow_from_event, RerunWorkflowFromEventRequest, whole=True),
    }
    return grpc.method_handlers_generic_handler(_SERVICE, handlers)


class _WorkerCalls:
    """What workers call."""

    def __init__(self, worker: RemoteWorker, on_connect: Callable[[], None]) -> None:
        self._worker = worker
        self._on_connect = on_connect

    async def hello(self, _request: Empty) -> Empty:
        return Empty()

    async def get_work_items(self, request: GetWorkItemsRequest) -> AsyncIterator[WorkItem]:
        stream = self._worker.connect(request.capabilities)
        self._on_connect()
        try:
            async with aclosing(stream.items()) as items:
                async for item in items:
                    yield item
        finally:
            self._worker.disconnect(stream)

    async def complete_workflow(self, response: WorkflowResponse) -> CompleteTaskResponse:
        """OK also for an answer to nothing."""
        self._worker.complete_workflow(response)
        return CompleteTaskResponse()

    async def complete_activity(self, response: ActivityResponse) -> CompleteTaskResponse:
        """OK also for an answer to nothing."""
        self._worker.complete_activity(response)
        return CompleteTaskResponse()
