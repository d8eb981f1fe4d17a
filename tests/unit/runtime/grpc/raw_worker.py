"""A worker by hand: one stream of work items, read one by one, answered as the test says."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.sdk.protocol import (
    ActivityResponse,
    CompleteTaskResponse,
    GetWorkItemsRequest,
    StringValue,
    TaskFailureDetails,
    WorkflowAction,
    WorkflowResponse,
    WorkItem,
)

_PATIENCE_S = 30


class RawWorker:
    def __init__(self, channel: grpc.aio.Channel, capabilities: Sequence[int]) -> None:
        self._channel = channel
        open_stream = channel.unary_stream(
            "/TaskHubSidecarService/GetWorkItems", request_serializer=_encode, response_deserializer=WorkItem.FromString
        )
        self._stream: Any = open_stream(GetWorkItemsRequest(capabilities=[cast("Any", item) for item in capabilities]))

    async def next(self) -> WorkItem:
        async with asyncio.timeout(_PATIENCE_S):
            item = await self._stream.read()
        assert isinstance(item, WorkItem)
        return item

    async def leave(self) -> None:
        """Break the stream, as a worker that dies does."""
        self._stream.cancel()

    async def call(self, method: str, request: Any) -> Any:
        """A call of the service that answers with nothing of interest."""
        answers = Empty if method == "Hello" else CompleteTaskResponse
        call = self._channel.unary_unary(
            f"/TaskHubSidecarService/{method}", request_serializer=_encode, response_deserializer=answers.FromString
        )
        return await call(request, timeout=_PATIENCE_S)

    async def answer_turn(self, item: WorkItem, *actions: WorkflowAction, token: str | None = None) -> None:
        """`token`: another than the item's."""
        response = WorkflowResponse(
            instanceId=item.workflowRequest.instanceId,
            actions=actions,
            completionToken=item.completionToken if token is None else token,
        )
        await self.call("CompleteOrchestratorTask", response)

    async def answer_activity(self, item: WorkItem, result: str, *, token: str | None = None) -> None:
        response = ActivityResponse(
            instanceId=item.activityRequest.workflowInstance.instanceId,
            taskId=item.activityRequest.taskId,
            result=StringValue(value=result),
            completionToken=item.completionToken if token is None else token,
        )
        await self.call("CompleteActivityTask", response)

    async def fail_activity(self, item: WorkItem, message: str) -> None:
        response = ActivityResponse(
            instanceId=item.activityRequest.workflowInstance.instanceId,
            taskId=item.activityRequest.taskId,
            failureDetails=TaskFailureDetails(errorType="Trouble", errorMessage=message),
            completionToken=item.completionToken,
        )
        await self.call("CompleteActivityTask", response)


def _encode(message: Any) -> bytes:
    return bytes(message.SerializeToString())
