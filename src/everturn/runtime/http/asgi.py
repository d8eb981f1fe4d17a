"""The HTTP API as an ASGI app, to be served on a socket."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from everturn.dapr.wire import AsgiApp, Message, Request, Response
from everturn.runtime.building_blocks import MAX_BODY_BYTES
from everturn.runtime.http.handlers import json_response, problem

log = logging.getLogger(__name__)

_FAILED = "the runtime failed; its log says where"
# Apps and other runtimes are on this machine: what takes longer has stopped.
_BODY_TIMEOUT_S = 30.0

# A proxy could go by one of two, we by the other; RFC 9112 section 3.2 asks it of Host.
_SINGLE = ("host", "dapr-api-token", "dapr-app-id")

_Receive = Callable[[], Awaitable[Message]]
_Send = Callable[[Message], Awaitable[None]]
_Handle = Callable[[Request], Awaitable[Response]]


def as_asgi(handle: _Handle, max_body_bytes: int = MAX_BODY_BYTES, body_timeout_s: float = _BODY_TIMEOUT_S) -> AsgiApp:
    """An ASGI app that answers with `handle`, with 500 in Dapr's JSON if that fails.

    A body over `max_body_bytes` gets 413, one that is late gets 408.
    """

    async def app(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        names = [name for name, _ in headers]
        if twice := next((name for name in _SINGLE if names.count(name) > 1), None):
            await _answer(send, problem(400, f"The header {twice} was sent more than once."))
            return
        try:
            async with asyncio.timeout(body_timeout_s):
                body = await _read_body(receive, max_body_bytes)
        except TimeoutError:
            await _answer(send, problem(408, "The body did not come in time."), last=True)
            return
        if body is None:
            await _answer(send, problem(413, f"The body must have at most {max_body_bytes} bytes."), last=True)
            return
        try:
            response = await handle(Request(scope["method"], _target(scope), dict(headers), body))
        except Exception:  # the edge of the request: what went wrong is not for the caller to read
            log.exception("request_failed", extra={"method": scope["method"]})
            response = json_response({"errorCode": "ERR_INTERNAL", "message": _FAILED}, 500)
        await _answer(send, response)

    return app


async def _answer(send: _Send, response: Response, *, last: bool = False) -> None:
    """`last`: the rest of the body may still come, so the connection is not used again."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    if response.status != 204:
        headers.append((b"content-length", str(len(response.body)).encode()))
    if last:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


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
