"""The gRPC server of one app's sidecar."""

from collections.abc import Sequence
from typing import Any

import grpc

from everturn.errors import StartError
from everturn.runtime.grpc_call import TokenCheck

# Dapr's default of --max-body-size.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # A worker that is gone without a word is noticed within 15 s; the SDK pings every 30 s and may do so.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class GrpcServer:
    """Answers with `handlers` from `start` to `stop`. `api_token`: what a caller must show (DAPR_API_TOKEN)."""

    def __init__(self, handlers: "Sequence[grpc.GenericRpcHandler[Any, Any]]", *, api_token: str | None = None) -> None:
        checks = [TokenCheck(api_token)] if api_token is not None else []
        self._server = grpc.aio.server(interceptors=checks, options=_OPTIONS)
        self._server.add_generic_rpc_handlers(tuple(handlers))

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses where `port` is 0. Raises StartError."""
        try:
            bound: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise StartError(f"cannot listen on {host!r}, port {port}: it is taken or not allowed") from error
        await self._server.start()
        return bound

    async def stop(self, limit_s: float) -> None:
        """Take no new calls, let running ones finish within `limit_s` seconds, cut off the rest."""
        await self._server.stop(limit_s)
