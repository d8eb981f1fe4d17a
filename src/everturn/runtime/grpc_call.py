"""What every call over gRPC has in common: faults become statuses, a token is asked for, nothing is done by halves."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc

from everturn.runtime.dapr_errors import DaprError
from everturn.runtime.rpc_fault import RpcFault

log = logging.getLogger(__name__)

TOKEN_HEADER = "dapr-api-token"  # noqa: S105 - the name of a header

Unary = Callable[[Any], Awaitable[Any]]
UnaryWithMetadata = Callable[[Any, Mapping[str, str]], Awaitable[Any]]
Streaming = Callable[[Any], AsyncIterator[Any]]

# By daprd 1.18; what is not here is by the status.
_CODES = {
    "ERR_SECRET_STORES_NOT_CONFIGURED": grpc.StatusCode.FAILED_PRECONDITION,
    "ERR_INSTANCE_ID_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
}
_CODES_OF_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.INVALID_ARGUMENT,
    409: grpc.StatusCode.ABORTED,
}


def unary(method: Unary, request_type: Any, *, whole: bool = False) -> "grpc.RpcMethodHandler[Any, Any]":
    """A handler that answers with `method`. `whole`: once begun it is finished, though the caller may have left."""

    async def call(request: Any, _metadata: Mapping[str, str]) -> Any:
        if not whole:
            return await method(request)
        return await asyncio.shield(asyncio.ensure_future(method(request)))

    return unary_with_metadata(call, request_type)


def unary_with_metadata(method: UnaryWithMetadata, request_type: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    """As `unary`, for a method that is given the call's text metadata too, by lower-case name."""

    async def behaviour(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        try:
            return await method(request, text_metadata(context))
        except RpcFault as fault:
            await context.abort(fault.code, fault.details)
        except DaprError as error:
            await context.abort(code_of(error), error.message)
        except Exception:  # the edge of the call: what went wrong is not for the caller to read
            log.exception("rpc_failed", extra={"request": request_type.__name__})
            await context.abort(grpc.StatusCode.INTERNAL, "the runtime failed; its log says where")

    return grpc.unary_unary_rpc_method_handler(
        behaviour, request_deserializer=request_type.FromString, response_serializer=_serialize
    )


def code_of(error: DaprError) -> grpc.StatusCode:
    return _CODES.get(error.code) or _CODES_OF_STATUS.get(error.status, grpc.StatusCode.INTERNAL)


def text_metadata(context: "grpc.aio.ServicerContext[Any, Any]") -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def streaming_both(method: Streaming, request_type: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    """A handler that streams what `method` yields for the stream of the caller's messages, until the caller leaves."""

    async def behaviour(requests: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
        try:
            async for message in method(requests):
                yield message
        except DaprError as error:
            await context.abort(code_of(error), error.message)

    return grpc.stream_stream_rpc_method_handler(
        behaviour, request_deserializer=request_type.FromString, response_serializer=_serialize
    )


def streaming(method: Streaming, request_type: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    """A handler that streams what `method` yields, until the caller leaves."""

    async def behaviour(request: Any, _context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
        async for message in method(request):
            yield message

    return grpc.unary_stream_rpc_method_handler(
        behaviour, request_deserializer=request_type.FromString, response_serializer=_serialize
    )


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses (UNAUTHENTICATED) who does not show `token` in the metadata, as daprd does."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        given = dict(details.invocation_metadata).get(TOKEN_HEADER, "")
        handler = await continuation(details)
        if handler is None or hmac.compare_digest(str(given).encode(), self._token):
            return handler
        return _refusal_like(handler)


def _refusal_like(handler: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    async def refuse(_request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "authentication error: api token mismatch")

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[handler.request_streaming, handler.response_streaming]
    return make(
        refuse,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
