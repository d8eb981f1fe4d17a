"""The HTTP front as an ASGI app, to be served on a socket."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from everturn.sidecar.wire import Request, Response

# Dapr's default of --max-body-size.
_MAX_BODY_BYTES = 4 * 1024 * 1024
# Apps and other runtimes are on this machine: what takes longer has stopped.
_BODY_TIMEOUT_S = 30.0

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class Front(Protocol):
    async def handle(self, request: Request) -> Response: ...


def as_asgi(
    front: Front, max_body_bytes: int = _MAX_BODY_BYTES, body_timeout_s: float = _BODY_TIMEOUT_S
) -> Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]:
    """An ASGI app that answers with `front`. A body over `max_body_bytes` gets 413, one that is late gets 408."""

    async def app(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        try:
            async with asyncio.timeout(body_timeout_s):
                body = await _read_body(receive, max_body_bytes)
        except TimeoutError:
            await _refuse(send, 408)
            return
        if body is None:
            await _refuse(send, 413)
            return
        response = await front.handle(Request(scope["method"], _target(scope), _headers(scope), body))
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
        if response.status != 204:
            headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    return app


async def _refuse(send: _Send, status: int) -> None:
    """The rest of the body may still come: the connection is not used again."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b""})


async def _read_body(receive: _Receive, max_bytes: int) -> bytes | None:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _target(scope: MutableMapping[str, Any]) -> str:
    query: bytes = scope["query_string"]
    path: bytes = scope["raw_path"]
    return path.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
