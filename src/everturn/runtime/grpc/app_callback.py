"""An app that speaks gRPC: Dapr's `AppCallback`, behind the `Transport` by which the runtime reaches every app.

https://docs.dapr.io/reference/api/service_invocation_api/ and dapr/proto/runtime/v1/appcallback.proto
"""

import json
from collections.abc import Mapping
from typing import Any

import grpc
from dapr.proto.common.v1.common_pb2 import HTTPExtension, InvokeRequest
from dapr.proto.runtime.v1.appcallback_pb2 import ListTopicSubscriptionsResponse
from dapr.proto.runtime.v1.appcallback_pb2_grpc import AppCallbackStub
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from everturn.dapr.wire import Request, Response
from everturn.errors import TransientError
from everturn.runtime.grpc.dapr_service import CODE_OF_STATUS
from everturn.runtime.grpc.topics import topic_event, verdict_response
from everturn.runtime.pubsub.deliveries import TOPIC_HEADER

# As over HTTP: longer than what really bounds a call.
_TIMEOUT_S = 300.0
_JSON = {"content-type": "application/json"}
_STATUS_OF_CODE = {code: status for status, code in CODE_OF_STATUS.items() if status != 400} | {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
}
# Headers that belong to HTTP or to gRPC itself.
_NO_METADATA = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "te", TOPIC_HEADER}
)


class GrpcAppTransport:
    """Turns what the runtime asks of an app into calls of `AppCallback` at `address` (host:port)."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self._app: Any = AppCallbackStub(self._channel)

    async def send(self, request: Request) -> Response:
        asks = request.target == "/dapr/subscribe"
        invokes = not asks and "dapr-caller-app-id" in request.headers
        try:
            if asks:
                return await self._subscriptions(request)
            return await (self._invoke(request) if invokes else self._deliver(request))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED and not invokes:
                return Response(404)  # the app subscribes to nothing, and takes no messages, now or later
            return _failed(error)

    async def close(self) -> None:
        await self._channel.close(None)

    async def _subscriptions(self, request: Request) -> Response:
        """In the form in which apps say it over HTTP."""
        said = await self._app.ListTopicSubscriptions(Empty(), metadata=_metadata(request.headers), timeout=_TIMEOUT_S)
        return Response(200, _JSON, json.dumps(_as_over_http(said)).encode())

    async def _invoke(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        known = request.method in HTTPExtension.Verb.keys()  # noqa: SIM118 - an enum of protobuf, not a dict
        verb = HTTPExtension.Verb.Value(request.method) if known else HTTPExtension.Verb.NONE
        call = InvokeRequest(
            method=path.removeprefix("/"),
            data=AnyMessage(value=request.body),
            content_type=request.headers.get("content-type", ""),
            http_extension=HTTPExtension(verb=verb, querystring=query),
        )
        answer = await self._app.OnInvoke(call, metadata=_metadata(request.headers), timeout=_TIMEOUT_S)
        headers = {"content-type": answer.content_type} if answer.content_type else {}
        return Response(200, headers, answer.data.value)

    async def _deliver(self, request: Request) -> Response:
        event = topic_event(request, request.target.removeprefix("/"))
        verdict = await self._app.OnTopicEvent(event, metadata=_metadata(request.headers), timeout=_TIMEOUT_S)
        return verdict_response(verdict.status)


def _as_over_http(said: ListTopicSubscriptionsResponse) -> list[dict[str, str]]:
    return [
        {
            "pubsubname": item.pubsub_name,
            "topic": item.topic,
            "route": "/" + item.routes.default.removeprefix("/"),
            "deadLetterTopic": item.dead_letter_topic,
        }
        for item in said.subscriptions
    ]


def _metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, value)
        for name, value in headers.items()
        if name not in _NO_METADATA and not name.startswith("grpc-") and value.isascii() and value.isprintable()
    )


def _failed(error: grpc.aio.AioRpcError) -> Response:
    """The answer of an app that failed. Raises TransientError if the app did not answer at all."""
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            raise TransientError("cannot reach the app", kind="unreachable") from error
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TransientError("no answer from the app in time", kind="timeout") from error
        case code:
            return Response(_STATUS_OF_CODE.get(code, 500))
