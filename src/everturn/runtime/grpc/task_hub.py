"""`TaskHubSidecarService` over gRPC: the table of its calls. Decisions are made behind it."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.sdk.protocol import (
    ActivityResponse,
    CompleteTaskResponse,
    GetWorkItemsRequest,
    WorkflowResponse,
    WorkItem,
)
from everturn.runtime.grpc.remote_worker import RemoteWorker
from everturn.runtime.grpc.server import streaming, unary
from everturn.runtime.workflow.rpc import PURGE, RERUN, RPCS, START, Hub

_SERVICE = "TaskHubSidecarService"
# What they do is done to its end, also if the caller goes away.
_SHIELDED = frozenset({START, PURGE, RERUN})


def task_hub_handlers(
    hub: Hub, worker: RemoteWorker, on_connect: Callable[[], None]
) -> "grpc.GenericRpcHandler[Any, Any]":
    """The whole service over `hub` and `worker`; `on_connect` is called when a worker has connected."""
    calls = _WorkerCalls(worker, on_connect)
    handlers = {
        "Hello": unary(calls.hello, Empty),
        "GetWorkItems": streaming(calls.get_work_items, GetWorkItemsRequest),
        "CompleteOrchestratorTask": unary(calls.complete_workflow, WorkflowResponse),
        "CompleteWorkflowTask": unary(calls.complete_workflow, WorkflowResponse),
        "CompleteActivityTask": unary(calls.complete_activity, ActivityResponse),
        **{rpc.name: unary(partial(hub.call, rpc), rpc.request, shielded=rpc in _SHIELDED) for rpc in RPCS},
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
