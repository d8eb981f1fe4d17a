"""Service invocation over gRPC: an `InvokeRequest` is an HTTP request, and the answer's status a gRPC one."""

from collections.abc import Mapping

import grpc
from dapr.proto.common.v1.common_pb2 import HTTPExtension, InvokeRequest, InvokeResponse
from dapr.proto.runtime.v1.invoke_pb2 import InvokeServiceRequest
from google.protobuf.any_pb2 import Any as AnyMessage

from everturn.runtime.http_call import AppView
from everturn.runtime.invoke import invoke_app
from everturn.runtime.rpc_fault import RpcFault
from everturn.sidecar.wire import Request

# github.com/dapr/dapr pkg/messaging/v1/util.go, CodeFromHTTPStatus; what is not here is UNKNOWN.
CODE_OF_STATUS = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.CANCELLED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class InvokeCalls:
    """Invocation by one app."""

    def __init__(self, app: AppView) -> None:
        self._app = app

    async def invoke(self, request: InvokeServiceRequest, metadata: Mapping[str, str]) -> InvokeResponse:
        """Raises DaprError where the app gave no answer, RpcFault where its answer was no success."""
        response = await invoke_app(
            self._app.blocks, self._app.app_id, request.id, http_request(request.message, metadata)
        )
        if not 200 <= response.status < 300:
            code = CODE_OF_STATUS.get(response.status, grpc.StatusCode.UNKNOWN)
            raise RpcFault(code, f"app {request.id!r} answered {response.status}")
        content_type = response.headers.get("content-type", "")
        return InvokeResponse(data=AnyMessage(value=response.body), content_type=content_type)


def http_request(message: InvokeRequest, metadata: Mapping[str, str]) -> Request:
    """The HTTP request that `message` stands for; without a verb it is a POST."""
    verb = HTTPExtension.Verb.Name(message.http_extension.verb)
    query = message.http_extension.querystring
    headers = {name: value for name, value in metadata.items() if not name.startswith((":", "grpc-"))}
    headers.pop("user-agent", None)
    if message.content_type:
        headers["content-type"] = message.content_type
    target = "/" + message.method.lstrip("/") + (f"?{query}" if query else "")
    return Request("POST" if verb == "NONE" else verb, target, headers, message.data.value)
