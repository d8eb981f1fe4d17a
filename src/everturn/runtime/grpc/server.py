"""The gRPC server of one app's sidecar, and what all its calls have in common: faults become statuses, a token is asked
for, and nothing is half done."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from everturn.errors import StartError
from everturn.runtime.building_blocks import MAX_BODY_BYTES
from everturn.runtime.errors import DaprError
from everturn.runtime.workflow.rpc import RpcFault

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
MAX_METADATA_BYTES = 16 * 1024
# Calls of one connection at once; more wait in the client. A worker has one long call and a short one for each answer,
# but each workflow that a client waits for is a call, too: up to 2,000 of a chat service (EVERTURN_MAX_REQUESTS).
MAX_CALLS = 4_000
# Of so many connections' full number of calls, all together; more are refused (RESOURCE_EXHAUSTED).
_FULL_CONNECTIONS = 2
# An app has a few; each takes 15 kB. gRPC closes more at once, and tells nobody.
MAX_CONNECTIONS = 1_000
# https://docs.kernel.org/networking/proc_net_tcp.html
_SOCKETS, _ESTABLISHED = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")), "01"
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    ("grpc.max_send_message_length", -1),
    # More is refused; between gRPC's own two limits a call would be refused at random.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.so_reuseport", 0),
    # A worker that disappears without a goodbye is noticed within 15 s; the SDK pings every 30 s and may do so.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # As long as a head of HTTP may take.
    ("grpc.server_handshake_timeout_ms", 20_000),
    # Without a call for so long it is taken for forgotten; a client connects again by itself when it has one.
    ("grpc.max_connection_idle_ms", 300_000),
)


class GrpcServer:
    """Answers with `handlers` from `start` to `stop`.

    `api_token`: what a caller must show (DAPR_API_TOKEN). `max_calls`: of one connection at once.
    `max_connections`: more are closed as they come.
    """

    def __init__(
        self,
        handlers: "Sequence[grpc.GenericRpcHandler[Any, Any]]",
        *,
        api_token: str | None = None,
        max_calls: int = MAX_CALLS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        checks = [TokenCheck(api_token)] if api_token is not None else []
        limits = (
            ("grpc.max_concurrent_streams", max_calls),
            ("grpc.max_allowed_incoming_connections", max_connections),
        )
        self._server = grpc.aio.server(
            interceptors=checks, options=(*_OPTIONS, *limits), maximum_concurrent_rpcs=_FULL_CONNECTIONS * max_calls
        )
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._port = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses if `port` is 0. Raises StartError."""
        try:
            bound: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise StartError(f"port {port} is taken or not allowed") from error
        await self._server.start()
        self._port = bound
        return bound

    def open_connections(self) -> int:
        """How many there are now, where the system says so (Linux); gRPC does not."""
        tables = [table.read_text("ascii") for table in _SOCKETS if table.exists()]
        sockets = [line.split() for table in tables for line in table.splitlines()[1:]]
        return sum(local.endswith(f":{self._port:04X}") and state == _ESTABLISHED for _, local, _, state, *_ in sockets)

    async def stop(self, limit_s: float) -> None:
        """Take no new calls, let running ones finish within `limit_s` seconds, cut off the rest."""
        await self._server.stop(limit_s)


def unary(method: Unary, request_type: Any, *, shielded: bool = False) -> "grpc.RpcMethodHandler[Any, Any]":
    """A handler that answers with `method`. `shielded`: once begun it is finished, even if the caller has left."""

    async def call(request: Any, _metadata: Mapping[str, str]) -> Any:
        if not shielded:
            return await method(request)
        return await asyncio.shield(method(request))

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


def streaming(method: Streaming, request_type: Any, *, both: bool = False) -> "grpc.RpcMethodHandler[Any, Any]":
    """A handler that streams what `method` yields, until the caller leaves; `both`: for a stream of requests."""

    async def behaviour(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[Any]:
        try:
            async for message in method(request):
                yield message
        except DaprError as error:
            await context.abort(code_of(error), error.message)

    make = grpc.stream_stream_rpc_method_handler if both else grpc.unary_stream_rpc_method_handler
    return make(behaviour, request_deserializer=request_type.FromString, response_serializer=_serialize)


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses (UNAUTHENTICATED) a caller without `token` in the metadata, as daprd does, or with another beside it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        given = [value for name, value in details.invocation_metadata if name == TOKEN_HEADER]
        handler = await continuation(details)
        if handler is None or (given and all(hmac.compare_digest(str(one).encode(), self._token) for one in given)):
            return handler
        return _REFUSAL


async def _refuse(_requests: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "authentication error: api token mismatch")


# Whatever the call is: as a stream it ends before any message of it is read.
_REFUSAL: "grpc.RpcMethodHandler[Any, Any]" = grpc.stream_stream_rpc_method_handler(_refuse)
